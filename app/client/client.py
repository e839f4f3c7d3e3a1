"""The calls of the API, one method each. Resources come back as the plain JSON the server sent."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from app.client.events import Event, parse_events
from app.client.line import Line
from app.client.patience import PATIENCE_S
from app.client.problem import ServerUnreachableError, require_ok
from app.client.resumable import RESUMABLE_FROM_BYTES, ResumableUpload
from app.client.transfer import OnBytes, ReportingFile, download
from app.contracts.states import IngestState, JobState

Resource = dict[str, Any]
Kind = Literal["models", "datasets"]

WAIT_S = 20
"""How long one long poll may hang; the server allows 60."""


class Client:
    """A Slimline server. Every method may raise ApiError (it refused) or ServerUnreachableError (no answer).

    While the server is away for a moment or asks to wait, requests are sent again; each POST is done once all the same.
    `key` is what `slimline keys create` printed; a server without keys needs none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._line = Line(self.url, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._line.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of any resource. Empty query values are left out."""
        return self._get(path, query).json()

    def get_text(self, path: str, **query: Any) -> str:
        """The text of a resource that has other forms than JSON."""
        return self._get(path, query).text

    def list(self, path: str, *, limit: int = 50, **query: Any) -> Iterator[Resource]:
        """Up to `limit` resources of a list, page by page."""
        after: str | None = None
        while limit > 0:
            page = self.get(path, limit=min(limit, 200), after=after, **query)
            yield from page["data"]
            limit -= len(page["data"])
            after = page["next"]
            if not page["has_more"]:
                return

    def upload(
        self,
        kind: Kind,
        path: Path,
        *,
        name: str | None = None,
        preprocess: Mapping[str, Any] | None = None,
        on_bytes: OnBytes = lambda _done, _total: None,
    ) -> Resource:
        """Send a file, streamed from disk, and return the new model or dataset, which is still to be checked.

        A large file goes in pieces, and from where it stood when this or an earlier process was interrupted.
        Raises FileChangedError.
        """
        with path.open("rb") as file, self._reaching():
            if os.fstat(file.fileno()).st_size >= RESUMABLE_FROM_BYTES:
                upload = ResumableUpload(self._line, self.url, path, file, on_bytes)
                named = {"upload": upload.send(), "name": name, "preprocess": preprocess}
                made = self.post(f"/v1/{kind}", named)
                upload.forget()
                return made
            form = {"name": name, "preprocess": json.dumps(preprocess) if preprocess else None}
            given = {field: value for field, value in form.items() if value is not None}
            files: Any = {"file": (path.name, ReportingFile(file, on_bytes))}  # httpx needs read, seek and fileno only
            return dict(require_ok(self._line.post(f"/v1/{kind}", files=files, data=given)).json())

    def wait_until_checked(self, kind: Kind, resource_id: str) -> Resource:
        """Return once the upload is `ready` or `rejected`."""
        pause = 0.05
        while (resource := self.get(f"/v1/{kind}/{resource_id}"))["state"] not in (
            IngestState.READY,
            IngestState.REJECTED,
        ):
            time.sleep(pause)
            pause = min(pause * 1.5, 1)
        return dict(resource)

    def submit(self, spec: Mapping[str, Any]) -> Resource:
        """Queue a job (see app.contracts.job_spec) and return it."""
        return self._post("/v1/jobs", spec)

    def preflight(self, spec: Mapping[str, Any]) -> Resource:
        """What the same `spec` would do as a job (see app.contracts.preflight); nothing is queued."""
        return self._post("/v1/jobs/preflight", spec)

    def cancel(self, job_id: str) -> Resource:
        """Ask for a job to be cancelled and return it."""
        return self._post(f"/v1/jobs/{job_id}/cancel")

    def retry(self, job_id: str) -> Resource:
        """Queue what a failed or cancelled job was to do as a new job and return that."""
        return self._post(f"/v1/jobs/{job_id}/retry")

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Resource:
        """Make or do something and return the resource. Empty fields of the body are left out."""
        return self._post(path, body and {name: value for name, value in body.items() if value is not None})

    def delete(self, path: str) -> None:
        """Delete a resource."""
        with self._reaching():
            require_ok(self._line.send("DELETE", path))

    def job(self, job_id: str) -> Resource:
        """A job as it is now."""
        return dict(self.get(f"/v1/jobs/{job_id}"))

    def wait(self, job_id: str) -> Resource:
        """The job once its state is final, by long polls."""
        while not JobState((job := self.get(f"/v1/jobs/{job_id}", wait=WAIT_S))["state"]).is_final:
            pass
        return dict(job)

    def watch(self, job_id: str, after: str | None = None) -> Iterator[Event]:
        """Every event of a job behind event `after`, live, until its state is final.

        A broken line is taken up again behind the last event seen; the server may be away for `PATIENCE_S`.
        """
        away_since: float | None = None
        while True:
            try:
                for event in self._stream(job_id, after):
                    after, away_since = event.id or after, None
                    yield event
                if JobState(self.job(job_id)["state"]).is_final:
                    return
            except ServerUnreachableError:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_S:
                    raise
            time.sleep(0.3)

    def download(self, path: str, sha256: str, to: Path, *, on_bytes: OnBytes = lambda _done, _total: None) -> None:
        """Write the content at `path` to the file `to`, which appears whole and right or not at all.

        Raises DownloadDamagedError.
        """
        with self._reaching():
            download(self._line, path, sha256, to, on_bytes)

    def _stream(self, job_id: str, after: str | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        with self._reaching(), self._line.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
            yield from parse_events(require_ok(response).iter_lines())

    def _get(self, path: str, query: Mapping[str, Any]) -> httpx.Response:
        given = {name: value for name, value in query.items() if value is not None}
        with self._reaching():
            return require_ok(self._line.get(path, params=given))

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> Resource:
        with self._reaching():
            return dict(require_ok(self._line.post(path, json=body)).json())

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as broken:
            raise ServerUnreachableError(self.url, str(broken) or type(broken).__name__) from broken
