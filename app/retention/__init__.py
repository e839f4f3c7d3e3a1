"""Retention: which rows go when their time is over, and which blobs are still referred to. No blob is touched here."""
