"""Cutting a csv file at any size and reading the pieces gives what reading it whole gives."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_records, slices, tabular
from batchpoint.scoring.mini_batches import InputFile

CSV = CsvOptions()
OPTIONS = CSV.model_dump()
TEXTS = {"columns": ("a", "b"), "types": ("string", "string")}

quoted = st.text(alphabet='x,"\n\r é', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"')
plain = st.text(alphabet="xyé 1'", max_size=5) | st.sampled_from(['5" pipe', 'x"y"', "None"])
rows_of_text = st.lists(st.tuples(quoted | plain, quoted | plain), min_size=1, max_size=12)


def written(folder: str, text: str) -> InputFile:
    path = Path(folder) / "data.csv"
    path.write_bytes(text.encode())
    return InputFile("data.csv", str(path), path.stat().st_size)


def cut(file: InputFile, *, size: int | None = None, rows: int | None = None) -> list[dict[str, Any]]:
    head = tabular.head_of(file, "csv", CSV)
    return [
        {"name": file.name, "path": file.path, "format": "csv", **piece._asdict()}
        for piece in tabular.cut(file, "csv", CSV, head, size=size, rows=rows)
    ]


def values(frame: Any) -> list[list[str]]:
    filled: list[list[str]] = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    return filled


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    rows=rows_of_text,
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    blank=st.booleans(),
    final=st.booleans(),
    size=st.integers(1, 40),
)
def test_reading_the_slices_equals_reading_the_file_whole(
    rows: list[tuple[str, str]], ending: str, bom: bool, blank: bool, final: bool, size: int
) -> None:
    between = ending * 2 if blank else ending
    text = "a,b" + ending + between.join(f"{a},{b}" for a, b in rows) + (ending if final else "")
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    with TemporaryDirectory() as folder:
        file = written(folder, "\ufeff" * bom + text)
        pieces = cut(file, size=size)
        assert sum(piece["rows"] for piece in pieces) == len(expected)
        assert [piece["first_row"] for piece in pieces] == [
            sum(piece["rows"] for piece in pieces[:i]) for i in range(len(pieces))
        ]
        together = slices.read_rows(pieces, 0, len(expected), OPTIONS, TEXTS)
        one_by_one = [
            row for piece in pieces for row in values(slices.read_rows([piece], 0, piece["rows"], OPTIONS, TEXTS))
        ]
    assert values(together) == expected
    assert one_by_one == expected


@settings(max_examples=60, derandomize=True, deadline=None)
@given(rows=rows_of_text, count=st.integers(1, 5), data=st.data())
def test_cuts_by_rows_never_cross_a_multiple_and_any_range_can_be_read(
    rows: list[tuple[str, str]], count: int, data: st.DataObject
) -> None:
    text = "a,b\n" + "\n".join(f"{a},{b}" for a, b in rows)
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    with TemporaryDirectory() as folder:
        pieces = cut(written(folder, text), rows=count)
        assert all(piece["first_row"] % count + piece["rows"] <= count for piece in pieces)
        start = data.draw(st.integers(0, len(expected) - 1))
        stop = data.draw(st.integers(start + 1, len(expected)))
        frame = slices.read_rows(pieces, start, stop, OPTIONS, TEXTS)
    assert values(frame) == expected[start:stop]


def test_large_blocks_counted_with_numpy_agree_with_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "_NUMPY_PAYS", 1)
    for text in (
        "a,b\n" + "1,2\n" * 500,
        "a,b\n" + "1,2\n\n" * 500,
        'a,b\n"1\n",2\n' * 300,
        "a,b\r\n" + "1,2\r\n\r\n" * 300,
    ):
        file = written(str(tmp_path), text)
        data = text.encode()
        assert sum(piece["rows"] for piece in cut(file, size=97)) == len(csv_records.record_bounds(data, ",")) - 1


def test_a_quote_that_never_ends_is_reported_instead_of_filling_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "LONGEST_RECORD", 1000)
    file = written(str(tmp_path), 'a,b\n1,"2\n' + "3,4\n" * 2000)
    with pytest.raises(csv_records.UnreadableRowsError, match="is a quote missing"):
        cut(file, size=100)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "2", ""], "int64"),
        (["1", "2.5", "NA"], "double"),
        (["1e5", "nan"], "double"),
        (["True", "False"], "bool"),
        (["None", "1"], "string"),
        (["NA", "NA"], "string"),
        (["2020-01-01"], "string"),
        (["", ""], "double"),
    ],
)
def test_types_are_guessed_from_the_first_rows(texts: list[str], expected: str) -> None:
    head = "".join(f"{text},x\n" for text in texts).encode()
    assert csv_records.sample_types(head, ["a", "b"], ",", [""])[0] == (expected, "string")


CELLS = (
    *("1", "007", "-0", "+3", " 4", "5 ", "1.50", "1e5", "1e400", ".5", "5.", "1,5", "0x10", "1_0"),
    *("NaN", "nan", "inf", "-inf", "NA", "", '""', '"6"', "x", "true", "9223372036854775808"),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(CELLS), st.sampled_from(CELLS)), min_size=2, max_size=6),
    types=st.tuples(*[st.sampled_from(["string", "int64", "double", "bool"])] * 2),
    strict=st.booleans(),
    names=st.sampled_from([None, ["a"], ["b", "a"], ["b", "no such column"]]),
)
def test_values_and_texts_of_one_reading_are_those_of_two(
    rows: list[tuple[str, str]], types: tuple[str, str], strict: bool, names: list[str] | None
) -> None:
    schema = {"columns": ("a", "b"), "types": types, "strict": ("a", "b") if strict else ()}
    quoted_commas = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in rows]
    with TemporaryDirectory() as folder:
        file = written(folder, "a,b\n" + "".join(f"{a},{b}\n" for a, b in [*quoted_commas, ("1", "1")]))
        place = (cut(file), 0, len(rows), OPTIONS, schema)  # not the last row: whole slices are read ahead
        try:
            expected, refusal = slices.read_rows(*place), None
        except csv_records.UnreadableRowsError as error:
            expected, refusal = None, error
        if refusal is not None:
            with pytest.raises(csv_records.UnreadableRowsError) as found:
                slices.read_rows_and_texts(*place, names)
            assert (str(found.value), found.value.item) == (str(refusal), refusal.item)
            return
        frame, texts = slices.read_rows_and_texts(*place, names)
        assert_frame_equal(frame, expected)
        assert_frame_equal(texts, slices.read_texts(*place, [name for name in names or "ab" if name in "ab"]))
