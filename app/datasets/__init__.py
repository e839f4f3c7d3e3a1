"""Datasets: uploaded samples for calibration, training and evaluation, and what checking found in them."""
