"""Where a server may listen: on loopback until there is a key, unless the operator insists; and on a free port."""

import ipaddress
import socket

from app.contracts.failure import SlimlineError
from app.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key(host: str, settings: Settings) -> None:
    """Raises SlimlineError OPEN_TO_NETWORK where others reach `host` and no key was ever made: they could do all."""
    if is_loopback(host) or settings.insecure_open:
        return
    from app.keys.offline import has_any_key  # noqa: PLC0415 - on loopback no database need be loaded

    if not has_any_key(settings):
        raise SlimlineError(
            "OPEN_TO_NETWORK",
            f"{host} can be reached from other machines, and there is no key yet: nobody would be asked for one",
            hint="make one with `slimline migrate` and `slimline keys create NAME --role admin` (both take --data),"
            " or say --insecure-open if that is meant",
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
