"""The server's own log: lines of text, or one JSON object a line that says which request or job it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from batchpoint.errors import InvalidEntityError
from batchpoint.settings import Settings

requests = logging.getLogger("batchpoint.requests")
"""A line for each request that was answered."""

jobs = logging.getLogger("batchpoint.jobs")
"""A line for each start and each end of a job."""

_EMPTY: Mapping[str, Any] = {}
_about: ContextVar[Mapping[str, Any]] = ContextVar("batchpoint_log_about", default=_EMPTY)


@contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Whatever is logged meanwhile is about these: ``request_id``, ``workspace``, ``job`` and the like."""
    token = _about.set({**_about.get(), **facts})
    try:
        yield
    finally:
        _about.reset(token)


def configure(settings: Settings) -> None:
    """Set the log of this process up. As text it is short: the lines of requests and jobs are left to JSON.

    Raises:
        InvalidEntityError: there is no such level, or no such form.
    """
    level = settings.log_level.upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        message = f"BATCHPOINT_LOG_LEVEL is {settings.log_level!r}. Give debug, info or warning."
        raise InvalidEntityError(message)
    if settings.log_format not in {"text", "json"}:
        message = f"BATCHPOINT_LOG_FORMAT is {settings.log_format!r}. Give text or json."
        raise InvalidEntityError(message)
    as_json = settings.log_format == "json"
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    # A command line that was asked for more words has set a log up already, as text.
    logging.basicConfig(level=level, handlers=[handler], force=as_json)
    quiet = ["alembic", "uvicorn"] if as_json else ["alembic", "uvicorn", requests.name, jobs.name]
    for chatty in quiet:
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """``time``, ``level``, ``logger``, ``message``, what it is about, and the traceback as ``exception``."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)
