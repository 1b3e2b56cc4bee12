"""What run() returned, as rows in a segment."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import enum
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchpoint.scoring import arrow_bytes, cells, encodings, worker
from batchpoint.scoring.segment import SegmentWriter

KEYS = {"row_keys": True}
BARE = {"row_keys": False}


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    return tmp_path / "segment"


def rows_part(count: int, *, start: int = 0, frame: Any = None, keys: Any = None) -> dict[str, Any]:
    keys = keys or [("in.csv", 0, count)]
    return {"unit": "rows", "start": start, "stop": start + count, "keys": keys, "frame": frame}


def files_part(*names: str, start: int = 0) -> dict[str, Any]:
    return {"unit": "files", "start": start, "stop": start + len(names), "names": list(names), "frame": None}


def written(path: Path, result: Any, part: dict[str, Any], *, encoding: Any = "csv", output: Any = BARE) -> str:
    writer = SegmentWriter(str(path), encoding, output)
    answer = writer.append(result, part)
    writer.close()
    with path.open("rb") as file:
        file.seek(answer["offset"])
        return file.read(answer["length"]).decode()


GOLDEN_FRAME = pd.DataFrame(
    {
        "file": ["a b.csv", "c.csv", 'q"x.csv'],
        "score": [0.1, 1e-10, np.nan],
        "number": [1, 2, 3],
        "flag": [True, False, True],
        "text": ["x y", None, None],
        "day": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]),
        "list": [[1, 2], [3], []],
    }
)


def test_azureml_frames_have_azures_exact_bytes(segment: Path) -> None:
    text = written(segment, GOLDEN_FRAME, rows_part(3), encoding="azureml", output=KEYS)
    assert text == (
        '"a b.csv" 0.1 1 True "x y" 2024-01-01 "[1, 2]"\n'
        "c.csv 1e-10 2 False  2024-01-02 [3]\n"
        '"q""x.csv"  3 True  2024-01-03 []\n'
    )


@pytest.mark.parametrize(
    ("predicted", "frame", "text"),
    [
        ("scalars", {"prediction": [0.5, 1.0]}, "['in.csv', '0.5']\n['b.csv', '1.0']\n"),
        ("vectors", {"p_0": [0.5, 1.0], "p_1": [0.5, 0.0]}, "['in.csv', '[0.5 0.5]']\n['b.csv', '[1. 0.]']\n"),
        ("table", {"label": ["a b", "c"], "p": [0.5, 1.0]}, '"a b" 0.5 in.csv\nc 1.0 b.csv\n'),
    ],
)
def test_azureml_predictions_of_mlflow_models_name_the_file_of_each_row(
    segment: Path, predicted: str, frame: dict[str, Any], text: str
) -> None:
    result = pd.DataFrame(frame)
    result.attrs["mlflow_prediction"] = predicted
    part = rows_part(2, keys=[("in.csv", 0, 1), ("sub/b.csv", 7, 1)])
    assert written(segment, result, part, encoding="azureml") == text
    assert "in.csv" not in written(segment.with_name("csv"), result, part)


def test_azureml_times_are_quoted_because_of_their_space(segment: Path) -> None:
    frame = pd.DataFrame({"at": pd.to_datetime(["2024-01-01 03:04:05"])})
    assert written(segment, frame, rows_part(1), encoding="azureml") == '"2024-01-01 03:04:05"\n'


@pytest.mark.parametrize(
    ("element", "line"),
    [
        ("img.png: 7", "img.png: 7\n"),
        (["f.csv", str(0)], "['f.csv', '0']\n"),
        (np.array([1.5, "f.csv"], dtype=object), "[1.5 'f.csv']\n"),
        (["f.csv", np.float64(0.5)], "['f.csv', np.float64(0.5)]\n"),
        ({"a": 1}, "{'a': 1}\n"),
        (("a", 1), "('a', 1)\n"),
        (None, "None\n"),
        ("a\nb", "a\nb\n"),
    ],
)
def test_azureml_list_elements_are_their_str_and_a_newline(segment: Path, element: Any, line: str) -> None:
    assert written(segment, [element], files_part("f.csv"), encoding="azureml", output=KEYS) == line


@pytest.mark.parametrize("result", [None, "text", 3, {"a": 1}, (x for x in [1]), {1}, np.array(5)])
def test_a_result_of_another_type_is_refused_in_azures_words(segment: Path, result: Any) -> None:
    writer = SegmentWriter(str(segment), "csv", KEYS)
    words = (
        r"The run\(\) method in the entry script should return a list or a pandas DataFrame. The actual type of output"
    )
    with pytest.raises(TypeError, match=words):
        writer.append(result, files_part("a.csv"))
    assert segment.stat().st_size == 0


def test_rows_stand_behind_their_file_and_row(segment: Path) -> None:
    part = rows_part(3, keys=[("a.csv", 7, 2), ("b.csv", 0, 1)])
    assert written(segment, [0.5, 1.0, 2.5], part, output=KEYS) == "a.csv,7,0.5\na.csv,8,1.0\nb.csv,0,2.5\n"


def test_files_with_one_result_each_stand_behind_their_name_alone(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", KEYS)
    answer = writer.append(["cat", "dog"], files_part("a.png", "b, c.png"))
    assert answer["columns"] == ["file", "prediction"]
    assert segment.read_text() == 'a.png,cat\n"b, c.png",dog\n'


def test_many_rows_of_one_file_are_counted_from_zero(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", KEYS)
    answer = writer.append(pd.DataFrame({"fare": [1.5, 2.5]}), files_part("a.csv"))
    assert (answer["columns"], answer["rows"], answer["ok"], answer["missing"]) == (["file", "row", "fare"], 2, 1, [])
    assert segment.read_text() == "a.csv,0,1.5\na.csv,1,2.5\n"


def test_rows_of_several_files_in_one_frame_have_no_known_file(segment: Path) -> None:
    assert written(segment, pd.DataFrame({"v": [1, 2, 3]}), files_part("a", "b"), output=KEYS) == ",1\n,2\n,3\n"


def test_a_filtered_frame_tells_which_rows_are_missing(segment: Path) -> None:
    frame = pd.DataFrame({"v": [10, 20, 30, 40]})
    writer = SegmentWriter(str(segment), "csv", KEYS)
    answer = writer.append(frame[frame.v != 20], rows_part(4, start=100, frame=frame, keys=[("a.csv", 5, 4)]))
    assert (answer["ok"], answer["missing"], answer["rows"]) == (3, [101], 3)
    assert segment.read_text() == "a.csv,5,10\na.csv,7,30\na.csv,8,40\n"


def test_a_reordered_frame_keeps_each_row_with_its_key(segment: Path) -> None:
    frame = pd.DataFrame({"v": [30, 10, 20]})
    assert written(segment, frame.sort_values("v"), rows_part(3, frame=frame), output=KEYS) == (
        "in.csv,1,10\nin.csv,2,20\nin.csv,0,30\n"
    )


def test_an_aggregate_with_a_new_index_claims_no_row(segment: Path) -> None:
    frame = pd.DataFrame({"v": [1, 2, 3]})
    writer = SegmentWriter(str(segment), "csv", KEYS)
    answer = writer.append(pd.DataFrame({"total": [6]}), rows_part(3, frame=frame))
    assert (answer["ok"], answer["missing"]) == (1, None)
    assert segment.read_text() == ",,6\n"


def test_groups_that_are_numbered_like_rows_claim_no_row(segment: Path) -> None:
    frame = pd.DataFrame({"v": [1, 2, 2, 3]})
    answer = SegmentWriter(str(segment), "csv", KEYS).append(frame.groupby("v").size(), rows_part(4, frame=frame))
    assert (answer["ok"], answer["missing"]) == (3, None)
    assert segment.read_text() == ",,1\n,,2\n,,1\n"


@pytest.mark.parametrize(("result", "ok", "missing"), [([], 0, [5, 6]), ([1], 1, None), ([1, 2, 3], 2, [])])
def test_results_are_counted_up_to_the_number_of_items(
    segment: Path, result: list[int], ok: int, missing: list[int] | None
) -> None:
    answer = SegmentWriter(str(segment), "csv", KEYS).append(result, files_part("a", "b", start=5))
    assert (answer["ok"], answer["missing"], answer["rows"]) == (ok, missing, len(result))


def test_summary_only_counts_and_keeps_no_rows(segment: Path) -> None:
    answer = SegmentWriter(str(segment), "none", KEYS).append(["a", "b"], files_part("a", "b"))
    assert (answer["ok"], answer["rows"], answer["length"]) == (2, 0, 0)


def test_key_columns_and_passed_through_columns_come_from_the_input(segment: Path) -> None:
    frame = pd.DataFrame({"trip": ["T1", "T2"], "km": [1.5, 2.0], "fare": [0, 0]})
    output = {"row_keys": True, "key_columns": ["trip"], "passthrough": ["*"]}
    writer = SegmentWriter(str(segment), "csv", output)
    answer = writer.append(pd.DataFrame({"fare": [9.5, 8.5]}), rows_part(2, frame=frame))
    assert answer["columns"] == ["trip", "km", "fare"]
    assert segment.read_text() == "T1,1.5,9.5\nT2,2.0,8.5\n"


def test_a_key_of_the_same_name_as_a_result_column_is_called_input(segment: Path) -> None:
    answer = SegmentWriter(str(segment), "csv", KEYS).append(pd.DataFrame({"file": ["x"]}), files_part("a.csv"))
    assert answer["columns"] == ["input_file", "file"]


def test_a_key_column_that_the_input_lacks_is_named(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", {"row_keys": True, "key_columns": ["trip"]})
    with pytest.raises(ValueError, match="key column 'trip' is not among the columns of the input"):
        writer.append([1], rows_part(1, frame=pd.DataFrame({"km": [1]})))


@pytest.mark.parametrize(
    ("result", "columns", "line"),
    [
        ([{"a": 1, "b": 2}], ["a", "b"], "1,2\n"),
        ([["x", 1]], ["prediction_0", "prediction_1"], "x,1\n"),
        ([np.array([0.25, 0.75])], ["prediction_0", "prediction_1"], "0.25,0.75\n"),
        (np.array([[0.25, 0.75]]), ["prediction_0", "prediction_1"], "0.25,0.75\n"),
        (np.array([["a"]]), ["prediction"], "a\n"),
        (np.array([[[1, 2]]]), ["prediction"], '"[[1, 2]]"\n'),
        (pd.Series([1], name="fare"), ["fare"], "1\n"),
        (pd.Series([1]), ["prediction"], "1\n"),
        (pa.table({"a": [1]}), ["a"], "1\n"),
        (pl.DataFrame({"a": [1]}), ["a"], "1\n"),
        (pl.Series("a", [1]), ["a"], "1\n"),
        ((True,), ["prediction"], "True\n"),
        ([None], ["prediction"], '""\n'),
    ],
)
def test_each_shape_of_result_has_its_columns(segment: Path, result: Any, columns: list[str], line: str) -> None:
    answer = SegmentWriter(str(segment), "csv", BARE).append(result, files_part("a"))
    assert answer["columns"] == columns
    assert segment.read_text() == line


def test_rows_without_any_column_are_refused(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", BARE)
    with pytest.raises(ValueError, match="rows, but no columns"):
        writer.append(pd.DataFrame(index=[0, 1]), files_part("a", "b"))


def test_lists_of_unequal_length_are_json_text(segment: Path) -> None:
    assert written(segment, [[1], [1, 2]], files_part("a", "b")) == '[1]\n"[1, 2]"\n'


@pytest.mark.parametrize(
    ("value", "cell", "fragment"),
    [
        (float("nan"), '""', "null"),
        (float("inf"), "inf", '"Infinity"'),
        (np.float32(0.1), "0.1", "0.1"),
        (np.int8(3), "3", "3"),
        (np.bool_(1), "True", "true"),
        (pd.Timestamp("2024-01-01T03:04:05.500"), "2024-01-01T03:04:05.5", '"2024-01-01T03:04:05.5"'),
        (np.datetime64("2024-01-01T00:00:00.000"), "2024-01-01T00:00:00", '"2024-01-01T00:00:00"'),
        (dt.date(2024, 1, 1), "2024-01-01", '"2024-01-01"'),
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "2024-01-01T00:00:00+00:00", '"2024-01-01T00:00:00+00:00"'),
        (decimal.Decimal("1.10"), "1.10", '"1.10"'),
        (b"\x00\xff", "AP8=", '"AP8="'),
        ('a"b\né', '"a""b\né"', '"a\\"b\\né"'),
        ([1, [float("nan")]], None, None),
    ],
)
def test_values_have_one_text_in_csv_and_one_in_jsonl(
    segment: Path, value: Any, cell: str | None, fragment: str | None
) -> None:
    if cell is None:
        value, cell, fragment = {"k": [1, float("nan"), float("inf")]}, None, None
        frame = pd.DataFrame({"v": [value]})
        assert written(segment, frame, files_part("a")) == '"{""k"": [1, null, ""Infinity""]}"\n'
        return
    assert written(segment, [value], files_part("a")) == cell + "\n"
    assert written(segment, [value], files_part("a"), encoding="jsonl") == f'{{"prediction": {fragment}}}\n'


TYPES: dict[str, Any] = {
    "bool": [True, False, True],
    "int": [1, -(2**62), 0],
    "float": [0.1, 1e16, 1e-5],
    "float_missing": [float("nan"), float("inf"), -1e300],
    "whole_float": [1.0, -0.0, 123456789.0],
    "float32": np.array([0.1, 1e10, np.nan], dtype="float32"),
    "text": ["plain", 'with "quotes", commas', "two\nlines\t"],
    "text_missing": ["", None, "é\x01\\"],
    "object_int_missing": pd.Series([1, None, 3], dtype=object),
    "mixed": pd.Series([1, 2.5, "x"], dtype=object),
    "lists": pd.Series([[1], [], None], dtype=object),
    "nullable": pd.array([1, None, 3], dtype="Int64"),
    "nullable_bool": pd.array([True, None, False], dtype="boolean"),
    "category": pd.Categorical(["a", None, 'b"']),
    "time": pd.to_datetime(["2024-01-01", "2024-01-01T03:04:05.120", None], format="ISO8601"),
    "zoned": pd.to_datetime(["2024-01-01", "2024-06-01", None]).tz_localize("Europe/Berlin"),
    "nanoseconds": np.array(["2024-01-01T00:00:00.000000010", "NaT", "1969-12-31T23:59:59.5"], dtype="datetime64[ns]"),
    "day": [dt.date(2024, 1, 1), None, dt.date(1999, 12, 31)],
    "duration": pd.to_timedelta([1, 2, 3], unit="s"),
    "unsigned": np.array([2**64 - 1, 0, 1], dtype="uint64"),
    "huge": [2**70, 1, 2],
}


@pytest.mark.parametrize("encoding", ["csv", "jsonl"])
def test_with_pyarrow_or_without_the_bytes_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    frame = pd.DataFrame(TYPES)
    monkeypatch.setattr(encodings, "MANY_ROWS", {"csv": 1, "jsonl": 1})
    by_arrow = written(tmp_path / "a", frame, rows_part(3, frame=frame), encoding=encoding, output=KEYS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    by_python = written(tmp_path / "b", frame, rows_part(3, frame=frame), encoding=encoding, output=KEYS)
    assert by_arrow.splitlines() == by_python.splitlines()
    assert by_arrow == by_python


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(), st.none()), min_size=1), st.sampled_from(["csv", "jsonl"]))
def test_any_float_has_equal_text_with_pyarrow_or_without(values: list[float | None], style: Any) -> None:
    plain = cells.cells_of(values, style)
    assert arrow_bytes.arrow_cells(values, style).to_pylist() == plain
    assert arrow_bytes.arrow_cells(pd.Series(values, dtype="float64"), style).to_pylist() == plain


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_csv_read_by_python_gives_back_the_texts(rows: list[tuple[str, str]]) -> None:
    columns = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    text = encodings.text_bytes(columns, len(rows), "csv").decode()
    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == rows
    lines = encodings.text_bytes(columns, len(rows), "jsonl").decode().split("\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    assert "".join(cells.csv_line(list(row)) for row in rows) == text
    prefixes, suffix = encodings._frame_of_line(["a", "b"], "csv")
    assert arrow_bytes.joined_lines(columns, len(rows), "csv", prefixes, suffix).decode() == text
    by_its_writer = arrow_bytes.csv_lines(columns, len(rows))
    assert (by_its_writer is None) == ('"' in text)
    assert by_its_writer is None or by_its_writer.decode() == text


def test_arrow_blocks_hold_typed_columns_each_a_stream_of_its_own(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "arrow", KEYS)
    blocks = [writer.append([0.5, None], rows_part(2)), writer.append(pd.DataFrame({"v": [{"a": 1}]}), rows_part(1))]
    tables = []
    for block in blocks:
        data = segment.read_bytes()[block["offset"] : block["offset"] + block["length"]]
        tables.append(pa.ipc.open_stream(data).read_all())
    assert tables[0].to_pydict() == {"file": ["in.csv"] * 2, "row": [0, 1], "prediction": [0.5, None]}
    assert tables[0].schema.field("prediction").type == pa.float64()
    assert tables[1].column("v").to_pylist() == ['{"a": 1}']


def test_without_pyarrow_arrow_becomes_jsonl_and_says_so(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = SegmentWriter(str(segment), "arrow", KEYS).append([1], rows_part(1))
    assert answer["encoding"] == "jsonl"
    assert json.loads(segment.read_text()) == {"file": "in.csv", "row": 0, "prediction": 1}


def test_a_block_that_cannot_be_encoded_leaves_the_segment_as_it_was(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", KEYS)
    writer.append(["a"], files_part("a"))
    with pytest.raises(UnicodeEncodeError):
        writer.append(["\ud800"], files_part("b"))
    answer = writer.append(["c"], files_part("c"))
    assert (answer["offset"], segment.read_text()) == (4, "a,a\nc,c\n")


def test_a_full_disk_leaves_the_segment_as_it_was(segment: Path) -> None:
    writer = SegmentWriter(str(segment), "csv", BARE)
    writer.append(["a"], files_part("a"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.append(["x" * 5000], files_part("b"))
        assert segment.read_text() == "a\n"
        writer.append(["c"], files_part("c"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert segment.read_text() == "a\nc\n"


def test_an_isolated_interpreter_without_any_package_writes_lists(segment: Path) -> None:
    program = (
        "import runpy, sys\n"
        f"segment = runpy.run_path({worker.__file__!r})['load_sibling']('segment')\n"
        f"writer = segment.SegmentWriter({os.fspath(segment)!r}, sys.argv[1], {{'row_keys': True}})\n"
        "part = {'unit': 'rows', 'start': 0, 'stop': 3000, 'keys': [('a', 0, 3000)], 'frame': None}\n"
        "writer.append([1.5] * 3000, part)\n"
    )
    for encoding, first in (
        ("csv", "a,0,1.5"),
        ("jsonl", '{"file": "a", "row": 0, "prediction": 1.5}'),
        ("azureml", "1.5"),
    ):
        segment.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-I", "-S", "-c", program, encoding], check=True, timeout=30)
        assert segment.read_text().splitlines()[0] == first


@pytest.mark.parametrize("style", ["csv", "jsonl"])
@pytest.mark.parametrize("name", ["a.csv", 'odd, "quoted"\n.csv'])
def test_a_file_name_that_stands_in_every_line_is_written_as_cell_by_cell(
    monkeypatch: pytest.MonkeyPatch, style: cells.Style, name: str
) -> None:
    table = {"file": [name] * 3, "again": [name] * 3}
    for more in ({}, {"row": [0, 1, 2]}):
        monkeypatch.setattr(encodings, "_is_worth_arrow", lambda _rows, _style: False)
        cell_by_cell = encodings.text_bytes({**table, **more}, 3, style)
        monkeypatch.setattr(encodings, "_is_worth_arrow", lambda _rows, _style: True)
        assert encodings.text_bytes({**table, **more}, 3, style) == cell_by_cell


class Verdict(str, enum.Enum):  # noqa: UP042 -- a StrEnum prints as it reads
    """A text that prints otherwise than it reads."""

    GOOD = "good"


@pytest.mark.parametrize("encoding", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "column",
    [
        np.ma.masked_array([3, 3, 3], mask=[False, True, False]),
        np.ma.masked_array([1, 2, 3], mask=[True, False, False]),
        [Verdict.GOOD] * 3,
    ],
    ids=["equal but one", "first", "enum"],
)
def test_what_is_no_plain_number_or_text_has_equal_bytes_with_pyarrow_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, column: Any
) -> None:
    monkeypatch.setattr(encodings, "MANY_ROWS", {"csv": 1, "jsonl": 1})
    by_arrow = written(tmp_path / "a", column, rows_part(3), encoding=encoding, output=KEYS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert written(tmp_path / "b", column, rows_part(3), encoding=encoding, output=KEYS) == by_arrow


def test_a_masked_whole_number_is_missing(segment: Path) -> None:
    column = np.ma.masked_array([3, 3, 3], mask=[False, True, False])
    assert written(segment, column, rows_part(3), output=KEYS) == "in.csv,0,3\nin.csv,1,\nin.csv,2,3\n"


def test_an_arrow_whose_writer_cannot_leave_out_quotes_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "MANY_ROWS", {"csv": 1, "jsonl": 1})
    expected = written(tmp_path / "a", [1.5, 2.0], rows_part(2), output=KEYS)

    class OldOptions:
        def __init__(self, include_header: bool | None = None, *, batch_size: int | None = None) -> None:
            """As in pyarrow 10, and older."""

    monkeypatch.setattr(pyarrow.csv, "WriteOptions", OldOptions)
    assert written(tmp_path / "b", [1.5, 2.0], rows_part(2), output=KEYS) == expected
