"""Whose output readers of an endpoint's latest get, as stories over a workspace with a real registry and real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batchpoint.entities.endpoints import RollbackRequest
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Output, Overrides, Reason, Receipt
from batchpoint.errors import ConflictError, NotFoundError
from batchpoint.workspace import Workspace
from integration.served import declare_churn

NIGHTLY = "azureml://datastores/workspaceblobstore/paths/nightly/"


def asked(workspace: Workspace, name: str, path: str | None = None) -> Job:
    data = workspace.settings.home.parent / "in.csv"
    data.write_text("a\n1\n")
    request = InvokeRequest(
        job_name=name,
        inputs={"data": Input(path=str(data))},
        outputs={"score": Output(path=path)} if path else {},
        overrides=Overrides(if_exists="overwrite"),
    )
    return workspace.endpoints.invoke("churn", request)


def ended(workspace: Workspace, job: Job, *, failed: int = 0, reason: Reason = Reason.COMPLETED) -> Job:
    """The job that was queued first, ended; its predictions are its name."""
    claimed = workspace.registry.jobs.claim("server", 30)
    assert claimed is not None
    assert claimed.job.name == job.name
    run = workspace.settings.home.parent / "runs" / job.name
    run.mkdir(parents=True)
    workspace.registry.jobs.update(job.name, folder=str(run))
    if reason is not Reason.COMPLETED:
        return workspace.registry.jobs.finish(job.name, claimed.lease_token, reason)
    folder = folder_of(workspace, job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.csv").write_text(job.name)
    receipt = Receipt(
        job=job.name, unit="rows", items=2, ok=2 - failed, failed=failed, skipped=0, output_rows=2, balanced=True
    )
    score = {"uri": f"{folder}/predictions.csv", "folder": str(folder), "files": ["predictions.csv"]}
    return workspace.registry.jobs.finish(
        job.name, claimed.lease_token, Reason.COMPLETED, receipt=receipt, outputs={"score": score}
    )


def folder_of(workspace: Workspace, job: Job) -> Path:
    return Path(workspace.places.resolve(job.outputs["score"].path or "").url.rstrip("/"))


def latest(workspace: Workspace) -> str:
    """The job that speaks for the latest output; what readers get is what it wrote."""
    found = workspace.endpoints.latest("churn").name
    with workspace.jobs.open_output(found, "predictions.csv") as file:
        assert file.read().decode() == found, "one job's name, and another one's predictions"
    return found


def test_a_retry_of_monday_does_not_take_readers_back_from_tuesday(churn: Workspace) -> None:
    ended(churn, asked(churn, "monday"), failed=1)
    ended(churn, asked(churn, "tuesday"))
    again = churn.jobs.retry_failed("monday", job_name="monday-again")
    ended(churn, again)
    assert latest(churn) == "tuesday"
    assert churn.endpoints.rollback("churn", RollbackRequest()).name == "monday-again"
    assert latest(churn) == "monday-again"


@pytest.mark.parametrize("runs_meanwhile", [False, True])
def test_a_retry_of_a_withdrawn_job_does_not_undo_the_rollback(churn: Workspace, *, runs_meanwhile: bool) -> None:
    ended(churn, asked(churn, "monday"))
    ended(churn, asked(churn, "tuesday"), failed=1)
    if runs_meanwhile:
        again = churn.jobs.retry_failed("tuesday", job_name="tuesday-again")
        churn.endpoints.rollback("churn", RollbackRequest())
    else:
        churn.endpoints.rollback("churn", RollbackRequest())
        again = churn.jobs.retry_failed("tuesday", job_name="tuesday-again")
    ended(churn, again)
    assert latest(churn) == "monday"
    assert churn.jobs.get("tuesday-again").properties["withdrawn"]
    churn.endpoints.rollback("churn", RollbackRequest(job_name="tuesday-again"))
    assert latest(churn) == "tuesday-again"


def test_a_rollback_to_what_a_later_job_wrote_over_is_refused(churn: Workspace) -> None:
    ended(churn, asked(churn, "sunday"))
    ended(churn, asked(churn, "monday", NIGHTLY))
    ended(churn, asked(churn, "tuesday", NIGHTLY))
    for wanted in (None, "monday"):
        with pytest.raises(ConflictError, match=r"output of job monday was written over by job tuesday\. Nothing was"):
            churn.endpoints.rollback("churn", RollbackRequest(job_name=wanted))
        assert latest(churn) == "tuesday"
    churn.endpoints.rollback("churn", RollbackRequest(job_name="sunday"))
    assert latest(churn) == "sunday"


def test_a_rollback_to_files_that_are_gone_is_refused(churn: Workspace) -> None:
    monday = ended(churn, asked(churn, "monday"))
    ended(churn, asked(churn, "tuesday"))
    shutil.rmtree(folder_of(churn, monday))
    with pytest.raises(ConflictError, match=r"output of job monday is gone: .*/predictions\.csv is not there any more"):
        churn.endpoints.rollback("churn", RollbackRequest())
    assert latest(churn) == "tuesday"


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.ERROR_THRESHOLD_EXCEEDED])
def test_a_retry_does_not_replace_what_a_later_job_wrote_to_the_same_place(churn: Workspace, reason: Reason) -> None:
    ended(churn, asked(churn, "monday", NIGHTLY), failed=1, reason=reason)
    ended(churn, asked(churn, "tuesday", NIGHTLY))
    with pytest.raises(ConflictError, match="Job tuesday has written to the place of job monday since"):
        churn.jobs.retry_failed("monday")


def retried_while_tuesday_wrote(churn: Workspace) -> Job:
    """A retry of Monday's job that is still at work when Tuesday's has written to the same place."""
    ended(churn, asked(churn, "monday", NIGHTLY), failed=1)
    again = churn.jobs.retry_failed("monday", job_name="monday-again")
    first = churn.registry.jobs.claim("server", 30)
    assert first is not None
    ended(churn, asked(churn, "tuesday", NIGHTLY))
    churn.registry.jobs.release(first.job.name, first.lease_token)
    return again


def test_nor_does_the_retry_of_a_retry_that_failed_after_the_later_job_had_ended(churn: Workspace) -> None:
    again = retried_while_tuesday_wrote(churn)
    ended(churn, again, reason=Reason.ERROR_THRESHOLD_EXCEEDED)
    with pytest.raises(ConflictError, match="Job tuesday has written to the place of job monday"):
        churn.jobs.retry_failed("monday-again")


def test_the_latest_is_what_was_written_last_where_two_jobs_wrote_to_one_place_at_once(churn: Workspace) -> None:
    again = retried_while_tuesday_wrote(churn)
    ended(churn, again)
    assert latest(churn) == "monday-again"


def test_the_output_of_a_deleted_endpoint_is_not_the_latest_of_the_next_one_of_its_name(churn: Workspace) -> None:
    ended(churn, asked(churn, "monday"), failed=1)
    churn.endpoints.delete("churn")
    declare_churn(churn)
    with pytest.raises(NotFoundError, match="Endpoint churn has no output"):
        churn.endpoints.latest("churn")
    ended(churn, churn.jobs.retry_failed("monday"))
    with pytest.raises(NotFoundError, match="Endpoint churn has no output"):
        churn.endpoints.latest("churn")
    with pytest.raises(ConflictError, match="no completed job of endpoint churn"):
        churn.endpoints.rollback("churn", RollbackRequest(job_name="monday"))
