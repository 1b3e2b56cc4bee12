"""The server of a home folder, with a clock that a test moves: python moved_server.py <file that holds the time>."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from batchpoint.server.process import serve
from batchpoint.settings import Settings

clock = Path(sys.argv[1])


def now() -> datetime:
    """The time that the file says, ISO 8601."""
    return datetime.fromisoformat(clock.read_text())


if __name__ == "__main__":
    serve(Settings.from_environment(), now=now)
