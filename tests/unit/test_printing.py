from __future__ import annotations

import json

import pytest

from batchpoint.cli.printing import receipt_lines, render, summary
from batchpoint.client.connection import address, error_of
from batchpoint.client.jobs import failure_text
from batchpoint.client.notebook import job_html, progress_line
from batchpoint.entities.jobs import FileReceipt, Job, JobError, JobStatus, Progress, Reason, Receipt
from batchpoint.errors import AlreadyExistsError, InvalidEntityError, PlatformError, RequestError

JOBS = [{"name": "one", "status": "failed", "n": None}, {"name": "two", "status": "completed", "more": {"a": 1}}]


def test_a_result_is_json_unless_something_else_is_asked() -> None:
    assert json.loads(render(JOBS, output="json")) == JOBS
    assert render({"a": "ü"}, output="yaml") == "a: ü"
    assert render("text", output="yaml") == "text"
    assert render(JOBS, output="none") == ""


def test_tsv_has_a_line_for_each_item_as_scripts_expect() -> None:
    assert render(JOBS, output="tsv", query="[].[name, status]") == "one\tfailed\ntwo\tcompleted"
    assert render(JOBS, output="tsv", query="[0].name") == "one"
    assert render(True, output="tsv") == "true"


def test_a_table_shows_plain_columns_only() -> None:
    lines = render(JOBS, output="table").splitlines()

    assert lines[0].split() == ["name", "status", "n"]
    assert lines[3] == "two   completed"
    assert render([], output="table") == ""
    assert render(JOBS, output="table", columns=("status",)).splitlines()[0] == "status"


def test_a_table_is_for_eyes_with_keys_as_in_messages_and_numbers_without_noise() -> None:
    board = [{"key": {"store": "east", "day": 1}, "seconds": 0.1 + 0.2}]

    assert render(board, output="table", columns=("key", "seconds")).splitlines()[2] == "store=east, day=1  0.3"
    assert render(board, output="tsv") == '{"store": "east", "day": 1}\t0.30000000000000004'


def test_a_query_that_is_not_jmespath_is_a_mistake_of_the_person() -> None:
    with pytest.raises(RequestError, match="is not JMESPath"):
        render(JOBS, output="json", query="[")


def receipt(**changes: object) -> Receipt:
    values = {"job": "j", "unit": "rows", "items": 3, "ok": 1, "failed": 1, "skipped": 1, "output_rows": 1}
    return Receipt.model_validate({**values, "balanced": True, **changes})


def test_the_receipt_names_files_that_could_not_be_read() -> None:
    files = [FileReceipt(file="a.csv", items=1, ok=0, failed=1, reason="not csv")]

    lines = receipt_lines(receipt(files=files))

    assert lines[0] == "Receipt: 3 rows = 1 ok + 1 failed + 1 skipped; 1 rows written (adds up)"
    assert lines[1] == "  a.csv: not csv"
    assert "does NOT add up" in receipt_lines(receipt(balanced=False))[0]


def test_rows_that_a_check_withheld_are_not_said_to_be_written() -> None:
    done = Job(name="one", status=JobStatus.COMPLETED, receipt=receipt())
    withheld = done.model_copy(update={"status": JobStatus.FAILED, "reason": Reason.QUALITY_CHECK_FAILED})

    assert "1 rows written (adds up)" in summary(done)[0]
    assert "1 rows withheld (adds up)" in summary(withheld)[0]


def test_progress_is_one_line_with_rate_and_time_left() -> None:
    progress = Progress(
        unit="rows", planned_items=250000, planned_all=True, ok=12000, failed=3, items_per_second=8100.4,
        seconds_left=89, fraction=0.05, phase="scoring",
    )  # fmt: skip

    assert progress_line(progress) == "scoring: 12,003 of 250,000 rows (5%), 8,100 rows/s, 1:29 left, 3 failed"


def test_a_failed_job_says_file_row_and_traceback_in_text_and_html() -> None:
    error = JobError(code="mini_batch_failed", message="run() raised", file="a<b>.csv", row=7, traceback="Tr <x>")
    job = Job(name="one", status=JobStatus.FAILED, reason=Reason.ALL_ITEMS_FAILED, error=error, progress=Progress())

    assert "First failing item: a<b>.csv, row 7\nTr <x>" in failure_text(job)
    html = job_html(job, "http://127.0.0.1:1/studio/jobs/one")
    assert "Tr &lt;x&gt;" in html
    assert "<script" not in html
    assert "href='http://127.0.0.1:1/studio/jobs/one'" in html


def test_an_error_is_rebuilt_as_the_class_of_its_code() -> None:
    content = b'{"error": {"code": "already_exists", "message": "m", "details": {"name": "x"}, "request_id": "r"}}'

    error = error_of(409, content)

    assert type(error) is AlreadyExistsError
    assert error.details == {"name": "x", "request_id": "r"}
    assert type(error_of(500, b"<html>")) is PlatformError
    assert "<html>" in str(error_of(500, b"<html>"))


def test_names_with_odd_characters_stay_one_step_of_the_address() -> None:
    assert address("jobs", "a?b ü") == "/jobs/a%3Fb%20%C3%BC"
    assert address("jobs", "a", "outputs", file="x/y.csv") == "/jobs/a/outputs/x/y.csv"


@pytest.mark.parametrize("name", ["churn/deployments/blue", "", "..", "."])
def test_a_name_never_becomes_the_address_of_something_else(name: str) -> None:
    with pytest.raises(InvalidEntityError, match="not a name"):
        address("endpoints", name)
