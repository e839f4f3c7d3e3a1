"""Artifacts: the files that jobs made, kept by content and served with ranges and digests."""
