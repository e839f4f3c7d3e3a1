"""Quotas: how many unfinished jobs and how many bytes a project may have at once."""
