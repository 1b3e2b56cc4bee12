"""From segments to what a user finds: predictions, errors, receipt; in files or in a table."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow.parquet as pq
import pytest

from batchpoint.entities.endpoints import OutputTable
from batchpoint.entities.jobs import FileReceipt
from batchpoint.errors import OutputError
from batchpoint.scoring import predictions_file, publication
from batchpoint.scoring.file_per_key import KeyFiles
from batchpoint.scoring.ledger import FailedItem, Part, Record
from batchpoint.scoring.mini_batches import ErrorInfo, MiniBatch
from batchpoint.scoring.output import Published, check_free, publish
from batchpoint.scoring.segment import SegmentWriter
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec

BAD = ErrorInfo(type="ValueError", message="amount is below zero", traceback="Traceback …")


@dataclass
class Plan:
    unit: Any = "rows"
    skipped: list[FileReceipt] = field(default_factory=list)


@dataclass
class Remote:
    """A place elsewhere, remembered in a dictionary."""

    files: dict[str, bytes] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def exists(self, url: str, datastore: str | None = None) -> bool:
        assert datastore == "lake"
        return any(name == url or name.startswith(url + "/") for name in self.files)

    def put(self, source: Path, url: str, datastore: str | None = None) -> None:
        assert datastore == "lake"
        self.files[url] = source.read_bytes()
        self.order.append(url)


@dataclass
class Run:
    """A run's folder with rows of one input file, ``in.csv``, in its segments."""

    folder: Path
    spec: ScoringSpec
    records: list[Record] = field(default_factory=list)
    stores: Remote = field(default_factory=Remote)
    _rows: int = 0

    def score(
        self, results: Sequence[Any], *, segment: str = "process000", encoding: Any = "csv", bad: Sequence[int] = ()
    ) -> None:
        """Commit one mini-batch whose parts gave these results; the items at ``bad`` failed, each after the parts."""
        (self.folder / "segments").mkdir(exist_ok=True)
        writer = SegmentWriter(str(self.folder / "segments" / segment), encoding, self.spec.output.model_dump())
        parts, at = [], 0
        for result in results:
            size = len(result)
            keys = [("in.csv", self._rows + at, size)]
            part = {"unit": "rows", "start": at, "stop": at + size, "keys": keys, "frame": None}
            answer = writer.append(result, part)
            parts.append(
                Part(
                    start=at, stop=at + size, segment=segment, offset=answer["offset"], length=answer["length"],
                    rows=answer["rows"], ok=answer["ok"], encoding=answer["encoding"], columns=tuple(answer["columns"]),
                )
            )  # fmt: skip
            at += size
        writer.close()
        failures = tuple(FailedItem(at + i, "in.csv", self._rows + at + i, 4, BAD) for i, _ in enumerate(bad))
        items = at + len(bad)
        self._rows += items
        files = {"in.csv": (items, at, len(bad))}
        self.records.append(Record(len(self.records), items, at, len(bad), tuple(parts), failures, files))

    def publish(self, **options: Any) -> Published:
        planned = options.pop("planned", {"in.csv": self._rows})
        plan = options.pop("plan", Plan())
        return publish(self.spec, self.folder, self.records, plan, self.stores, planned=planned, **options)

    @property
    def out(self) -> Path:
        return Path(self.spec.output.folder.url)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    def make(job: str = "nightly", *, retry_of: str | None = None, out: str = "out/score", **output: Any) -> Run:
        folder = tmp_path / "runs" / job
        folder.mkdir(parents=True)
        output.setdefault("folder", Location(url=str(tmp_path / out)))
        spec = ScoringSpec(
            job=job, python="python", script=ScriptSpec(kind="script"), input=InputSpec(locations=[]),
            split=SplitSpec(by="rows"), output=OutputSpec(**output), retry_of=retry_of,
        )  # fmt: skip
        spec.write(folder)
        return Run(folder, spec)

    return make


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_segments_of_several_workers_become_one_file_in_input_order(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.score([[0.5], [1.5, 2.5]], segment="a")
    run.score([[3.5]], segment="b")
    run.score([[4.5]], segment="a", bad=[0])
    run.records.reverse()
    published = run.publish()
    assert (run.out / "predictions.csv").read_text() == (
        "file,row,prediction\nin.csv,0,0.5\nin.csv,1,1.5\nin.csv,2,2.5\nin.csv,3,3.5\nin.csv,4,4.5\n"
    )
    (error,) = [json.loads(line) for line in (run.out / "errors.jsonl").read_text().splitlines()]
    assert error == {
        "key": None, "file": "in.csv", "row": 5, "mini_batch": 2, "attempt": 4, "exception": "ValueError",
        "message": "amount is below zero", "traceback": "Traceback …",
    }  # fmt: skip
    receipt = json.loads((run.out / "receipt.json").read_text())
    assert receipt == published.receipt.model_dump(mode="json")
    assert (receipt["items"], receipt["ok"], receipt["failed"], receipt["output_rows"]) == (6, 5, 1, 5)
    assert receipt["balanced"] is True
    assert published.outputs["score"] == {
        "uri": str(run.out / "predictions.csv"), "folder": str(run.out),
        "files": ["errors.jsonl", "predictions.csv", "receipt.json"],
    }  # fmt: skip
    assert names_in(run.out.parent) == ["score"]


def test_parts_whose_columns_differ_are_united_by_name(make_run: Callable[..., Run]) -> None:
    run = make_run(row_keys=False)
    run.score([[{"a": 1, "c": 'x "y", z'}]])
    run.score([[{"a": 2, "b": "two\nlines", "c": "w"}], [{"c": "last"}]])
    run.publish()
    with (run.out / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["a", "b", "c"], ["1", "", 'x "y", z'], ["2", "two\nlines", "w"], ["", "", "last"]]


@pytest.mark.parametrize(
    ("name", "expected"), [("azureml", "0.5\nx\n"), ("jsonl", '{"prediction": 0.5}\n{"prediction": "x"}\n')]
)
def test_azureml_and_jsonl_are_joined_without_a_header(make_run: Callable[..., Run], name: str, expected: str) -> None:
    run = make_run(format=name, file_name="p.txt", row_keys=False)
    run.score([[0.5]], encoding=name)
    run.score([["x"]], encoding=name, segment="b")
    run.publish()
    assert (run.out / "p.txt").read_text() == expected


def test_parquet_has_one_schema_that_all_parts_fit(make_run: Callable[..., Run]) -> None:
    run = make_run(format="parquet", file_name="p.parquet")
    run.score([[{"v": None, "s": 1}], [{"v": 1, "s": "x"}]], encoding="arrow")
    run.score([[{"v": 2.5, "s": None}]], encoding="jsonl", segment="without-pyarrow")
    run.publish()
    table = pq.read_table(run.out / "p.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "file": "string", "row": "int64", "v": "double", "s": "string"
    }  # fmt: skip
    assert table.to_pydict()["v"] == [None, 1.0, 2.5]
    assert table.to_pydict()["s"] == ["1", "x", None]


def test_parquet_bytes_do_not_depend_on_how_rows_were_cut(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_file, "GROUP_ROWS", 1024)
    values = [f"text {number % 77}" if number % 5 else None for number in range(5000)]
    bytes_of = []
    for job, size in (("one", 5000), ("many", 300)):
        run = make_run(job, format="parquet", file_name="p", out=job)
        run.score([values[at : at + size] for at in range(0, 5000, size)], encoding="arrow")
        run.publish()
        assert pq.ParquetFile(run.out / "p").num_row_groups == 5
        bytes_of.append((run.out / "p").read_bytes())
    assert bytes_of[0] == bytes_of[1]


def test_errors_in_parquet_have_the_same_types_when_there_are_none(make_run: Callable[..., Run]) -> None:
    schemas = []
    for job, bad in (("clean", []), ("dirty", [1])):
        run = make_run(
            job,
            errors_format="parquet",
            errors_name=f"{job}.parquet",
            owns_folder=False,
            file_name=job,
            receipt_name=f"{job}.json",
        )
        run.score([[1]], bad=bad)
        run.publish()
        table = pq.read_table(run.out / f"{job}.parquet")
        assert table.num_rows == len(bad)
        schemas.append(table.schema)
    assert schemas[0] == schemas[1]


def test_summary_only_publishes_what_scripts_wrote_and_no_predictions(make_run: Callable[..., Run]) -> None:
    run = make_run(action="summary_only")
    run.score([["a", "b"]], encoding="none")
    (run.folder / "user_output" / "deep").mkdir(parents=True)
    (run.folder / "user_output" / "deep" / "one.bin").write_bytes(b"\x00")
    published = run.publish()
    assert set(contents(run.out)) == {"deep/one.bin", "errors.jsonl", "receipt.json"}
    assert published.receipt.balanced
    assert published.outputs["score"]["uri"] == str(run.out)


def test_a_script_file_of_our_name_is_kept_under_another(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.score([[1]])
    (run.folder / "user_output").mkdir()
    (run.folder / "user_output" / "receipt.json").write_text("mine")
    published = run.publish()
    assert (run.out / "script-receipt.json").read_text() == "mine"
    assert "receipt.json" in published.notices[0]


def test_nothing_succeeded_leaves_an_empty_file_and_all_errors(make_run: Callable[..., Run]) -> None:
    for job, name in (("as-csv", "csv"), ("as-parquet", "parquet")):
        run = make_run(
            job, format=name, owns_folder=False, file_name=job, errors_name=f"{job}.e", receipt_name=f"{job}.r"
        )
        run.score([], bad=[1, 2])
        assert run.publish().receipt.failed == 2
    assert (run.out / "as-csv").read_bytes() == b""
    assert pq.read_table(run.out / "as-parquet").num_rows == 0


@pytest.mark.parametrize(
    ("planned", "balanced"),
    [
        ({"in.csv": 3}, True),
        ({"in.csv": 4}, False),
        ({"in.csv": 2}, False),
        ({"in.csv": 3, "lost.csv": 1}, False),
        ({}, False),
    ],
)
def test_a_receipt_is_balanced_only_if_every_planned_item_is_accounted_for(
    make_run: Callable[..., Run], planned: dict[str, int], balanced: bool
) -> None:
    run = make_run()
    run.score([[1, 2]], bad=[1])
    skipped = [FileReceipt(file="notes.txt", items=1, ok=0, failed=0, skipped=1, reason="excluded")]
    receipt = run.publish(planned=planned, plan=Plan(skipped=skipped)).receipt
    assert receipt.balanced is balanced
    assert receipt.skipped == 1
    assert receipt.files[-1].file == "notes.txt"


def test_a_mini_batch_committed_twice_is_not_balanced(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.score([[1]])
    run.records.append(run.records[0])
    assert run.publish(planned={"in.csv": 2}).receipt.balanced is False


def test_a_segment_that_was_cut_off_is_an_error_and_nothing_appears(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.score([[1, 2, 3]])
    os.truncate(run.folder / "segments" / "process000", 5)
    with pytest.raises(OutputError, match="process000 ends before"):
        run.publish()
    assert names_in(run.out.parent) == []


def test_empty_dictionaries_in_a_list_become_text_in_parquet(make_run: Callable[..., Run]) -> None:
    run = make_run(format="parquet", file_name="predictions.parquet", row_keys=False)
    run.score([pd.DataFrame({"boxes": [[{}], []]})], encoding="arrow")
    run.score([pd.DataFrame({"boxes": [[{}, {}]]})], encoding="arrow")
    run.publish()
    assert pq.read_table(run.out / "predictions.parquet")["boxes"].to_pylist() == ["[{}]", "[]", "[{}, {}]"]


@pytest.mark.parametrize("owned", [True, False])
def test_what_exists_is_never_overwritten_unasked(make_run: Callable[..., Run], owned: bool) -> None:
    run = make_run(owns_folder=owned)
    run.out.mkdir(parents=True)
    (run.out / "predictions.csv").write_text("precious")
    run.score([[1]])
    with pytest.raises(OutputError, match=r"exists already.*if_exists: overwrite"):
        check_free(run.spec, run.stores)
    with pytest.raises(OutputError, match="exists already"):
        run.publish()
    assert contents(run.out) == {"predictions.csv": b"precious"}


@pytest.mark.parametrize("owned", [True, False])
def test_overwrite_replaces_our_files_and_no_others(make_run: Callable[..., Run], owned: bool) -> None:
    run = make_run(owns_folder=owned, if_exists="overwrite", row_keys=False)
    run.out.mkdir(parents=True)
    (run.out / "predictions.csv").write_text("old")
    (run.out / "notes.txt").write_text("kept")
    run.score([[1]])
    check_free(run.spec, run.stores)
    run.publish()
    found = contents(run.out)
    assert found["predictions.csv"] == b"prediction\n1\n"
    assert found["notes.txt"] == b"kept"
    assert set(found) == {"predictions.csv", "errors.jsonl", "receipt.json", "notes.txt"}


def test_versions_count_up_beside_each_other(make_run: Callable[..., Run]) -> None:
    for job in ("first", "second", "third"):
        run = make_run(job, owns_folder=False, if_exists="version", row_keys=False)
        run.score([[job]])
        published = run.publish()
    assert published.outputs["score"]["uri"] == str(run.out / "predictions-3.csv")
    assert (run.out / "predictions-2.csv").read_text() == "prediction\nsecond\n"
    assert json.loads((run.out / "receipt-3.json").read_text())["job"] == "third"
    for job in ("fourth", "fifth"):
        run = make_run(job, if_exists="version", out="out/own")
        run.score([[job]])
        published = run.publish()
    assert published.outputs["score"]["folder"] == str(run.out.parent / "own-2")


def test_a_retry_replaces_the_earlier_output_and_keeps_what_scripts_wrote(make_run: Callable[..., Run]) -> None:
    first = make_run("first")
    first.score([[1]], bad=[1])
    (first.folder / "user_output").mkdir()
    (first.folder / "user_output" / "plot.png").write_bytes(b"png")
    first.publish()
    again = make_run("again", retry_of=str(first.folder))
    part = first.records[0].parts[0]
    again.score([[0], [2]])
    moved = Part(
        **{
            **{name: getattr(part, name) for name in Part.__slots__},
            "segment": str(first.folder / "segments" / part.segment),
        }
    )
    record = again.records[0]
    again.records = [Record(0, 2, 2, 0, (moved, record.parts[1]), (), record.files)]
    published = again.publish()
    assert (again.out / "predictions.csv").read_text() == "file,row,prediction\nin.csv,0,1\nin.csv,1,2\n"
    assert (again.out / "errors.jsonl").read_bytes() == b""
    assert (again.out / "plot.png").read_bytes() == b"png"
    assert "plot.png" in published.outputs["score"]["files"]
    assert published.receipt.balanced
    assert names_in(again.out.parent) == ["score"]


@pytest.mark.parametrize("owned", [True, False])
def test_a_retry_of_a_retry_that_never_published_finds_the_first_output(
    make_run: Callable[..., Run], owned: bool
) -> None:
    first = make_run("first", owns_folder=owned)
    first.score([[1]], bad=[1])
    first.publish()
    canceled = make_run("canceled", owns_folder=owned, retry_of=str(first.folder))
    third = make_run("third", owns_folder=owned, retry_of=str(canceled.folder), row_keys=False)
    third.score([[5, 6]])
    third.publish()
    assert (third.out / "predictions.csv").read_text() == "prediction\n5\n6\n"


@pytest.mark.parametrize("owned", [True, False])
def test_a_retry_of_a_job_that_never_published_overwrites_nothing(make_run: Callable[..., Run], owned: bool) -> None:
    failed = make_run("failed", owns_folder=owned, if_exists="version")
    again = make_run("again", owns_folder=owned, if_exists="version", retry_of=str(failed.folder))
    again.out.mkdir(parents=True)
    (again.out / "predictions.csv").write_text("precious")
    again.score([[1]])
    published = again.publish()
    assert (again.out / "predictions.csv").read_text() == "precious"
    assert published.outputs["score"]["uri"].endswith("score-2/predictions.csv" if owned else "predictions-2.csv")


def test_a_version_that_another_job_takes_in_the_same_moment_is_counted_on(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(owns_folder=False, if_exists="version", row_keys=False)
    run.score([[1]])
    link = os.link

    def another_is_quicker(source: Any, target: Any) -> None:
        if Path(target).name == "predictions.csv":
            Path(target).write_text("somebody else's")
        link(source, target)

    monkeypatch.setattr(os, "link", another_is_quicker)
    published = run.publish()
    assert published.outputs["score"]["uri"] == str(run.out / "predictions-2.csv")
    assert (run.out / "predictions.csv").read_text() == "somebody else's"
    assert names_in(run.out) == ["errors-2.jsonl", "predictions-2.csv", "predictions.csv", "receipt-2.json"]


def test_a_place_that_was_refused_is_not_taken_for_ours_by_a_retry(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(owns_folder=False)
    run.score([[1]])
    link = os.link

    def another_is_quicker(source: Any, target: Any) -> None:
        if Path(target).name == "predictions.csv":
            Path(target).write_text("somebody else's")
        link(source, target)

    monkeypatch.setattr(os, "link", another_is_quicker)
    with pytest.raises(OutputError, match="another program meanwhile"):
        run.publish()
    monkeypatch.undo()
    again = make_run("again", owns_folder=False, retry_of=str(run.folder))
    again.score([[2]])
    with pytest.raises(OutputError, match="exists already"):
        again.publish()
    assert contents(run.out) == {"predictions.csv": b"somebody else's"}


@pytest.mark.parametrize("options", [{}, {"owns_folder": False}, {"if_exists": "version"}, {"if_exists": "overwrite"}])
def test_a_publish_killed_at_any_step_and_run_again_ends_in_the_same_files(
    make_run: Callable[..., Run], options: dict[str, Any]
) -> None:
    """Killed for real, in a forked process: no clean-up code may run."""
    steps = 0
    undisturbed = None
    while True:
        run = make_run(f"kill-{steps}", out=f"outs/{steps}/score", **options)
        run.spec = run.spec.model_copy(update={"job": "nightly"})
        run.score([[1, 2]], bad=[1])
        (run.folder / "user_output" / "deep").mkdir(parents=True)
        (run.folder / "user_output" / "deep" / "plot.png").write_bytes(b"png")
        finished = publish_until_killed(run, steps)
        if run.out.exists() and (run.out / "predictions.csv").exists():
            assert (run.out / "predictions.csv").read_bytes().count(b"\n") == 3, "a half-written file has a final name"
        run.publish()
        found = contents(run.out)
        undisturbed = undisturbed or found
        assert found == undisturbed
        assert set(found) == {"deep/plot.png", "predictions.csv", "errors.jsonl", "receipt.json"}
        assert names_in(run.out.parent) == ["score"]
        if finished:
            break
        steps += 1
    assert steps > 8


def publish_until_killed(run: Run, steps: int) -> bool:
    """Publish in a process that dies before its step number ``steps``; True when it got through."""
    process = os.fork()
    if process == 0:
        left = [steps]

        def deadly(call: Any) -> Any:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return call(*args, **kwargs)

            return wrapped

        for owner, name in (
            (os, "fsync"),
            (os, "link"),
            (os, "unlink"),
            (os, "mkdir"),
            (os, "rename"),
            (os, "replace"),
        ):
            setattr(owner, name, deadly(getattr(owner, name)))
        try:
            run.publish()
            os._exit(0)
        finally:
            os._exit(1)  # never back into the test runner's own process
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in {0, 9}
    return code == 0


def test_another_file_that_appears_during_a_resumed_publish_is_not_overwritten(make_run: Callable[..., Run]) -> None:
    run = make_run(owns_folder=False)
    run.score([[1]])
    publication.choose_destination(run.spec, run.folder, run.stores)
    run.out.mkdir(parents=True)
    (run.out / "predictions.csv").write_text("somebody else's")
    with pytest.raises(OutputError, match="exists already"):
        run.publish()
    assert contents(run.out) == {"predictions.csv": b"somebody else's"}


def test_a_full_disk_leaves_nothing_behind(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    run.score([[1]])

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OutputError, match=r"No space left on device.*what was scored is kept"):
        run.publish()
    assert names_in(run.out.parent) == []
    monkeypatch.undo()
    assert run.publish().receipt.balanced


def test_file_systems_without_kernel_copies_or_hard_links_are_copied_to_plainly(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    monkeypatch.setattr(os, "link", cannot)
    run = make_run(owns_folder=False, row_keys=False)
    run.score([[1]])
    (run.folder / "user_output").mkdir()
    (run.folder / "user_output" / "plot.png").write_bytes(b"png")
    run.publish()
    assert contents(run.out)["predictions.csv"] == b"prediction\n1\n"
    assert contents(run.out)["plot.png"] == b"png"


def test_remote_places_receive_the_predictions_last(make_run: Callable[..., Run]) -> None:
    run = make_run(folder=Location(url="s3://bucket/score/", datastore="lake"), row_keys=False)
    run.score([[1]])
    published = run.publish()
    assert run.stores.order[-1] == "s3://bucket/score/predictions.csv"
    assert run.stores.files["s3://bucket/score/predictions.csv"] == b"prediction\n1\n"
    assert published.outputs["score"]["uri"] == "s3://bucket/score/predictions.csv"
    run.publish()
    shutil.rmtree(run.folder / "staging", ignore_errors=True)
    with pytest.raises(OutputError, match="s3://bucket/score exists already"):
        check_free(run.spec, run.stores)
    check_free(run.spec, run.stores, run.folder)


FRAME = pd.DataFrame(
    {"Fare": [1.5, 2.5], "ok": [True, False], "at": pd.to_datetime(["2024-01-01", "2024-01-02"]), "n": [1, 2]}
)


def table_run(make_run: Callable[..., Run], job: str, url: str, name: str, **options: Any) -> Run:
    run = make_run(job, table=OutputTable(url=url, name=name), out=f"outs/{job}", **options)
    run.score([FRAME.iloc[:1], FRAME.iloc[1:].reset_index(drop=True)], encoding="arrow")
    return run


def test_a_sqlite_table_holds_each_row_once_however_often_it_is_written(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'fares.db'}"
    run = table_run(make_run, "one", url, "fares")
    published = run.publish()
    run.publish()
    table_run(make_run, "two", url, "fares").publish()
    rows = sqlite3.connect(tmp_path / "fares.db").execute("SELECT * FROM fares ORDER BY rowid").fetchall()
    assert rows == [
        (job, "in.csv", row, fare, ok, f"2024-01-0{row + 1}T00:00:00", row + 1)
        for job in ("one", "two") for row, fare, ok in ((0, 1.5, 1), (1, 2.5, 0))
    ]  # fmt: skip
    marks = sqlite3.connect(tmp_path / "fares.db").execute("SELECT * FROM batchpoint_outputs").fetchall()
    assert marks == [("one", "fares", 2), ("two", "fares", 2)]
    assert published.receipt.output_rows == 2
    assert published.outputs["score"]["table"] == "fares"
    assert set(contents(run.out)) == {"errors.jsonl", "receipt.json"}
    again = table_run(make_run, "again", url, "fares", retry_of=str(run.folder))
    again.publish()
    jobs = sqlite3.connect(tmp_path / "fares.db").execute("SELECT DISTINCT job FROM fares ORDER BY job").fetchall()
    assert jobs == [("again",), ("two",)]


def test_a_table_holds_each_row_once_after_retries_of_retries_and_retries_side_by_side(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'fares.db'}"
    first = table_run(make_run, "first", url, "fares")
    first.publish()
    canceled = make_run("canceled", table=OutputTable(url=url, name="fares"), retry_of=str(first.folder))
    for job, retry_of in (("second", canceled), ("third", canceled), ("fourth", first)):
        table_run(make_run, job, url, "fares", retry_of=str(retry_of.folder)).publish()
        rows = sqlite3.connect(tmp_path / "fares.db").execute("SELECT job, row FROM fares ORDER BY row").fetchall()
        assert rows == [(job, 0), (job, 1)]


def test_a_table_whose_columns_do_not_fit_is_named_and_left_alone(make_run: Callable[..., Run], tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "fares.db")
    connection.execute("CREATE TABLE fares (job TEXT, Fare REAL)")
    run = table_run(make_run, "one", f"sqlite:///{tmp_path / 'fares.db'}", "fares")
    with pytest.raises(OutputError, match="file is missing; row is missing"):
        run.publish()
    assert connection.execute("SELECT count(*) FROM fares").fetchone() == (0,)
    assert not run.out.exists()


@pytest.mark.postgres
def test_a_postgresql_table_holds_each_row_once_however_often_it_is_written(
    make_run: Callable[..., Run], postgres_url: str
) -> None:
    run = table_run(make_run, "one", postgres_url, "Fares")
    run.publish()
    run.publish()
    table_run(make_run, "two", postgres_url, "Fares").publish()
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            'SELECT job, file, "row", "Fare", ok, at::text, n FROM "Fares" ORDER BY 1, 3'
        ).fetchall()
        assert rows == [
            (job, "in.csv", row, fare, ok, f"2024-01-0{row + 1} 00:00:00", row + 1)
            for job in ("one", "two") for row, fare, ok in ((0, 1.5, True), (1, 2.5, False))
        ]  # fmt: skip


@pytest.mark.postgres
def test_a_postgresql_table_of_other_types_is_named_and_left_alone(
    make_run: Callable[..., Run], postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            'CREATE TABLE clashing (job text, file text, "row" bigint, "Fare" boolean, ok boolean, at date, n bigint)'
        )
    with pytest.raises(OutputError, match="Fare is boolean, the rows need double precision"):
        table_run(make_run, "one", postgres_url, "clashing").publish()


def by_key(run: Run) -> dict[int, Any]:
    """Four mini-batches: one of key a, one of both keys, one that failed, one of key b; items and their files."""
    frames = [pd.DataFrame({"note": [f'"{n}",\n', "x"], "value": [n, n + 0.5]}) for n in range(3)]
    encoding: Any = {"parquet": "arrow"}.get(run.spec.output.format, run.spec.output.format)
    run.score([frames[0]], encoding=encoding)
    run.score([frames[1], frames[2]], segment="b", encoding=encoding)
    run.score([], bad=[0, 1], encoding=encoding)
    run.score([frames[2]], encoding=encoding)
    return {0: ((2, "a"),), 1: ((1, "a"), (3, "b")), 2: ((2, "c"),), 3: ((2, "b"),)}


def read_frame(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=True, dtype=False) if path.suffix == ".jsonl" else pd.read_csv(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_each_key_has_a_file_of_its_own_with_the_rows_of_the_one_file(make_run: Callable[..., Run], kind: Any) -> None:
    run = make_run(format=kind, file_name=f"predictions.{kind}", file_per_key=f"{{key}}.{kind}")
    spans = {index: tuple((items, f"{name}.{kind}") for items, name in some) for index, some in by_key(run).items()}
    published = run.publish(key_files=spans)
    whole, a, b = (read_frame(run.out / f"{name}.{kind}") for name in ("predictions", "a", "b"))
    assert a["row"].tolist() == [0, 1, 2]
    assert b["row"].tolist() == [3, 4, 5, 8, 9]
    assert pd.concat([a, b], ignore_index=True).equals(whole)
    assert list(a.columns) == list(whole.columns)
    assert not (run.out / f"c.{kind}").exists()  # nothing of it was scored
    assert published.receipt.key_files == {f"a.{kind}": 3, f"b.{kind}": 5}
    assert published.receipt.balanced
    assert published.outputs["score"]["files"] == sorted(
        [f"a.{kind}", f"b.{kind}", "errors.jsonl", f"predictions.{kind}", "receipt.json"]
    )
    assert not list(run.folder.glob("cut_rows*"))


def test_the_one_file_may_be_left_out_and_items_without_a_result_are_no_rows(make_run: Callable[..., Run]) -> None:
    run = make_run(file_per_key="{key}", one_file=False)
    run.score([[1, 2, 3, 4]])
    (record,) = run.records
    lacking = replace(record.parts[0], stop=6, missing=(0, 3), ok=4)
    failures = tuple(FailedItem(item, "in.csv", item, 1, BAD) for item in (0, 3))
    run.records = [Record(0, 6, 4, 2, (lacking,), failures, {"in.csv": (6, 4, 2)})]
    published = run.publish(key_files={0: ((1, "none"), (3, "a"), (2, "b"))}, planned={"in.csv": 6})
    assert (run.out / "a").read_text() == "file,row,prediction\nin.csv,0,1\nin.csv,1,2\n"
    assert (run.out / "b").read_text() == "file,row,prediction\nin.csv,2,3\nin.csv,3,4\n"
    assert names_in(run.out) == ["a", "b", "errors.jsonl", "receipt.json"]
    assert published.receipt.balanced
    assert published.outputs["score"]["uri"] == published.outputs["score"]["folder"]


def test_files_of_keys_are_not_written_over_others_and_count_as_versions(make_run: Callable[..., Run]) -> None:
    def scored(job: str, **more: Any) -> Run:
        run = make_run(job, out="shared", owns_folder=False, file_per_key="{key}.csv", one_file=False, **more)
        run.score([[1.5]])
        return run

    names = {0: ((1, "a.csv"),)}
    first = scored("first", errors_name="first.errors.jsonl", receipt_name="first.receipt.json")
    first.publish(key_files=names)
    second = scored("second", errors_name="second.errors.jsonl", receipt_name="second.receipt.json")
    with pytest.raises(OutputError, match=r"a\.csv exists already"):
        second.publish(key_files=names)
    third = scored("third", if_exists="version", errors_name="third.errors.jsonl", receipt_name="third.receipt.json")
    published = third.publish(key_files=names)
    assert published.receipt.key_files == {"a-2.csv": 1}
    assert (third.out / "a-2.csv").read_bytes() == (third.out / "a.csv").read_bytes()


def test_two_keys_whose_files_would_have_one_name_are_refused_before_anything_is_lost() -> None:
    def batch(index: int, device: Any, sensor: Any) -> MiniBatch:
        return MiniBatch(index, "rows", partition=(("Device", device), ("Sensor", sensor)))

    output = OutputSpec(folder=Location(url="/out"), file_per_key="{Device}_{Sensor}")
    files = KeyFiles(output)
    files.add(batch(0, "1", "2_3"))
    with pytest.raises(OutputError, match="of Device '1_2', Sensor '3' would be that of Device '1', Sensor '2_3' too"):
        files.add(batch(1, "1_2", 3))
    with pytest.raises(OutputError, match="one that every job writes"):
        KeyFiles(output.model_copy(update={"file_name": "1_2"})).add(batch(0, 1, 2))


def test_columns_get_other_names_unless_one_has_the_name_already(make_run: Callable[..., Run]) -> None:
    run = make_run(rename={"prediction": "Prediction", "row": "line", "absent": "file"})
    run.score([[0.5]])
    run.publish()
    assert (run.out / "predictions.csv").read_text() == "file,line,Prediction\nin.csv,0,0.5\n"
    with pytest.raises(ValueError, match="gives a column the name 'file', which another column"):
        make_run("clash", rename={"prediction": "file"}).score([[0.5]])
