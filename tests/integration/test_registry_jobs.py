"""The queue: claiming, leases, transitions, idempotency; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import batchpoint
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.job_queries import JobQuery, JobSort
from batchpoint.entities.jobs import Job, JobError, JobStatus, Progress, Reason, Receipt
from batchpoint.errors import AlreadyExistsError, ConflictError, InvalidEntityError, LeaseLostError, NotFoundError
from batchpoint.registry import Registry


def make_job(name: str, *, compute: str = "local", endpoint: str = "churn") -> Job:
    deployment = BatchDeployment(name="blue", endpoint_name=endpoint, compute=compute)
    return Job(name=name, endpoint_name=endpoint, deployment_name="blue", deployment=deployment)


def test_a_job_lives_from_the_queue_to_its_end_and_every_change_is_remembered(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("one"))
    claimed = registry.jobs.claim("server-a", 30)
    assert claimed is not None
    assert not claimed.resumed
    assert claimed.job.status == JobStatus.PREPARING
    token = claimed.lease_token
    registry.jobs.transition("one", token, JobStatus.RUNNING)
    assert registry.jobs.renew("one", token, 30, Progress(ok=5)) is False
    assert registry.jobs.get("one").progress == Progress(ok=5)
    registry.jobs.transition("one", token, JobStatus.FINALIZING)
    receipt = Receipt(job="one", unit="rows", items=1, ok=1, failed=0, skipped=0, output_rows=1, balanced=True)
    folder = "azureml://datastores/d/paths/p/"
    score = {"uri": f"{folder}x.csv", "folder": folder, "files": ["x.csv"]}
    found = {"score": score}
    done = registry.jobs.finish("one", token, Reason.COMPLETED, receipt=receipt, outputs=found, notices=["capped"])
    assert done == registry.jobs.get("one")
    assert (done.status, done.reason, done.receipt) == (JobStatus.COMPLETED, Reason.COMPLETED, receipt)
    assert done.outputs["score"].model_dump(include=set(score)) == score
    assert done.notices == ["capped"]
    assert done.started_at is not None
    assert done.finished_at is not None
    assert [each.event for each in registry.jobs.events("one")] == [
        "queued", "preparing", "running", "finalizing", "completed",
    ]  # fmt: skip


def test_the_oldest_job_is_claimed_first_and_nothing_is_claimed_twice(registry: Registry) -> None:
    for name in ("first", "second"):
        registry.jobs.enqueue(make_job(name))
    names = [claimed.job.name for _ in range(2) if (claimed := registry.jobs.claim("a", 30))]
    assert names == ["first", "second"]
    assert registry.jobs.claim("a", 30) is None


def test_a_job_that_does_not_fit_holds_back_its_compute_alone_and_says_why(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("big", compute="azureml:small-one"))
    registry.jobs.enqueue(make_job("behind", compute="small-one"))
    registry.jobs.enqueue(make_job("elsewhere", compute="other"))
    claimed = registry.jobs.claim("a", 30, fits=lambda _, job: "4 instances" if job.name == "big" else None)
    assert claimed is not None
    assert claimed.job.name == "elsewhere"
    assert registry.jobs.get("big").waiting_for == "4 instances"
    assert registry.jobs.get("behind").status == JobStatus.QUEUED
    later = registry.jobs.claim("a", 30)
    assert later is not None
    assert (later.job.name, later.job.waiting_for) == ("big", None)


def test_a_job_whose_lease_ran_out_is_taken_over_and_the_old_holder_can_do_nothing(
    registry: Registry, clock: object
) -> None:
    registry.jobs.enqueue(make_job("one"))
    first = registry.jobs.claim("a", 30)
    assert first is not None
    registry.jobs.transition("one", first.lease_token, JobStatus.RUNNING)
    assert registry.jobs.claim("b", 30) is None
    clock.move(31)  # type: ignore[attr-defined]  # the Clock of conftest, which tests cannot import
    second = registry.jobs.claim("b", 30)
    assert second is not None
    assert second.resumed
    assert second.job.status == JobStatus.RUNNING
    with pytest.raises(LeaseLostError):
        registry.jobs.renew("one", first.lease_token, 30)
    with pytest.raises(LeaseLostError):
        registry.jobs.transition("one", first.lease_token, JobStatus.FINALIZING)
    with pytest.raises(LeaseLostError):
        registry.jobs.finish("one", first.lease_token, Reason.COMPLETED)
    registry.jobs.finish("one", second.lease_token, Reason.LOST, error=JobError(code="lost", message="gone"))
    with pytest.raises(LeaseLostError):
        registry.jobs.renew("one", second.lease_token, 30)


def test_a_released_job_is_taken_over_at_once(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("one"))
    first = registry.jobs.claim("a", 30)
    assert first is not None
    registry.jobs.release("one", first.lease_token)
    second = registry.jobs.claim("b", 30)
    assert second is not None
    assert second.resumed
    with pytest.raises(LeaseLostError):
        registry.jobs.release("one", first.lease_token)


@pytest.mark.parametrize("to_status", [JobStatus.QUEUED, JobStatus.FINALIZING, JobStatus.COMPLETED])
def test_a_move_that_is_not_allowed_is_refused(registry: Registry, to_status: JobStatus) -> None:
    registry.jobs.enqueue(make_job("one"))
    claimed = registry.jobs.claim("a", 30)
    assert claimed is not None
    with pytest.raises(ConflictError):
        registry.jobs.transition("one", claimed.lease_token, to_status)


def test_a_queued_job_is_canceled_at_once_and_a_running_one_is_asked(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("running"))
    claimed = registry.jobs.claim("a", 30)
    assert claimed is not None
    registry.jobs.enqueue(make_job("waiting"))
    canceled, has_ended = registry.jobs.request_cancel("waiting")
    assert has_ended
    assert (canceled.status, canceled.reason) == (JobStatus.CANCELED, Reason.CANCELED_BY_USER)
    assert registry.jobs.request_cancel("waiting") == (canceled, False)
    asked, has_ended = registry.jobs.request_cancel("running")
    assert (asked.cancel_requested, has_ended) == (True, False)
    assert registry.jobs.renew("running", claimed.lease_token, 30) is True
    registry.jobs.finish("running", claimed.lease_token, Reason.COMPLETED)
    with pytest.raises(ConflictError, match="completed already"):
        registry.jobs.request_cancel("running")


def test_the_same_key_and_request_give_the_same_job(registry: Registry) -> None:
    job, created = registry.jobs.enqueue(make_job("one"), idempotency_key="key", request_hash="h")
    assert created
    again, created = registry.jobs.enqueue(make_job("two"), idempotency_key="key", request_hash="h")
    assert not created
    assert again == job
    with pytest.raises(ConflictError, match="was used for another request"):
        registry.jobs.enqueue(make_job("two"), idempotency_key="key", request_hash="other")
    with pytest.raises(AlreadyExistsError, match="one"):
        registry.jobs.enqueue(make_job("one"))


def test_many_submits_of_one_request_at_once_make_one_job(registry: Registry) -> None:
    made: list[tuple[str, bool]] = []

    def submit(number: int) -> None:
        job, created = registry.jobs.enqueue(make_job(f"job-{number}"), idempotency_key="key", request_hash="h")
        made.append((job.name, created))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({name for name, _ in made}) == 1
    assert sum(created for _, created in made) == 1


def test_lists_are_filtered_paged_and_hide_what_is_archived(registry: Registry) -> None:
    for number in range(5):
        registry.jobs.enqueue(make_job(f"job-{number}", endpoint="other" if number == 4 else "churn"))
    registry.jobs.archive("job-0")
    assert [job.name for job in registry.jobs.list(endpoint="churn")] == ["job-3", "job-2", "job-1"]
    assert [job.name for job in registry.jobs.list(limit=2, offset=1)] == ["job-3", "job-2"]
    assert [job.name for job in registry.jobs.list(archived="only")] == ["job-0"]
    assert len(registry.jobs.list(archived="include", status=[JobStatus.QUEUED])) == 5
    registry.jobs.restore("job-0")
    assert len(registry.jobs.list()) == 5
    assert registry.jobs.counts_by_status()[JobStatus.QUEUED] == 5
    with pytest.raises(NotFoundError, match="nobody"):
        registry.jobs.get("nobody")


def test_lists_are_told_by_when_jobs_came_and_ended_and_whether_they_retry_another(
    registry: Registry, clock: object
) -> None:
    registry.jobs.enqueue(make_job("first"))
    clock.move(10)  # type: ignore[attr-defined]  # the Clock of conftest, which tests cannot import
    second, _ = registry.jobs.enqueue(make_job("second"))
    registry.jobs.enqueue(make_job("again").model_copy(update={"retry_of": "first"}))
    assert [job.name for job in registry.jobs.list(since=second.queued_at, limit=None)] == ["again", "second"]
    assert [job.name for job in registry.jobs.list(retries=False, offset=1)] == ["first"]
    ended, _ = registry.jobs.request_cancel("first")
    assert registry.jobs.list(finished_after=ended.finished_at) == []
    clock.move(1)  # type: ignore[attr-defined]
    registry.jobs.request_cancel("second")
    assert [job.name for job in registry.jobs.list(finished_after=ended.finished_at)] == ["second"]


def test_tags_description_folder_and_notices_can_be_changed(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("one"))
    registry.jobs.update("one", tags={"a": "b"}, folder="/jobs/one", notices=["n"])
    changed = registry.jobs.update("one", description="words", notices=["n"])
    assert changed == registry.jobs.get("one")
    assert (changed.tags, changed.description, changed.folder, changed.notices) == (
        {"a": "b"}, "words", "/jobs/one", ["n"],
    )  # fmt: skip


def test_tags_that_two_change_at_once_are_all_there(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("one"))
    registry.jobs.update("one", tags={"gone": "x"})
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda number: registry.jobs.update("one", tags={f"t{number}": "x", "gone": None}), range(16)
        ):
            pass
    assert sorted(registry.jobs.get("one").tags) == sorted(f"t{number}" for number in range(16))


def test_a_page_of_jobs_and_a_claim_are_found_by_an_index_however_many_jobs_there_are(registry: Registry) -> None:
    if not registry.database.is_sqlite:
        pytest.skip("PostgreSQL chooses its plan by how many rows there are")
    registry.jobs.enqueue(make_job("model"))
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, given: Any, *___: object) -> None:
        asked.append((statement, given))

    event.listen(registry.database.engine, "before_cursor_execute", note)
    registry.jobs.list(limit=50)
    registry.jobs.list(endpoint="churn", status=JobStatus.COMPLETED, limit=50, offset=200)
    assert registry.jobs.claim("a", 30) is not None
    event.remove(registry.database.engine, "before_cursor_execute", note)

    queries = [(text, given) for text, given in asked if text.startswith("SELECT") and "FROM jobs" in text]
    assert len(queries) >= 3
    with registry.database.read() as connection:
        for text, given in queries:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)]
            looked = [step for step in plan if "jobs" in step]
            assert looked, plan
            assert all("USING" in step and "INDEX" in step for step in looked), (text, plan)


CLAIM_ALL = """
import sys
from pathlib import Path
from batchpoint.registry import Registry

