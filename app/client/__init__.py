"""The Python client of the HTTP API: what the command line uses, and any program may. Knows no server code."""

from app.client.client import Client, Resource
from app.client.events import Event
from app.client.problem import ApiError, DownloadDamagedError, FileChangedError, ServerUnreachableError

__all__ = [
    "ApiError",
    "Client",
    "DownloadDamagedError",
    "Event",
    "FileChangedError",
    "Resource",
    "ServerUnreachableError",
]
