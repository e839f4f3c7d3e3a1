"""Sending webhooks: the loop, one request, when to try again. What is due, and what came of it, is the reporter's."""
