"""Where `up` may listen."""

import socket

import pytest

from app.contracts.failure import SlimlineError
from app.up.address import find_port, is_loopback, require_loopback


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
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if not loopback:
        with pytest.raises(SlimlineError) as refused:
            require_loopback(host)
        assert refused.value.failure.code == "OPEN_TO_NETWORK"


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
