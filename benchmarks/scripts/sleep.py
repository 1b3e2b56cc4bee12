"""Work of a known length."""

from __future__ import annotations

import os
import time

seconds = float(os.environ.get("ITEM_SECONDS", "0.001"))


def run(mini_batch: list[str]) -> list[str]:
    """Sleep for each item."""
    for _ in mini_batch:
        time.sleep(seconds)
    return mini_batch