registry = Registry.open(sys.argv[1], Path(sys.argv[2]))
while (claimed := registry.jobs.claim(sys.argv[3], 600)) is not None:
    print(claimed.job.name)
registry.close()
"""


def test_processes_that_claim_at_once_never_get_the_same_job(
    registry: Registry, database_url: str, tmp_path: Path
) -> None:
    # Real processes: only they show that the lock is the database's and not this interpreter's.
    for number in range(60):
        registry.jobs.enqueue(make_job(f"job-{number}", compute=f"compute-{number % 3}"))
    environment = {**os.environ, "PYTHONPATH": str(Path(batchpoint.__file__).parents[1])}
    command = [sys.executable, "-c", CLAIM_ALL, database_url, str(tmp_path / "secret.key")]
    processes = [
        subprocess.Popen([*command, owner], env=environment, stdout=subprocess.PIPE, text=True) for owner in "abc"
    ]
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(names) == sorted(f"job-{number}" for number in range(60))


def test_threads_that_claim_at_once_never_get_the_same_job(registry: Registry) -> None:
    for number in range(40):
        registry.jobs.enqueue(make_job(f"job-{number}"))
    names: list[str] = []

    def claim_all(owner: str) -> None:
        while (claimed := registry.jobs.claim(owner, 600)) is not None:
            names.append(claimed.job.name)

    threads = [threading.Thread(target=claim_all, args=(f"server-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 40
    assert len(set(names)) == 40


@pytest.mark.parametrize("sort", ["queued", "started", "finished", "name", "endpoint", "status"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_of_jobs_follow_each_other_there_and_back_and_leave_nobody_out(
    registry: Registry, sort: JobSort, descending: bool
) -> None:
    for at, endpoint in enumerate(("churn", "fares", "churn", "churn", "fares", "churn", "churn")):
        registry.jobs.enqueue(make_job(f"job-{at * 3 % 7}", endpoint=endpoint))
    for _ in range(3):  # some have begun, one has ended
        claimed = registry.jobs.claim("a", 30)
        assert claimed is not None
        registry.jobs.transition(claimed.job.name, claimed.lease_token, JobStatus.RUNNING)
    registry.jobs.finish(claimed.job.name, claimed.lease_token, Reason.COMPLETED)

    whole = registry.jobs.find(JobQuery(sort=sort, descending=descending))
    names = [job.name for job in whole.jobs]
    assert (len(set(names)), whole.found, whole.has_earlier, whole.has_later) == (7, 7, False, False)
    facts = [getattr(job, {"queued": "queued_at", "started": "started_at", "finished": "finished_at",
                           "endpoint": "endpoint_name"}.get(sort, sort)) for job in whole.jobs]  # fmt: skip
    known = [fact for fact in facts if fact is not None]
    assert known == sorted(known, reverse=descending)

    first = registry.jobs.find(JobQuery(sort=sort, descending=descending, limit=3))
    second = registry.jobs.find(JobQuery(sort=sort, descending=descending, limit=3, after=names[2]))
    third = registry.jobs.find(JobQuery(sort=sort, descending=descending, limit=3, after=names[5]))
    assert [job.name for page in (first, second, third) for job in page.jobs] == names
    assert [(page.has_earlier, page.has_later) for page in (first, second, third)] == [
        (False, True), (True, True), (True, False),
    ]  # fmt: skip
    back = registry.jobs.find(JobQuery(sort=sort, descending=descending, limit=3, before=names[6]))
    assert ([job.name for job in back.jobs], back.has_earlier, back.has_later) == (names[3:6], True, True)


def test_jobs_that_went_wrong_are_found_until_a_retry_or_one_of_its_retries_has_completed(registry: Registry) -> None:
    def ended(name: str, reason: Reason = Reason.COMPLETED, *, failed: int = 0, retry_of: str | None = None) -> None:
        registry.jobs.enqueue(make_job(name).model_copy(update={"retry_of": retry_of}))
        claimed = registry.jobs.claim("a", 30)
        assert claimed is not None
        registry.jobs.transition(name, claimed.lease_token, JobStatus.RUNNING)
        registry.jobs.finish(name, claimed.lease_token, reason, progress=Progress(failed=failed))

    def wrong(**asked: object) -> list[str]:
        return [job.name for job in registry.jobs.find(JobQuery(went_wrong=True, **asked)).jobs]  # type: ignore[arg-type]  # fields of it

    ended("well")
    ended("broken", Reason.SCORING_SCRIPT_FAILED)
    ended("some-rows", failed=3)
    ended("again", Reason.SCORING_SCRIPT_FAILED, retry_of="broken")
    registry.jobs.enqueue(make_job("waits"))
    assert wrong() == ["again", "some-rows", "broken"]
    last = registry.jobs.get("again").finished_at
    assert last is not None
    assert "again" in wrong(ended_since=last)
    assert wrong(ended_since=last + timedelta(seconds=1)) == []
    registry.jobs.request_cancel("waits")
    ended("once-more", retry_of="again")
    assert wrong() == ["some-rows"]


def test_jobs_are_found_by_words_status_endpoint_and_time(registry: Registry) -> None:
    registry.jobs.enqueue(make_job("night-1"))
    registry.jobs.enqueue(make_job("night-2", endpoint="fares"))
    registry.jobs.update("night-1", display_name="All CUSTOMERS, 100%")
    registry.jobs.request_cancel("night-2")
    queued_at = registry.jobs.get("night-2").queued_at

    def found(**asked: object) -> list[str]:
        listing = registry.jobs.find(JobQuery(**asked))  # type: ignore[arg-type]  # fields of it
        assert listing.found == len(listing.jobs)
        return [job.name for job in listing.jobs]

    assert found(words=["customers", "NIGHT"]) == ["night-1"]
    assert found(words=["100%"]) == ["night-1"]
    assert found(words=["1%"]) == []  # it means itself
    assert found(words=["fares"]) == ["night-2"]
    assert found(status=JobStatus.CANCELED) == ["night-2"]
    assert found(endpoint="churn") == ["night-1"]
    assert "night-2" in found(queued_since=queued_at)
    assert found(queued_until=registry.jobs.get("night-1").queued_at) == []
    assert found(archived=True) == []
    with pytest.raises(NotFoundError):
        registry.jobs.find(JobQuery(after="none"))


@pytest.mark.parametrize("asked", [{"words": ["\0"]}, {"endpoint": "\0"}, {"after": "\0"}, {"words": ["night"]}])
def test_a_character_that_no_text_of_a_database_holds_finds_nothing(
    registry: Registry, asked: dict[str, object]
) -> None:
    registry.jobs.enqueue(make_job("night-1"))
    try:
        found = registry.jobs.find(JobQuery(**asked)).found  # type: ignore[arg-type]  # fields of it
    except (InvalidEntityError, NotFoundError):
        found = 0
    assert found == ("night" in str(asked))


@pytest.mark.postgres
@pytest.mark.parametrize("sort", ["started", "finished"])
def test_jobs_that_have_not_begun_are_paged_where_the_database_keeps_time_west_of_utc(
    sort: JobSort, postgres_url: str, tmp_path: Path
) -> None:
    west = f"{postgres_url}&options=-c%20timezone%3DAmerica/New_York"
    registry = Registry.open(west, tmp_path / "secret.key")
    named = [f"west-{sort}-{at}" for at in range(3)]
    for name in named:
        registry.jobs.enqueue(make_job(name, endpoint=f"west-{sort}"))
    first = registry.jobs.find(JobQuery(endpoint=f"west-{sort}", sort=sort, limit=2))
    second = registry.jobs.find(JobQuery(endpoint=f"west-{sort}", sort=sort, limit=2, after=named[1]))
    assert [job.name for page in (first, second) for job in page.jobs] == named[::-1]
    registry.close()
