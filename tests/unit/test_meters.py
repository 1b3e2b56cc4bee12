"""What is counted of jobs, and that whoever asks is told all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batchpoint.background.meters import Meters
from batchpoint.entities.jobs import Reason

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def scrape(meters: Meters, **told: Any) -> bytes:
    there = {"jobs": {}, "instances": {}, "next_due_at": None, "pending_deliveries": 0, "now": NOW, "loops": ()}
    return meters.told(**(there | told))


def samples(meters: Meters, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by its labels, in the order of their names."""
    families = text_string_to_metric_families(scrape(meters).decode())
    found = [sample for family in families for sample in family.samples if sample.name == f"batchpoint_{name}"]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in found}


def test_every_count_is_there_before_anything_happened_so_that_the_first_event_is_an_increase() -> None:
    meters = Meters()
    ended = samples(meters, "jobs_ended_total")
    for reason in Reason:
        assert ended[(str(reason), str(reason.status), "scoring")] == 0
    assert samples(meters, "items_total") == {
        (outcome, unit): 0 for unit in ("rows", "files") for outcome in ("ok", "failed", "skipped")
    }
    assert samples(meters, "webhook_attempts_total") == {("delivered",): 0, ("failed",): 0}
    assert samples(meters, "job_queue_seconds_count")[("pipeline",)] == 0
    assert samples(meters, "job_seconds_count")[("failed", "command")] == 0


def test_two_monitors_that_ask_at_once_are_both_told_of_every_instance() -> None:
    meters = Meters()
    instances = {("default", f"pool-{number}", "idle"): 1 for number in range(50)}

    def told(_: int) -> int:
        return scrape(meters, instances=instances).count(b"batchpoint_instances{")

    with ThreadPoolExecutor(4) as monitors:
        assert set(monitors.map(told, range(400))) == {50}
