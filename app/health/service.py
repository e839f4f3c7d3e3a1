"""Asking the parts whether they can be reached."""

from collections.abc import Callable, Mapping

from app.context import Context
from app.contracts.failure import FaultKind, SlimlineError
from app.db.migrate import is_current
from app.health.schemas import Readiness


def check_parts(context: Context) -> Readiness:
    """Ask the database (and its schema), the broker and the storage."""
    checks: Mapping[str, Callable[[], None]] = {
        "database": lambda: _check_database(context),
        "broker": context.dispatcher.check,
        "storage": context.store.check,
    }
    parts = {name: _outcome(check) for name, check in checks.items()}
    return Readiness(ready=all(outcome == "ok" for outcome in parts.values()), parts=parts)


def _check_database(context: Context) -> None:
    if not is_current(context.database.engine):
        message = "its schema is not this version's: run `slimline migrate`"
        raise SlimlineError("SCHEMA_OUTDATED", message, kind=FaultKind.OURS)


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except SlimlineError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - any driver's error means the same here
        return f"cannot be reached ({type(error).__name__})"
    return "ok"
