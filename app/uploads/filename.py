"""The name a file was sent under, made safe to show and to send back. It never becomes a path."""

from email.message import Message

MAX_CHARACTERS = 255


def clean_filename(name: str) -> str:
    """The last part of a path, of either kind, without control characters; empty when nothing is left."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable()).strip()
    return "" if shown in {".", ".."} else shown[-MAX_CHARACTERS:]


def filename_of(content_disposition: str | None) -> str:
    """The filename in a Content-Disposition header (RFC 6266, with `filename*`); empty when there is none."""
    if not content_disposition:
        return ""
    message = Message()
    message["Content-Disposition"] = content_disposition
    return clean_filename(message.get_filename() or "")
