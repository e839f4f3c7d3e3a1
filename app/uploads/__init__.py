"""Taking files in over HTTP. What becomes of a file is the matter of the slice that asked for it."""

from app.uploads.receive import Upload, receive_upload
from app.uploads.refusals import UPLOAD_PROBLEMS

__all__ = ["UPLOAD_PROBLEMS", "Upload", "receive_upload"]
