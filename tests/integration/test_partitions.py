"""With partition keys a mini-batch holds what shares a key, all of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from batchpoint.errors import InputError
from batchpoint.scoring import slices
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.planning import plan
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec
from batchpoint.storage.datastores import Stores


def spec_of(
    folder: Path, keys: list[str], takes: Literal["paths", "dataframe"], partition_format: str | None = None
) -> ScoringSpec:
    split = SplitSpec(by="bytes", bytes=100, partition_keys=keys, partition_format=partition_format)
    spec = ScoringSpec(
        job="j",
        python="python",
        script=ScriptSpec(kind="script", takes=takes),
        input=InputSpec(locations=[Location(url=str(folder))], recursive=True),
        split=split,
        output=OutputSpec(folder=Location(url="/nowhere")),
    )
    return resolved(spec)


def frames_of(spec: ScoringSpec, folder: Path) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    found = plan(spec, Stores(), folder / "run")
    batches = list(found)
    assert found.schema
    return [
        (
            dict(batch.partition),
            slices.read_rows(_sent(batch), 0, batch.items, spec.csv.model_dump(), asdict(found.schema)),
        )
        for batch in batches
    ]


def _sent(batch: MiniBatch) -> list[dict[str, Any]]:
    return [{**asdict(piece), "name": piece.file.name, "path": piece.file.path} for piece in batch.slices]


def sales(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "store": [n * 7 % 5 for n in range(rows)],
            "brand": [("x", 'a "b",\nc', "")[n * 3 // 10 % 3] for n in range(rows)],
            "sold": range(rows),
        }
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_each_mini_batch_holds_all_rows_of_one_key(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "in"
    data.mkdir()
    frame = sales(200)
    for number, part in enumerate((frame[:130], frame[130:])):
        path = data / f"{number}.{kind}"
        if kind == "csv":
            part.to_csv(path, index=False)
        elif kind == "parquet":
            part.to_parquet(path, row_group_size=50)
        else:
            part.to_json(path, orient="records", lines=kind == "jsonl")
    found = frames_of(spec_of(data, ["store", "brand"], "dataframe"), tmp_path)
    missing = kind == "csv"  # an unquoted empty text
    expected = frame.assign(brand=frame["brand"].replace("", None)) if missing else frame
    groups = dict(iter(expected.groupby(["store", "brand"], dropna=False, sort=False)))
    assert len(found) == len(groups)
    for keys, rows in found:
        brand = keys["brand"] if keys["brand"] is not None else float("nan")
        [wanted] = [
            group for (store, name), group in groups.items()
            if store == keys["store"] and (name == brand or (pd.isna(name) and pd.isna(brand)))
        ]  # fmt: skip
        assert rows["sold"].tolist() == wanted["sold"].tolist()


def test_sorted_input_is_one_run_of_rows_for_each_key(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    sales(500).sort_values("store").to_csv(data / "a.csv", index=False)
    batches = list(plan(spec_of(data, ["store"], "dataframe"), Stores(), tmp_path / "run"))
    assert [len(batch.slices) for batch in batches] == [1] * 5
    assert [dict(batch.partition)["store"] for batch in batches] == [0, 1, 2, 3, 4]


def test_rows_that_cannot_be_read_stay_in_the_input(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    (data / "a.csv").write_bytes(b"store,n\n1,2\n1\n\xff,3\n1,4\n")
    batches = list(plan(spec_of(data, ["store"], "dataframe"), Stores(), tmp_path / "run"))
    assert sum(batch.items for batch in batches) == 4


def test_files_are_grouped_by_parts_of_their_names(tmp_path: Path) -> None:
    data = tmp_path / "in"
    for name in ("u1/winter/a.wav", "u1/summer/b.wav", "u2/winter/c.wav", "u1/winter/d.wav", "stray.txt"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    spec = spec_of(data, ["user", "season"], "paths", "{user}/{season}/{file}.wav")
    batches = list(plan(spec, Stores(), tmp_path / "run"))
    assert [(dict(b.partition), [file.name for file in b.files]) for b in batches] == [
        ({"user": "u1", "season": "summer"}, ["u1/summer/b.wav"]),
        ({"user": "u1", "season": "winter"}, ["u1/winter/a.wav", "u1/winter/d.wav"]),
        ({"user": "u2", "season": "winter"}, ["u2/winter/c.wav"]),
        ({}, ["stray.txt"]),
    ]
    assert batches[-1].unreadable


def test_rows_are_grouped_by_columns_and_parts_of_names_together(tmp_path: Path) -> None:
    for store in ("east", "west"):
        (tmp_path / "in" / store).mkdir(parents=True)
        (tmp_path / "in" / store / "1.csv").write_text("brand,n\n1,2\n2,3\n1,4\n")
    found = frames_of(spec_of(tmp_path / "in", ["store", "brand"], "dataframe", "{store}/1.csv"), tmp_path)
    assert [(keys["store"], keys["brand"], frame["n"].tolist()) for keys, frame in found] == [
        ("east", 1, [2, 4]), ("east", 2, [3]), ("west", 1, [2, 4]), ("west", 2, [3]),
    ]  # fmt: skip
    assert found[0][1]["store"].tolist() == ["east", "east"]


@pytest.mark.parametrize(("takes", "message"), [("dataframe", "no column shop"), ("paths", "partition_format")])
def test_keys_that_are_nowhere_are_named(tmp_path: Path, takes: Literal["paths", "dataframe"], message: str) -> None:
    (tmp_path / "a.csv").write_text("store\n1\n")
    with pytest.raises(InputError, match=message):
        list(plan(spec_of(tmp_path, ["shop"], takes), Stores(), tmp_path / "run"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_whose_keys_take_turns_are_gathered_and_keep_their_numbers(tmp_path: Path, end: str) -> None:
    data = tmp_path / "in"
    data.mkdir()
    lines = [f'{n % 7},"line one{end}line ""two"" of {n}",{n}' for n in range(400)]
    lines[100] = "2,too,many,fields"
    lines[200] = "\udcff,x,200"
    lines[300] = f"{end}{lines[300]}"  # a blank line is no row
    text = end.join(["store,note,n", *lines])
    (data / "a.csv").write_bytes(text.encode(errors="surrogateescape"))
    spec = spec_of(data, ["store"], "dataframe")
    batches = list(plan(spec, Stores(), tmp_path / "run"))
    rows = {dict(batch.partition)["store"]: numbers_of(batch) for batch in batches}
    assert rows == {
        **{store: [n for n in range(400) if n % 7 == store and n != 200] for store in range(7)},
        None: [200],
    }
    clean = next(batch for batch in batches if dict(batch.partition)["store"] == 1)
    schema = {"columns": ["store", "note", "n"], "types": ["int64", "string", "int64"]}
    frame = slices.read_rows(_sent(clean), 0, clean.items, spec.csv.model_dump(), schema)
    assert frame["n"].tolist() == numbers_of(clean)
    assert frame["note"][0] == f'line one{end}line "two" of 1'


def test_an_unreadable_row_among_gathered_ones_is_told_by_its_number_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("store,n\n" + "".join(f"{n % 5},{n}{',9' * (n == 123)}\n" for n in range(300)))
    spec = spec_of(tmp_path / "a.csv", ["store"], "dataframe")
    batch = next(b for b in plan(spec, Stores(), tmp_path / "run") if dict(b.partition)["store"] == 3)
    with pytest.raises(slices.csv_records.UnreadableRowsError, match=r"a\.csv, row 123: expected 2 fields, found 3"):
        slices.read_rows(_sent(batch), 0, batch.items, spec.csv.model_dump(), None)


def numbers_of(batch: MiniBatch) -> list[int]:
    return [number for piece in batch.slices for number in piece.row_numbers(0, piece.rows)]


def test_true_is_not_the_key_1(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"store": {text}}}\n' for text in ("true", "1", "true", "false", "0")))
    batches = list(plan(spec_of(tmp_path, ["store"], "dataframe"), Stores(), tmp_path / "run"))
    assert [(repr(dict(batch.partition)["store"]), batch.items) for batch in batches] == [
        ("True", 2), ("1", 1), ("False", 1), ("0", 1),
    ]  # fmt: skip
