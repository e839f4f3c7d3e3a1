"""Every setting of the service: `SLIMLINE_*` variables, read when `Settings()` is called, never at import."""

import os
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3


class Settings(BaseSettings):
    """Settings with defaults for one machine. Empty URLs are derived from `data`."""

    model_config = SettingsConfigDict(env_prefix="SLIMLINE_", frozen=True)

    data: Path = Field(Path("slimline-data"), description="Folder of everything that is kept: database, blobs, broker")
    database_url: SecretStr = Field(
        SecretStr(""),
        description="SQLAlchemy URL, such as postgresql://user:secret@host/slimline; empty: SQLite in `data`",
    )
    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Celery broker: redis://, valkey://, amqp://"
    )
    storage_url: str = Field("", description="Where blobs lie: a folder, or s3://bucket/prefix; empty: `data`/blobs")
    storage_endpoint: str = Field("", description="Endpoint of an S3-compatible store, such as http://127.0.0.1:8333")
    storage_region: str = Field("us-east-1", description="Region of the S3 bucket")
    storage_access_key: SecretStr = Field(SecretStr(""), description="S3 access key id")
    storage_secret_key: SecretStr = Field(SecretStr(""), description="S3 secret access key")

    max_upload_bytes: int = Field(16 * GIB, gt=0, description="Largest model or dataset file that is taken")
    upload_expiry_s: float = Field(86400, gt=0, description="A resumable upload is removed so long after its last byte")
    max_body_bytes: int = Field(MIB, gt=0, description="Largest JSON body that is taken")
    insecure_open: bool = Field(False, description="Let a server without a key be reached from other machines")
    requests_per_minute: int = Field(
        1200, ge=0, description="Requests a minute that a key may send if it has no number of its own; 0: any"
    )
    quota_unfinished_jobs: int = Field(0, ge=0, description="Jobs of a project that are not over yet; 0: any number")
    quota_stored_bytes: int = Field(0, ge=0, description="Bytes of a project's models, data and artifacts; 0: any")
    http_head_s: float = Field(15, gt=0, description="Time for the head of a request to arrive, seconds")
    http_body_s: float = Field(30, gt=0, description="Time for a JSON body to arrive, seconds")
    http_stall_s: float = Field(120, gt=0, description="A client that reads nothing of its answer is cut off after it")
    http_connections: int = Field(800, ge=1, description="Connections to one API process; more are answered 503")

    concurrency: int = Field(1, ge=1, description="Jobs one worker runs at the same time")
    job_memory_bytes: int = Field(0, ge=0, description="Memory one job may use; 0: what the machine has, less 1 GiB")
    job_file_bytes: int = Field(32 * GIB, gt=0, description="Largest file one job may write")
    ingest_run_s: float = Field(600, gt=0, description="Time to check one upload, seconds")
    work_dir: Path | None = Field(None, description="Where jobs' temporary folders are made; empty: `data`/work")
    heartbeat_s: float = Field(2, gt=0, description="How often a worker renews the lease of a job, seconds")
    lease_s: float = Field(30, gt=0, description="A job whose lease was not renewed for so long is queued again")
    drain_s: float = Field(5, ge=0, description="A worker that is asked to stop lets its jobs run on for so long")
    sweep_s: float = Field(10, gt=0, description="How often the sweeper looks for lost messages and ended leases")
    max_attempts: int = Field(3, ge=1, description="Starts of one job that get no further before it fails for good")
    events_per_job: int = Field(
        10_000, ge=100, description="Stored events of one job; progress beyond it is not stored"
    )

    retention_days: float = Field(0, ge=0, le=36_500, description="Finished jobs older than this are deleted; 0: never")
    collect_s: float = Field(600, gt=0, description="How often what no one needs any more is removed, seconds")
    collect_after_s: float = Field(
        3600, ge=0, description="A stored file that nothing refers to stays at least so long"
    )

    webhook_private_targets: bool = Field(
        False, description="Whether webhooks may be sent to private and loopback addresses"
    )

    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_json: bool = Field(False, description="Log lines as JSON")

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_s < 3 * self.heartbeat_s:
            raise ValueError("SLIMLINE_LEASE_S must be at least three times SLIMLINE_HEARTBEAT_S")
        return self

    @property
    def database(self) -> str:
        """The SQLAlchemy URL, with the driver that Slimline installs."""
        url = self.database_url.get_secret_value()
        if not url:
            return f"sqlite:///{self.data.absolute() / 'slimline.db'}"
        for plain in ("postgres://", "postgresql://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    @property
    def broker(self) -> str:
        """The Celery broker URL. Valkey speaks Redis's protocol, so `valkey://` is taken as `redis://`."""
        url = self.broker_url.get_secret_value()
        return "redis" + url.removeprefix("valkey") if url.startswith("valkey") else url

    @property
    def storage(self) -> str:
        """A folder's path or an s3:// URL."""
        return self.storage_url or str(self.data.absolute() / "blobs")

    @property
    def workspaces(self) -> Path:
        """The folder that jobs' temporary folders are made in."""
        return self.work_dir or self.data.absolute() / "work"

    @property
    def memory_limit(self) -> int:
        """Bytes one job may use."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.job_memory_bytes or max(total - GIB, GIB)

    def rows(self) -> list[tuple[str, str, str]]:
        """Variable, value and meaning of every setting, passwords masked."""
        return [
            (f"SLIMLINE_{name.upper()}", _shown(getattr(self, name)), field.description or "")
            for name, field in type(self).model_fields.items()
        ]


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return mask_url(secret) if "://" in secret else str(value)
    return "" if value is None else str(value)


def mask_url(url: str) -> str:
    """The URL with its password replaced by stars."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))
