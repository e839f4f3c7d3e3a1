"""The benchmark of training: what it brings back after compression, and what one update costs."""
