"""What is counted of jobs, and that whoever asks is told all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from batchpoint.background.meters import Meters
from batchpoint.entities.jobs import Job, Progress, Reason, Receipt, Sampling

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


def completed(**told: Any) -> Job:
    return Job(name="night", status=Reason.COMPLETED.status, reason=Reason.COMPLETED, **told)


def receipt(*, ok: int, failed: int = 0, skipped: int = 0) -> Receipt:
    counts = {"ok": ok, "failed": failed, "skipped": skipped, "items": ok + failed + skipped}
    return Receipt(job="night", unit="rows", output_rows=ok, balanced=True, **counts)


def test_a_plan_scores_a_sample_and_is_told_apart_from_jobs_that_publish() -> None:
    meters = Meters()
    progress = Progress(unit="rows", ok=900, failed=3, mini_batches_done=9, mini_batches_failed=1, worker_losses=1)
    meters.job_ended(completed(sample=Sampling(), progress=progress))
    assert set(samples(meters, "items_total").values()) == {0}
    assert samples(meters, "mini_batches_total") == samples(meters, "mini_batches_failed_total") == {(): 0}
    assert samples(meters, "workers_lost_total") == {(): 1}, "it did score"
    ended = samples(meters, "jobs_ended_total")
    assert ended[("completed", "completed", "plan")] == 1
    assert ended[("completed", "completed", "scoring")] == 0


def test_of_a_retry_only_what_it_scored_again_is_counted() -> None:
    meters = Meters()
    first = Progress(unit="rows", ok=2, failed=1, skipped=4, mini_batches_done=2, mini_batches_failed=1)
    meters.job_ended(completed(receipt=receipt(ok=2, failed=1, skipped=4), progress=first))
    fruitless = first.model_copy(update={"kept": 2, "mini_batches_kept": 1})
    meters.job_ended(completed(retry_of="night", receipt=receipt(ok=2, failed=1, skipped=4), progress=fruitless))
    last = Progress(unit="rows", ok=3, skipped=4, mini_batches_done=2, kept=2, mini_batches_kept=1)
    meters.job_ended(completed(retry_of="night", receipt=receipt(ok=3, skipped=4), progress=last))
    items = samples(meters, "items_total")
    assert items[("ok", "rows")] == 3, "each row that has a result, once"
    assert items[("failed", "rows")] == 2, "the row that failed, each time it did"
    assert items[("skipped", "rows")] == 4
    assert samples(meters, "mini_batches_total") == {(): 4}
    assert samples(meters, "mini_batches_failed_total") == {(): 2}
