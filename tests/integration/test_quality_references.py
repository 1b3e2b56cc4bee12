"""Which job the columns of others are compared with, as stories over a workspace with a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchpoint.entities.endpoints import RollbackRequest
from batchpoint.entities.jobs import Input, InvokeRequest, Job, Overrides, Reason
from batchpoint.entities.quality import ColumnQuality, Quality, QualityOptions, summary
from batchpoint.errors import InvalidEntityError
from batchpoint.registry import Registry
from batchpoint.workspace import Workspace
from integration.served import declare_churn
from integration.test_registry_jobs import make_job

AREA = ColumnQuality(side="input", name="area", kind="numbers", rows=9, missing=0)
GONE = ColumnQuality(side="input", name="area", kind="numbers", rows=0, missing=0, note="is gone")


def asked(workspace: Workspace, **overrides: object) -> Job:
    data = workspace.settings.home.parent / "in.csv"
    data.write_text("area\n1\n")
    given = Overrides.model_validate(overrides)
    return workspace.endpoints.invoke("churn", InvokeRequest(inputs={"data": Input(path=str(data))}, overrides=given))


def completed(registry: Registry, job: Job, folder: Path, *columns: ColumnQuality, looked_at: bool = True) -> Job:
    """The job, ended, with what its run tells of its columns in a folder of its own."""
    claimed = registry.jobs.claim("server", 30)
    assert claimed is not None
    (folder / job.name).mkdir()
    registry.jobs.update(job.name, folder=str(folder / job.name))
    found = Quality(job=job.name, items=9, columns=[*columns])
    if looked_at:
        (folder / job.name / "quality.json").write_text(found.model_dump_json())
    told = summary(found) if looked_at else None
    return registry.jobs.finish(job.name, claimed.lease_token, Reason.COMPLETED, quality=told)


def reference_of(workspace: Workspace, job: Job) -> str | None:
    found = workspace.jobs.reference_quality(job)
    return found.parent.name if found is not None else None


@pytest.mark.parametrize("columns", [(), (GONE,)])
def test_a_job_that_saw_no_column_is_no_reference(
    churn: Workspace, tmp_path: Path, columns: tuple[ColumnQuality, ...]
) -> None:
    empty = completed(churn.registry, asked(churn), tmp_path, *columns)
    assert reference_of(churn, asked(churn)) is None
    named = asked(churn, quality=QualityOptions(reference=empty.name, max_drift=0.25))
    with pytest.raises(InvalidEntityError, match=f"Nothing is known of the columns of job {empty.name}"):
        churn.jobs.reference_quality(named)


def test_the_reference_is_found_behind_any_number_of_jobs_without_a_look_or_without_a_folder(
    registry: Registry, tmp_path: Path
) -> None:
    def finished(name: str, *columns: ColumnQuality, looked_at: bool = True) -> None:
        job, _ = registry.jobs.enqueue(make_job(name))
        completed(registry, job, tmp_path, *columns, looked_at=looked_at)

    for number in range(30):
        finished(f"blind-{number}", looked_at=False)
    finished("empty")
    for number in range(120):
        finished(f"seeing-{number}", AREA)
    found = [Path(folder).name for folder in registry.jobs.folders_of_completed("churn", "blue", None)]
    assert found == [f"seeing-{number}" for number in range(120)]


def test_the_reference_is_the_first_job_that_saw_columns_and_whose_folder_is_there(
    churn: Workspace, tmp_path: Path
) -> None:
    completed(churn.registry, asked(churn), tmp_path)
    gone, first, _ = (completed(churn.registry, asked(churn), tmp_path, AREA) for _ in range(3))
    now = asked(churn)
    assert reference_of(churn, now) == gone.name
    (tmp_path / gone.name / "quality.json").unlink()
    assert reference_of(churn, now) == first.name


def test_a_withdrawn_job_is_no_reference_until_it_counts_again(churn: Workspace, tmp_path: Path) -> None:
    bad, good = (completed(churn.registry, asked(churn), tmp_path, AREA) for _ in range(2))
    now = asked(churn)
    churn.jobs.update(bad.name, properties={"withdrawn": "today ann"})
    assert reference_of(churn, now) == good.name
    assert reference_of(churn, asked(churn, quality=QualityOptions(reference=bad.name))) == bad.name, "a person's word"
    churn.endpoints.rollback("churn", RollbackRequest(job_name=bad.name))
    assert reference_of(churn, now) == bad.name


def test_a_job_of_a_deleted_endpoint_is_no_reference_of_the_next_one_of_its_name(
    churn: Workspace, tmp_path: Path
) -> None:
    before = completed(churn.registry, asked(churn), tmp_path, AREA)
    assert reference_of(churn, before) == before.name
    churn.endpoints.delete("churn")
    declare_churn(churn)
    assert reference_of(churn, asked(churn)) is None
