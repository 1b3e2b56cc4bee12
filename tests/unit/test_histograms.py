"""How the numbers of an output are distributed: of whatever a job has written, a bounded part."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from batchpoint.operations import histograms
from batchpoint.operations.histograms import histogram, histograms_of


def csv_of(count: int) -> bytes:
    return ("file,row,amount,word\n" + "".join(f"a.csv,{row},{row / 2},w{row}\n" for row in range(count))).encode()


def parquet_of(count: int) -> bytes:
    table = pa.table({"row": range(count), "amount": [row / 2 for row in range(count)], "list": [[1]] * count})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


JSONL = b"".join(b'{"row": %d, "amount": %g}\n' % (row, row / 2) for row in range(30))


@pytest.mark.parametrize(
    ("name", "content"), [("p.csv", csv_of(30)), ("p.parquet", parquet_of(30)), ("p.jsonl", JSONL)]
)
def test_columns_of_numbers_are_counted_and_keys_are_not(name: str, content: bytes) -> None:
    found = histograms_of(io.BytesIO(content), name, {"row"})
    assert found is not None
    assert [(shown.column, shown.low, shown.high) for shown in found.columns] == [("amount", 0, 14.5)]
    assert (sum(found.columns[0].counts), found.rows, found.is_whole) == (30, 30, True)


def test_of_a_large_file_the_beginning_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histograms, "MOST_BYTES", 500)
    found = histograms_of(io.BytesIO(csv_of(1000)), "p.csv", ())
    assert found is not None
    assert not found.is_whole
    assert 10 < found.rows < 40


@pytest.mark.parametrize(
    ("beside", "shown"),
    [((), ["a", "b", "c"]), (("a", "b"), ["c", "d", "a"]), (("*",), ["b", "c", "d"])],
)
def test_predictions_go_before_what_is_repeated_beside_them(beside: tuple[str, ...], shown: list[str]) -> None:
    table = pa.table({"word": ["x"], "row": [0], "a": [1], "b": [2.5], "c": [3], "d": [4]})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    csv = b"word,row,a,b,c,d\nx,0,1,2.5,3,4\n"
    for name, content in (("p.parquet", sink.getvalue()), ("p.csv", csv)):
        found = histograms_of(io.BytesIO(content), name, {"row"}, beside)
        assert found is not None
        assert [each.column for each in found.columns] == shown, name


def test_of_a_wide_parquet_file_the_columns_that_are_shown_are_read_and_no_other() -> None:
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.random.default_rng(1).random(64 * 2000)), 64)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"embedding": wide, "amount": list(range(2000))}), sink)
    file, read = io.BytesIO(sink.getvalue()), 0

    class Counting(io.RawIOBase):
        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def seek(self, *where: int) -> int:
            return file.seek(*where)

        def tell(self) -> int:
            return file.tell()

        def read(self, size: int = -1) -> bytes:
            nonlocal read
            piece = file.read(size)
            read += len(piece)
            return piece

    found = histograms_of(Counting(), "p.parquet", ())  # type: ignore[arg-type]  # a file as far as it is read
    assert found is not None
    assert [each.column for each in found.columns] == ["amount"]
    assert read < len(sink.getvalue()) / 5


def test_names_that_come_twice_and_rows_that_do_not_fit_hide_nothing() -> None:
    found = histograms_of(io.BytesIO(b"a,a\n1,2\n3\n5,6,7\n8,9\n"), "p.csv", ())
    assert found is not None
    assert [shown.column for shown in found.columns] == ["a", "a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.parquet", b"PAR1 is what it says"),
        ("p.jsonl", b"{not json"),
        ("p.csv", b""),
        ("p.csv", b"\xff\xfe\x00"),
        ("p.csv", b'a\n"never closed'),
        ("p.csv", b"only,a,head\n"),
        ("p.html", b"<script>"),
    ],
)
def test_what_is_no_table_of_numbers_has_none(name: str, content: bytes) -> None:
    assert histograms_of(io.BytesIO(content), name, ()) is None


def test_a_histogram_counts_every_value_and_those_that_are_none() -> None:
    shown = histogram("x", np.array([1.0, 2.0, 2.0, np.nan, np.inf]))
    assert shown is not None
    assert (shown.low, shown.high, sum(shown.counts), shown.missing) == (1, 2, 3, 2)
    same = histogram("x", np.array([3.0, 3.0]))
    assert same is not None
    assert (same.counts, same.low, same.high) == ([2], 3, 3)
    assert histogram("x", np.array([np.nan])) is None
    assert histogram("x", np.array([-1.7e308, 1.7e308])) is None
