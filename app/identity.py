"""Who asks, and with which request: principal, role and project. How a request proves it is `app.keys`."""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_PROJECT = "default"
"""The project of everything that was made without a key, and of keys that name no other."""


class Role(StrEnum):
    """What a key may do. Each may do what the ones before it may."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Principal:
    """Who asks. Without a key, while there is none, everybody is an admin of the default project."""

    project: str = DEFAULT_PROJECT
    role: Role = Role.ADMIN
    key_id: str | None = None


NOBODY = Principal()
"""Asks without a key, while the service is open."""


@dataclass(frozen=True)
class Origin:
    """The request that something was asked for with, as its logs and its trace name it."""

    request_id: str | None = None
    traceparent: str | None = None


UNKNOWN = Origin()
"""Of what no request asked for."""
