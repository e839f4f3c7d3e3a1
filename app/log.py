"""How this program logs: structured lines on stderr, for people or as JSON. Called once by whoever starts a process."""

import logging
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from app.settings import Settings

_MASK = "***"
_LEAST_SECRET = 6
"""Characters: to star out a shorter password wherever it occurs would spoil words."""
_SECRETS = (
    r"\bslk_[\w.-]+",  # API keys
    r"\bwhsec_[\w+/=-]+",  # secrets of webhooks
    r"(?<=://)[^\s/@]*:[^\s/@]*(?=@)",  # user and password in a URL
    r"\bBearer [\w.~+/=-]{8,}",
    r"(?i:\bauthorization\W{1,6}(?:basic )?[\w.~+/=-]{4,})",
)


def configure(settings: Settings) -> None:
    """Send our log lines, and those of the libraries, to stderr in one form, with the request or job id."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_json
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, SecretMask(settings)],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(capture=True)
    for server in ("uvicorn", "uvicorn.error"):  # they came with handlers of their own
        logging.getLogger(server).handlers.clear()
        logging.getLogger(server).propagate = True
    for talkative in ("alembic", "httpx", "httpcore"):  # they tell of every look at the schema, every request
        logging.getLogger(talkative).setLevel(logging.WARNING)


class SecretMask:
    """The last defence: nothing that looks like a secret, and none of the settings', is in a finished line."""

    def __init__(self, settings: Settings) -> None:
        known = sorted(map(re.escape, _read_secrets(settings)), key=len, reverse=True)
        self._pattern = re.compile("|".join((*known, *_SECRETS)))

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        """The line, as the renderer before it made it, with stars in place of secrets."""
        return self._pattern.sub(_MASK, str(line))


def _read_secrets(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            secret = urlsplit(text).password if "://" in text else text
            if secret and len(secret) >= _LEAST_SECRET:
                yield secret
