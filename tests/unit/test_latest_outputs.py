"""Which output is the latest, and what a rollback withdraws."""

from __future__ import annotations

import pytest

from batchpoint.entities.jobs import Job, Sampling
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.operations.latest_outputs import latest_of, rollback_of


def jobs(*names: str) -> list[Job]:
    """Completed jobs, the newest first; a name in capitals is withdrawn, one that begins with plan scored a sample."""
    return [
        Job(
            name=name,
            properties={"withdrawn": "today"} if name.isupper() else {"withdrawn": ""},
            sample=Sampling() if name.startswith("plan") else None,
        )
        for name in names
    ]


def own(job: Job) -> str:
    """Nothing was retried: each job's output is its own. ``m2`` is a retry of ``m1``, whatever else the letters say."""
    return "m" if job.name.lower().startswith("m") else job.name


def test_the_latest_is_the_newest_that_counts() -> None:
    assert latest_of("e", jobs("plan", "D", "c", "b"), own).name == "c"
    with pytest.raises(NotFoundError, match="Endpoint e has no output"):
        latest_of("e", jobs("plan", "D"), own)


def test_a_rollback_goes_to_the_output_before_the_present() -> None:
    found = rollback_of("e", jobs("plan", "D", "c", "B", "a"), None, own)
    assert (found.latest.name, [job.name for job in found.withdrawn]) == ("a", ["c"])


def test_a_rollback_goes_to_a_job_by_name_also_forward() -> None:
    found = rollback_of("e", jobs("d", "c", "b", "a"), "b", own)
    assert (found.latest.name, [job.name for job in found.withdrawn]) == ("b", ["d", "c"])
    found = rollback_of("e", jobs("D", "C", "b"), "C", own)
    assert (found.latest.name, found.withdrawn) == ("C", ())


@pytest.mark.parametrize(("names", "wanted"), [(("a",), None), (("B", "A"), None), ((), None), (("a", "b"), "plan")])
def test_what_cannot_be_gone_back_to_is_refused(names: tuple[str, ...], wanted: str | None) -> None:
    with pytest.raises(ConflictError):
        rollback_of("e", jobs("plan", *names), wanted, own)


def test_a_job_and_its_retries_are_one_output_which_the_newest_of_them_speaks_for() -> None:
    found = rollback_of("e", jobs("m2", "m1", "a"), None, own)
    assert (found.latest.name, [job.name for job in found.withdrawn]) == ("a", ["m2"])
    assert latest_of("e", jobs("M2", "m1", "a"), own).name == "a", "what the first job wrote is no more"
    assert rollback_of("e", jobs("m2", "c", "m1", "a"), None, own).latest.name == "c"
    assert rollback_of("e", jobs("M2", "c", "m1", "a"), None, own).latest.name == "a"
    with pytest.raises(ConflictError, match="written anew by job m2, which retried it"):
        rollback_of("e", jobs("m2", "m1", "a"), "m1", own)
    with pytest.raises(ConflictError, match="no earlier output"):
        rollback_of("e", jobs("m2", "m1"), None, own)
