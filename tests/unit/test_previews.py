"""Previews: the beginning of whatever a job has written, and how its numbers are distributed."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from batchpoint.operations import previews
from batchpoint.operations.previews import ROWS, histogram, image_type, preview


def csv_of(count: int) -> bytes:
    return ("file,row,amount,word\n" + "".join(f"a.csv,{row},{row / 2},w{row}\n" for row in range(count))).encode()


def parquet_of(count: int) -> bytes:
    table = pa.table({"row": range(count), "amount": [row / 2 for row in range(count)], "list": [[1]] * count})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def test_a_csv_file_is_shown_and_counted() -> None:
    seen = preview(io.BytesIO(csv_of(50)), "predictions.csv", keys={"row"})
    assert seen.columns == ["file", "row", "amount", "word"]
    assert (len(seen.rows), seen.rows[1]) == (ROWS, ["a.csv", "1", "0.5", "w1"])
    assert [shown.column for shown in seen.histograms] == ["amount"]
    assert (sum(seen.histograms[0].counts), seen.rows_counted, seen.is_whole) == (50, 50, True)


def test_of_a_large_file_the_beginning_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "MOST_BYTES", 500)
    seen = preview(io.BytesIO(csv_of(1000)), "p.csv", keys=())
    assert not seen.is_whole
    assert 10 < seen.rows_counted < 40


def test_lines_of_json_are_rows_of_all_their_keys() -> None:
    lines = [{"a": 1}, {"b": {"c": 2}, "a": None}, 7]
    seen = preview(io.BytesIO("\n".join(map(json.dumps, lines)).encode()), "p.jsonl")
    assert (seen.columns, seen.rows) == (["a", "b", "value"], [["1", "", ""], ["", '{"c": 2}', ""], ["", "", "7"]])
    assert seen.histograms == []


def test_a_parquet_file_is_shown_and_counted() -> None:
    seen = preview(io.BytesIO(parquet_of(30)), "p.parquet", keys={"row"})
    assert (seen.columns, seen.rows[3]) == (["row", "amount", "list"], ["3", "1.5", "[1]"])
    assert [(shown.column, shown.low, shown.high) for shown in seen.histograms] == [("amount", 0, 14.5)]
    assert seen.is_whole


def test_names_that_come_twice_and_rows_that_do_not_fit_hide_nothing() -> None:
    seen = preview(io.BytesIO(b"a,a\n1,2\n3\n5,6,7\n8,9\n"), "p.csv", keys=())
    assert seen.rows[0] == ["1", "2"]
    assert [shown.column for shown in seen.histograms] == ["a", "a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.parquet", b"PAR1 is what it says"),
        ("p.jsonl", b"{not json"),
        ("p.png", b"<svg onload='x'>"),
        ("p.svg", b"<svg/>"),
        ("p.html", b"<script>"),
        ("p", b"\x00\xff"),
    ],
)
def test_what_is_not_what_its_name_says_is_not_shown(name: str, content: bytes) -> None:
    assert preview(io.BytesIO(content), name, keys=()).kind == "none"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b'a\n"never closed', b"only,a,head\n"])
def test_odd_csv_files_break_nothing(content: bytes) -> None:
    assert preview(io.BytesIO(content), "p.csv", keys=()).kind == "table"


def test_a_picture_is_one_by_name_and_by_content() -> None:
    assert image_type(b"\x89PNG\r\n\x1a\n....", "a.PNG") == "image/png"
    assert image_type(b"\x89PNG\r\n\x1a\n....", "a.svg") is None
    assert image_type(b"GIF89a", "a.png") is None


def test_a_histogram_counts_every_value_and_those_that_are_none() -> None:
    shown = histogram("x", np.array([1.0, 2.0, 2.0, np.nan, np.inf]))
    assert shown is not None
    assert (shown.low, shown.high, sum(shown.counts), shown.missing) == (1, 2, 3, 2)
    same = histogram("x", np.array([3.0, 3.0]))
    assert same is not None
    assert (same.counts, same.low, same.high) == ([2], 3, 3)
    assert histogram("x", np.array([np.nan])) is None
    assert histogram("x", np.array([-1.7e308, 1.7e308])) is None
