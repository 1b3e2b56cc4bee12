"""Which output is the latest, and what a rollback withdraws."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchpoint.entities.jobs import Job, JobStatus, Output, Sampling
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.operations.latest_outputs import Rollback, WrittenOutput, latest_of, rollback_of, written_files

START = datetime(2026, 1, 1, tzinfo=UTC)


def outputs(*names: str) -> list[WrittenOutput]:
    """Outputs, the newest first: ``m1 m2`` was written by two jobs, the last one being the newest.

    A name in capitals is withdrawn, one that begins with plan scored a sample, one with a ``?`` has not completed.
    """
    return [WrittenOutput(tuple(job(name, at) for at, name in enumerate(written.split()))) for written in names]


def job(name: str, at: int) -> Job:
    return Job(
        name=name.strip("?"),
        status=JobStatus.FAILED if name.endswith("?") else JobStatus.COMPLETED,
        finished_at=START + timedelta(minutes=at),
        retry_of="m1" if name.lower() == "m2" else None,
        properties={"withdrawn": "today"} if name.isupper() else {"withdrawn": ""},
        sample=Sampling() if name.startswith("plan") else None,
    )


def still_there(_: WrittenOutput) -> None:
    """Nothing was written over."""


def told(found: Rollback) -> tuple[str, list[str]]:
    return found.latest.completed[-1].name, [output.completed[-1].name for output in found.withdrawn]


def test_the_latest_is_the_newest_that_counts() -> None:
    assert latest_of("e", outputs("plan", "D", "late?", "c", "b"), still_there).name == "c"
    with pytest.raises(NotFoundError, match="Endpoint e has no output"):
        latest_of("e", outputs("plan", "D", "late?"), still_there)


def test_what_another_job_has_written_over_is_no_output_any_more() -> None:
    def newest_is_gone(output: WrittenOutput) -> Job | None:
        return Job(name="other") if output.jobs[0].name == "c" else None

    assert latest_of("e", outputs("c", "b"), newest_is_gone).name == "b"


def test_a_rollback_goes_to_the_output_before_the_present() -> None:
    assert told(rollback_of("e", outputs("plan", "D", "c", "late?", "B", "a"), None)) == ("a", ["c"])


def test_a_rollback_goes_to_a_job_by_name_also_forward() -> None:
    assert told(rollback_of("e", outputs("d", "c", "b", "a"), "b")) == ("b", ["d", "c"])
    assert told(rollback_of("e", outputs("D", "C", "b"), "C")) == ("C", [])


@pytest.mark.parametrize(
    ("names", "wanted"), [(("a",), None), (("B", "A"), None), ((), None), (("a", "b"), "plan"), (("a", "b?"), "b")]
)
def test_what_cannot_be_gone_back_to_is_refused(names: tuple[str, ...], wanted: str | None) -> None:
    with pytest.raises(ConflictError):
        rollback_of("e", outputs("plan", *names), wanted)


def test_a_job_and_its_retries_are_one_output_which_the_newest_of_them_speaks_for() -> None:
    assert latest_of("e", outputs("m1 m2", "a"), still_there).name == "m2"
    assert latest_of("e", outputs("m1 m2?", "a"), still_there).name == "m1", "a retry that failed wrote nothing"
    assert latest_of("e", outputs("m1? m2", "a"), still_there).name == "m2"
    assert told(rollback_of("e", outputs("m1 m2", "a"), None)) == ("a", ["m2"])
    with pytest.raises(ConflictError, match="written anew by job m2, which retried it"):
        rollback_of("e", outputs("m1 m2", "a"), "m1")
    with pytest.raises(ConflictError, match=r"no earlier output .* together with job m1, which it retried"):
        rollback_of("e", outputs("m1 m2"), None)


def test_a_retry_stands_in_the_place_of_what_it_retried_and_shares_its_withdrawal() -> None:
    assert latest_of("e", outputs("c", "m1 m2"), still_there).name == "c"
    assert told(rollback_of("e", outputs("c", "m1 m2"), None)) == ("m2", ["c"])
    assert latest_of("e", outputs("M1 m2", "a"), still_there).name == "a"
    assert told(rollback_of("e", outputs("M1 m2", "a"), "m2")) == ("m2", [])


def test_the_files_of_a_job_are_told_by_where_they_lie_however_that_is_written() -> None:
    def job(folder: str, *files: str) -> Job:
        return Job(name="j", outputs={"score": Output(folder=folder, files=[*files]), "none": Output()})

    assert written_files(job("/out/", "a", "b/c")) == written_files(job("/out", "b/c", "a")) == {"/out/a", "/out/b/c"}
    assert written_files(job("/out/")) == {"/out/"}
