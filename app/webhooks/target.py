"""Which URLs webhooks may have, and which addresses may be connected to. Nothing is sent here."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

from app.contracts.failure import SlimlineError

Address = IPv4Address | IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
RESOLVE_S = 5.0
"""How long a request may wait for a host's addresses."""
PORTS = range(1, 2**16)
LOWEST_FREE_PORT = 1024
"""Below it lie mail, SSH and their like, which have no use for an HTTP request."""

_UNICAST = ip_network("2000::/3")
"""The only part of IPv6 that was ever given out; translated and embedded IPv4 addresses lie mostly outside."""
_NEVER = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, among them a cloud's metadata service
        "192.88.99.0/24",  # relays to 6to4
        "168.63.129.16/32",  # a cloud's metadata service, at an address that looks public
        "224.0.0.0/4",  # multicast
        "2002::/16",  # 6to4, with any IPv4 address inside
        "3fff::/20",  # documentation
    )
)
"""Not told by `is_global`, or not by that of every Python."""


async def check_target(url: str, *, allow_private: bool) -> None:
    """Refuse early what sending would refuse. A host that cannot be resolved now may be there later.

    Raises WEBHOOK_URL_INVALID and WEBHOOK_TARGET_PRIVATE.
    """
    target = parse_target(url, allow_private=allow_private)
    if not allow_private:
        with suppress(OSError):  # a time-out is one, too
            async with asyncio.timeout(RESOLVE_S):
                require_public(await resolve(target))


def parse_target(url: str, *, allow_private: bool) -> httpx.URL:
    """The URL of a webhook, taken apart by who will connect to it. Raises WEBHOOK_URL_INVALID."""
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _invalid(str(error)) from None
    if target.scheme not in DEFAULT_PORTS:
        raise _invalid("it must begin with https:// or http://")
    if not target.host:
        raise _invalid("it names no host")
    if target.userinfo:
        raise _invalid("it holds a user name or password; what is sent is signed instead")
    port = port_of(target)
    if port not in PORTS:
        raise _invalid(f"there is no port {port}")
    if not allow_private and port < LOWEST_FREE_PORT and port not in DEFAULT_PORTS.values():
        raise _invalid(f"port {port} is not for HTTP; use 80, 443, or one from {LOWEST_FREE_PORT}")
    return target


def port_of(target: httpx.URL) -> int:
    """The port to connect to."""
    return DEFAULT_PORTS[target.scheme] if target.port is None else target.port


async def resolve(target: httpx.URL) -> Sequence[str]:
    """Every address of the host, best first. Raises OSError."""
    host = target.raw_host.decode("ascii").strip("[]")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port_of(target), type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that no name can have
        raise OSError("this is no host name") from None
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def require_public(addresses: Sequence[str]) -> None:
    """Raises WEBHOOK_TARGET_PRIVATE for addresses of which one is not on the public internet. It does not say which."""
    if not all(is_public(ip_address(address)) for address in addresses):
        raise SlimlineError(
            "WEBHOOK_TARGET_PRIVATE",
            "the host of this webhook has an address that is not on the public internet",
            hint="give a public URL; the operator can allow others with SLIMLINE_WEBHOOK_PRIVATE_TARGETS",
        )


def is_public(address: Address) -> bool:
    """Whether an address belongs to one machine on the public internet."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NEVER)


def _invalid(reason: str) -> SlimlineError:
    return SlimlineError("WEBHOOK_URL_INVALID", f"the URL cannot be used: {reason}", node="url")
