"""Where `up` may listen."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.failure import SlimlineError
from app.db.base import utc_now
from app.db.migrate import upgrade
from app.settings import Settings
from app.up.address import find_port, is_loopback, require_key


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_others_are_let_near_only_once_there_is_a_key(
    host: str, loopback: bool, settings: Settings, make_key: Callable[..., str]
) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        require_key(host, settings)
    else:
        with pytest.raises(SlimlineError, match="no key yet") as refused:
            require_key(host, settings)
        assert refused.value.failure.code == "OPEN_TO_NETWORK"
    require_key(host, settings.model_copy(update={"insecure_open": True}))
    make_key("read")
    require_key(host, settings)


def test_a_revoked_key_is_enough(settings: Settings, make_key: Callable[..., str]) -> None:
    """The service asks for a key then, though nobody has one that works."""
    make_key("read", revoked_at=utc_now())
    require_key("0.0.0.0", settings)


@pytest.mark.parametrize("revision", [None, "0001", "0002"])
def test_no_database_or_an_old_one_has_no_key(tmp_path: Path, revision: str | None) -> None:
    settings = Settings(data=tmp_path / "data")
    if revision:
        settings.data.mkdir()
        upgrade(settings.database, revision)
    with pytest.raises(SlimlineError, match="no key yet"):
        require_key("0.0.0.0", settings)
    assert settings.data.exists() is (revision is not None)


def test_port_in_use_is_refused_and_zero_finds_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SlimlineError, match=f"port {port}") as refused:
            find_port("127.0.0.1", port)
        assert refused.value.failure.code == "PORT_IN_USE"
        assert find_port("127.0.0.1", 0) not in (0, port)


def test_unknown_host() -> None:
    with pytest.raises(SlimlineError) as refused:
        find_port("no-such-host.invalid", 8000)
    assert refused.value.failure.code == "HOST_UNUSABLE"
