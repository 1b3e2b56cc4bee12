"""The ledger keeps what was committed, and nothing that was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchpoint.scoring.ledger import FailedItem, Ledger, Part, Record
from batchpoint.scoring.mini_batches import ErrorInfo


def record(index: int, segment: str = "a.rows") -> Record:
    error = ErrorInfo("ValueError", 'bad "quote"\n', "Traceback…")
    return Record(
        mini_batch=index,
        items=4,
        ok=2,
        failed=2,
        parts=(Part(0, 2, segment, 10 * index, 10, 2, 2, "csv", ("file", "prediction"), None),),
        failures=(FailedItem(2, "é.csv", 7, 4, error, {"id": "x"}), FailedItem(3, "é.csv", 8, 4, error)),
        files={"é.csv": (4, 2, 2)},
    )


def with_segment(folder: Path) -> Path:
    (folder / "segments").mkdir()
    (folder / "segments" / "a.rows").write_bytes(b"x" * 100)
    return folder


def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    ledger = Ledger.open(with_segment(tmp_path))
    for index in (3, 1, 2):
        ledger.append(record(index))
    ledger.close()
    again = Ledger.open(tmp_path)
    assert list(again.in_order()) == [record(1), record(2), record(3)]
    again.close()


def test_a_group_is_one_line_and_is_written_when_it_is_full(tmp_path: Path) -> None:
    ledger = Ledger.open(with_segment(tmp_path))
    for index in range(Ledger.GROUP):
        ledger.append(record(index))
    ledger.flush()  # waits for the thread that writes
    assert (tmp_path / "ledger.jsonl").read_bytes().count(b"\n") == 1
    assert len(Ledger.read(tmp_path)) == Ledger.GROUP
    ledger.close()


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_is_cut_off_and_writing_goes_on_after_the_sound_ones(tmp_path: Path, keep: int) -> None:
    ledger = Ledger.open(with_segment(tmp_path))
    ledger.append(record(0))
    ledger.flush()
    sound = (tmp_path / "ledger.jsonl").stat().st_size
    ledger.append(record(1))
    ledger.close()
    whole = (tmp_path / "ledger.jsonl").read_bytes()
    (tmp_path / "ledger.jsonl").write_bytes(whole[: sound + keep] if keep > 0 else whole[:keep])
    again = Ledger.open(tmp_path)
    assert list(again.records) == [0]
    again.append(record(1))
    again.close()
    assert (tmp_path / "ledger.jsonl").read_bytes() == whole


def test_a_line_with_a_flipped_bit_ends_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger.open(with_segment(tmp_path))
    for index in range(3):
        ledger.append(record(index))
        ledger.flush()
    ledger.close()
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"[[1,4,2,2", b"[[1,4,3,1")
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(lines))
    assert list(Ledger.read(tmp_path)) == [0]


def test_a_record_whose_segment_is_gone_is_not_written(tmp_path: Path) -> None:
    ledger = Ledger.open(with_segment(tmp_path))
    ledger.append(record(0, segment="nowhere.rows"))
    with pytest.raises(FileNotFoundError):
        ledger.flush()
    assert Ledger.read(tmp_path) == {}
    ledger.append(record(1))
    ledger.close()
    assert list(Ledger.read(tmp_path)) == [1], "what came after the failure can be read"
