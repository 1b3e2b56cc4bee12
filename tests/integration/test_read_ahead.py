"""Small slices that lie close together are parsed in blocks, and hold what they would hold alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_parsing, csv_records, csv_rows, read_ahead, slices

KEYS, ROWS = 40, 5
SCHEMA = {"columns": ["key", "when", "n", "x"], "types": ["int64", "timestamp[s]", "int64", "double"]}


def line(key: int, row: int) -> str:
    return f"{key},2026-01-01T00:00:0{row},{key * ROWS + row},{row / 8}\n"


def pieces_of(path: Path, lines: list[str]) -> list[dict[str, Any]]:
    """A slice for each ``ROWS`` lines of a file that is written here."""
    texts = ["".join(lines[at : at + ROWS]) for at in range(0, len(lines), ROWS)]
    path.write_text("key,when,n,x\n" + "".join(texts))
    pieces, offset = [], len("key,when,n,x\n")
    for number, text in enumerate(texts):
        place = {"offset": offset, "length": len(text.encode()), "first_row": number * ROWS, "rows": ROWS}
        pieces.append({"name": path.name, "path": str(path), "format": "csv", **place})
        offset += len(text.encode())
    return pieces


def read(piece: dict[str, Any], *others: dict[str, Any], start: int = 0) -> Any:
    group = [piece, *others]
    return slices.read_rows(group, start, sum(one["rows"] for one in group), CsvOptions().model_dump(), SCHEMA)


def read_alone(piece: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(csv_rows._Memory, "ahead", read_ahead.ReadAhead())
        return read(piece)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each call of the parser; and nothing is remembered of another test."""
    sizes: list[int] = []
    parse = csv_parsing.arrow_table

    def counted(data: bytes, *rest: Any) -> Any:
        sizes.append(len(data))
        return parse(data, *rest)

    monkeypatch.setattr(csv_rows._Memory, "ahead", read_ahead.ReadAhead())
    monkeypatch.setattr(slices._Memory, "columns", {})
    monkeypatch.setattr(csv_parsing, "arrow_table", counted)
    return sizes


def test_slices_of_many_keys_are_parsed_twice_in_all_and_hold_what_they_hold_alone(
    tmp_path: Path, parsed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(KEYS) for row in range(ROWS)])
    frames = [read(piece) for piece in pieces[::2]]
    assert len(parsed) == 2
    for frame, piece in zip(frames, pieces[::2], strict=True):
        pd.testing.assert_frame_equal(frame, read_alone(piece, monkeypatch))


@pytest.mark.parametrize(
    "odd",
    [
        "7,2026-01-01T00:00:00,many,1.5\n",  # widens its column
        "7,2026-01-01T00:00:00,,1.5\n",  # makes whole numbers floats
        '7,2026-01-01T00:00:00,1,"1.5"\n',
        "\n7,2026-01-01T00:00:00,1,1.5\n",  # a blank line
        "7,2026-01-01T00:00:00,1,NA\n",
    ],
)
def test_an_odd_row_changes_its_own_slice_and_no_other(
    tmp_path: Path, parsed: list[int], monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    lines = [line(key, row) for key in range(KEYS) for row in range(ROWS)]
    lines[9 * ROWS + 3] = odd
    pieces = pieces_of(tmp_path / "a.csv", lines)
    for piece in pieces:
        pd.testing.assert_frame_equal(read(piece), read_alone(piece, monkeypatch))
    assert parsed


def test_a_bad_row_is_named_as_if_its_slice_had_been_read_alone(tmp_path: Path, parsed: list[int]) -> None:
    lines = [line(key, row) for key in range(KEYS) for row in range(ROWS)]
    lines[9 * ROWS + 3] = "7,too short\n"
    pieces = pieces_of(tmp_path / "a.csv", lines)
    assert [len(read(piece)) for piece in pieces[:9]] == [ROWS] * 9
    with pytest.raises(csv_records.UnreadableRowsError, match="row 48: expected 4 fields, found 2"):
        read(pieces[9])
    assert len(read(pieces[9], start=4)) == 1
    assert [len(read(piece)) for piece in pieces[10:]] == [ROWS] * (KEYS - 10)
    assert parsed


def test_the_runs_of_a_key_are_read_together_each_from_its_own_block(tmp_path: Path, parsed: list[int]) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(KEYS) for row in range(ROWS)])
    half = KEYS // 2
    numbers = [
        read(one, other)["n"].tolist() for one, other in zip(pieces[:half], reversed(pieces[half:]), strict=True)
    ]
    assert numbers[3] == [*range(3 * ROWS, 4 * ROWS), *range((KEYS - 4) * ROWS, (KEYS - 3) * ROWS)]
    assert sorted(number for found in numbers for number in found) == list(range(KEYS * ROWS))
    assert parsed


