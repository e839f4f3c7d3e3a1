"""Webhooks: where to tell of what happened, what was told, and what came back. Sending is the worker's."""
