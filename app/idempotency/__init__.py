"""Answers kept under an Idempotency-Key, so that a POST that is sent again is not done again."""
