"""What a file looks like inside: a bounded part of it, and never more than it is."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchpoint.operations.file_previews import CELL, HEAD, LARGEST_IMAGE, ROWS, Preview, preview_of

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def previewed(name: str, content: bytes, size: int | None = None) -> Preview:
    return preview_of(name, io.BytesIO(content), len(content) if size is None else size)


def test_csv_is_a_table_of_its_first_rows_and_says_that_there_are_more() -> None:
    found = previewed("a.csv", b'id,note\n1,"two\nlines"\n' + b"2,x\n" * ROWS)
    assert (found.kind, found.columns, len(found.rows)) == ("table", ["id", "note"], ROWS)
    assert found.rows[0] == ["1", "two\nlines"]
    assert found.note == f"The first {ROWS} rows."
    assert previewed("a.tsv", b"a\tb\n1\t2\n").columns == ["a", "b"]


def test_a_row_that_the_bound_cuts_through_is_left_out_and_a_long_cell_is_cut() -> None:
    long = b"x" * 30_000
    found = previewed("a.csv", b"id\n" + long + b"\n" + long + b"\n" + long + b"\n")
    assert len(found.rows) == HEAD // 30_000
    assert found.rows[0] == ["x" * CELL + "…"]


def test_jsonl_is_a_table_of_all_its_keys_and_text_where_a_line_is_no_object() -> None:
    found = previewed("a.jsonl", b'{"a":1}\n{"b":[2]}\n')
    assert (found.columns, found.rows) == (["a", "b"], [["1", ""], ["", "[2]"]])
    assert previewed("a.jsonl", b"[1]\n").kind == "text"
    assert previewed("a.jsonl", b"[" * 50_000).kind == "text"


def test_parquet_is_read_by_what_it_is_and_told_with_its_types() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(1000)), "b": ["x"] * 1000}), buffer)
    found = previewed("named.csv", buffer.getvalue())
    assert (found.columns, len(found.rows), found.rows[1]) == (["a (int64)", "b (string)"], ROWS, ["1", "x"])
    assert found.note == "1,000 rows, 2 columns."


@pytest.mark.parametrize(
    "odd",
    [
        pa.array([10**18], pa.timestamp("us")),
        pa.array([2**62], pa.duration("s")),
        pa.array([0], pa.timestamp("us", tz="Mars/Olympus")),
        pa.array([b"\xff"], pa.binary()).view(pa.string()),
    ],
)
def test_a_column_of_values_that_python_does_not_know_hides_no_other(odd: pa.Array) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"odd": odd, "x": [1.5]}), buffer)
    found = previewed("a.parquet", buffer.getvalue())
    assert (found.kind, [row[1] for row in found.rows]) == ("table", ["1.5"])


def test_half_of_a_pair_and_what_is_too_deep_can_be_sent_all_the_same() -> None:
    assert previewed("a.jsonl", b'{"a\\ud800": "\\udfff"}\n').rows == [["\\udfff"]]
    deep = b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}\n"
    assert previewed("a.jsonl", deep).kind in ("table", "text")


def test_what_only_begins_like_parquet_is_not_read() -> None:
    found = previewed("a.parquet", b"PAR1" + b"x" * 100)
    assert found.kind == "binary"
    assert "cannot be read" in str(found.note)


@pytest.mark.parametrize(("name", "content"), [("a.html", b"<script>1</script>"), ("a.svg", b"<svg></svg>")])
def test_what_browsers_would_run_is_text(name: str, content: bytes) -> None:
    assert previewed(name, content) == Preview("text", text=content.decode())


def test_an_image_is_one_by_its_bytes_and_no_larger_than_can_be_shown() -> None:
    assert previewed("a.html", PNG).media_type == "image/png"
    assert previewed("a.png", b"<html>").kind == "text"
    assert previewed("a.png", PNG, LARGEST_IMAGE + 1).kind == "binary"
    assert previewed("model.pkl", b"\x80\x04\0abc").kind == "binary"
