"""API keys: made, listed, rotated and revoked, and how a request proves with one who asks."""
