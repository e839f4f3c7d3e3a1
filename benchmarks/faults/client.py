"""A client that never gives up: it sends a request again, with the same Idempotency-Key, and counts what went wrong."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

_PAUSE_S = 0.2
_LIMIT_S = 180
FINAL = ("succeeded", "failed", "cancelled")


class StubbornClient:
    """Speaks to one service. `troubles` counts statuses of 500 and above, and requests that got no answer."""

    def __init__(self, url: str) -> None:
        self.troubles: Counter[str] = Counter()
        self.requests = 0
        self._http = httpx.Client(base_url=url, timeout=90, trust_env=False)
        self._guard = threading.Lock()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The first answer below 500. Raises TimeoutError when there is none for three minutes."""
        give_up_at = time.monotonic() + _LIMIT_S
        while time.monotonic() < give_up_at:
            with self._guard:
                self.requests += 1
            try:
                answer = self._http.request(method, path, **more)
            except httpx.TransportError:
                self._note("no answer")
            else:
                if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    if answer.status_code != HTTPStatus.CONFLICT:
                        return answer
                    self._note("409 while the first is being answered")
                else:
                    self._note(f"{answer.status_code} to {method} {path}: {answer.text[:300]}")
            time.sleep(_PAUSE_S)
        raise TimeoutError(f"{method} {path}")

    def get(self, path: str) -> Any:
        """The JSON of an answer."""
        return self.request("GET", path).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any], key: str) -> Any:
        """The JSON of the answer to a POST under an Idempotency-Key."""
        return self.request("POST", path, json=body, headers={"Idempotency-Key": key}).raise_for_status().json()

    def upload(self, kind: str, file: Path, key: str) -> str:
        """The id of a model or dataset, once it is checked."""
        body, headers = file.read_bytes(), {"Idempotency-Key": key}
        where = f"/v1/{kind}?name={file.name}"
        uploaded = self.request("POST", where, content=body, headers=headers).raise_for_status().json()
        while (found := self.get(f"/v1/{kind}/{uploaded['id']}"))["state"] not in ("ready", "rejected"):
            time.sleep(_PAUSE_S)
        if found["state"] == "rejected":
            raise ValueError(found["problem"])
        return str(found["id"])

    def finish(self, job: str, limit_s: float = 120) -> Any:
        """The job once it is final. Raises TimeoutError."""
        give_up_at = time.monotonic() + limit_s
        while (found := self.get(f"/v1/jobs/{job}?wait=5"))["state"] not in FINAL:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"job {job} is still {found['state']}")
        return found

    def _note(self, trouble: str) -> None:
        with self._guard:
            self.troubles[trouble] += 1
