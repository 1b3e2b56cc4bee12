"""What is counted of jobs, and that whoever asks is told all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from batchpoint.background.meters import Meters

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def scrape(meters: Meters, **told: Any) -> bytes:
    there = {"jobs": {}, "instances": {}, "next_due_at": None, "pending_deliveries": 0, "now": NOW, "loops": ()}
    return meters.told(**(there | told))


def test_two_monitors_that_ask_at_once_are_both_told_of_every_instance() -> None:
    meters = Meters()
    instances = {("default", f"pool-{number}", "idle"): 1 for number in range(50)}

    def told(_: int) -> int:
        return scrape(meters, instances=instances).count(b"batchpoint_instances{")

    with ThreadPoolExecutor(4) as monitors:
        assert set(monitors.map(told, range(400))) == {50}
