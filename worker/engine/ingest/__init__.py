"""The door: an upload becomes a checked `Graph` and its facts, or a refusal that says what to send instead."""
