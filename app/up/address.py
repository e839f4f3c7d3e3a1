"""Where `slimline up` may listen: loopback unless the operator insists, and only on a free port."""

import ipaddress
import socket

from app.contracts.failure import SlimlineError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> None:
    """Raises SlimlineError OPEN_TO_NETWORK: the service has no keys, so whoever reaches it may use it."""
    if not is_loopback(host):
        raise SlimlineError(
            "OPEN_TO_NETWORK",
            f"{host} can be reached from other machines, and `slimline up` asks nobody for a key",
            hint="listen on 127.0.0.1 behind a proxy that checks who calls, or say --insecure-open if that is meant",
        )


def find_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Raises SlimlineError PORT_IN_USE or HOST_UNUSABLE."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as unknown:
        raise SlimlineError("HOST_UNUSABLE", f"{host}: {unknown.strerror}", hint="use --host 127.0.0.1") from unknown
    except OSError as refused:
        raise SlimlineError(
            "PORT_IN_USE",
            f"cannot listen on {host} port {port}: {refused.strerror}",
            hint="stop what listens there, or choose another with --port (0: any free one)",
        ) from refused
