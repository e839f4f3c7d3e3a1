"""Taking files in over HTTP. What becomes of a file is the matter of the slice that asked for it."""

from app.uploads.receive import Upload, receive_upload

__all__ = ["Upload", "receive_upload"]
