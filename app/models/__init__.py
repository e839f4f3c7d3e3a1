"""Models: uploaded networks and what checking found in them."""
