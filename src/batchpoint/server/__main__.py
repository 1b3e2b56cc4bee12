"""``python -m batchpoint.server``: the server as a client starts it, on this machine alone, ending itself when idle."""

from __future__ import annotations

import sys
from dataclasses import replace

from batchpoint.errors import BatchpointError
from batchpoint.server.process import serve
from batchpoint.settings import Settings

try:
    serve(replace(Settings.from_environment(), host="127.0.0.1", port=0), ends_when_idle=True)
except BatchpointError as error:
    sys.exit(error.message)
