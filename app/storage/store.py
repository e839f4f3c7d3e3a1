"""Choosing the store that the settings name. The stores themselves are beside this file."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store

from app.settings import Settings
from app.storage.blob import BlobStore
from app.storage.folder import FolderStore
from app.storage.s3 import BucketStore

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, S3Config

PATIENCE = timedelta(seconds=10)
"""How long after its beginning a request to the bucket is still repeated: neither client nor job hears of that."""


def open_store(settings: Settings) -> BlobStore:
    """The store at `settings.storage`: an s3:// URL or a folder. Temporary files of dead writers are removed."""
    if settings.storage.startswith("s3://"):
        patient, impatient = (_open_bucket(settings, patience) for patience in (PATIENCE, timedelta()))
        return BucketStore(patient, impatient, settings.data.absolute() / "spool")
    return FolderStore(Path(settings.storage))


def _open_bucket(settings: Settings, patience: timedelta) -> S3Store:
    url = urlsplit(settings.storage)
    config: S3Config = {"region": settings.storage_region}
    if settings.storage_endpoint:
        config["endpoint"] = settings.storage_endpoint
    # Without keys obstore finds them where AWS tools do: the environment, the instance's role.
    if access_key := settings.storage_access_key.get_secret_value():
        config["access_key_id"] = access_key
        config["secret_access_key"] = settings.storage_secret_key.get_secret_value()
    pauses: BackoffConfig = {"max_backoff": timedelta(seconds=1)}
    return S3Store(
        url.netloc,
        prefix=url.path.strip("/") or None,
        config=config,
        client_options={"allow_http": settings.storage_endpoint.startswith("http://"), "connect_timeout": "5s"},
        retry_config={"max_retries": 100 if patience else 0, "retry_timeout": patience, "backoff": pauses},
    )