def test_slices_that_lie_far_apart_are_read_alone(tmp_path: Path, parsed: list[int]) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(4000) for row in range(ROWS)])
    for piece in pieces[::500]:
        assert len(read(piece)) == ROWS
    assert len(parsed) == 8
    assert max(parsed) < 200


def test_a_missing_value_of_another_key_in_the_block_leaves_whole_numbers_whole(
    tmp_path: Path, parsed: list[int]
) -> None:
    lines = [line(key, row) for key in range(KEYS) for row in range(ROWS)]
    lines[9 * ROWS + 3] = "7,2026-01-01T00:00:00,,1.5\n"
    frames = [read(piece) for piece in pieces_of(tmp_path / "a.csv", lines)]
    assert [str(frame["n"].dtype) for frame in frames] == ["int64"] * 9 + ["float64"] + ["int64"] * (KEYS - 10)
    assert len(parsed) == 2


def test_what_a_script_does_to_its_frame_reaches_no_later_one(tmp_path: Path, parsed: list[int]) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(KEYS) for row in range(ROWS)])
    first, second = read(pieces[1]), read(pieces[2])
    second["x"] = -1.0
    second.iloc[0, 0] = -7
    first.columns.name = "also mine"
    second.columns.name = "mine"
    second.columns = ["a", "b", "c", "d"]
    later = [read(piece) for piece in (pieces[2], pieces[3])]
    assert [list(frame.columns) for frame in (first, *later)] == [["key", "when", "n", "x"]] * 3
    assert [frame.columns.name for frame in later] == [None] * 2
    assert later[0]["key"].tolist() == [2] * ROWS
    assert later[0]["x"].tolist() == [row / 8 for row in range(ROWS)]
    assert parsed


def test_a_script_cannot_write_into_the_index_that_its_frames_share(tmp_path: Path, parsed: list[int]) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(KEYS) for row in range(ROWS)])
    first, second = read(pieces[1]), read(pieces[2])
    assert first.columns._engine is second.columns._engine, "what pandas learnt of one serves the next"
    with pytest.raises(ValueError, match="read-only"):
        first.columns.values[0] = "written"
    assert list(read(pieces[3]).columns) == ["key", "when", "n", "x"]
    assert parsed


def test_column_names_that_a_script_can_write_into_are_those_of_its_frame_alone(
    tmp_path: Path, parsed: list[int]
) -> None:
    pieces = pieces_of(tmp_path / "a.csv", [line(key, row) for key in range(KEYS) for row in range(ROWS)])
    assert [len(read(piece)) for piece in pieces[:2]] == [ROWS] * 2
    (block,) = csv_rows._Memory.ahead._blocks
    block._whole.columns = pd.Index(SCHEMA["columns"], dtype=object)  # as they are before pandas 3
    read(pieces[2]).columns._data[0] = "written"  # what frame.columns.values was then
    assert [list(read(piece).columns) for piece in pieces[2:4]] == [SCHEMA["columns"]] * 2
    assert len(parsed) == 2
