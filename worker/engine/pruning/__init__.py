"""What decides which weights and channels go, and what is mended after. Finding channels is in `graph/channels`."""
