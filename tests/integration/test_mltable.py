"""What `run()` receives of an MLTable: the rows and columns that its transformations leave."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchpoint.errors import InputError
from batchpoint.scoring import csv_records, slices
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.planning import plan
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec
from batchpoint.storage.datastores import Stores


def spec_of(folder: Path, table: dict[str, Any], split: SplitSpec) -> ScoringSpec:
    return ScoringSpec(
        job="j",
        python="python",
        script=ScriptSpec(kind="script", takes="dataframe"),
        input=InputSpec(type="mltable", locations=[Location(url=str(folder))]),
        split=split,
        output=OutputSpec(folder=Location(url="/nowhere")),
        mltable=table,
    )


def frames_of(folder: Path, table: dict[str, Any], split: SplitSpec | None = None) -> list[pd.DataFrame]:
    """The frames of all mini-batches, and of each row by itself: how rows are cut must not matter."""
    spec = resolved(spec_of(folder, table, split or SplitSpec(by="bytes", bytes=20)))
    found = plan(spec, Stores(), folder / "run")
    batches = list(found)
    assert found.schema
    schema = asdict(found.schema)
    frames = []
    for batch in batches:
        assert batch.unreadable is None
        pieces = _as_sent(batch)
        whole = slices.read_rows(pieces, 0, batch.items, spec.csv.model_dump(), schema)
        single = [slices.read_rows(pieces, n, n + 1, spec.csv.model_dump(), schema) for n in range(batch.items)]
        pd.testing.assert_frame_equal(pd.concat(single, ignore_index=True), whole)
        frames.append(whole)
    return frames


def _as_sent(batch: MiniBatch) -> list[dict[str, Any]]:
    return [
        {
            "name": piece.file.name, "path": piece.file.path, "format": piece.format, "offset": piece.offset,
            "length": piece.length, "first_row": piece.first_row, "rows": piece.rows,
        }
        for piece in batch.slices
    ]  # fmt: skip


def write(folder: Path, kind: str, name: str, first: int, rows: int) -> None:
    frame = pd.DataFrame({"n": range(first, first + rows), "text": [f'"{i}",\nx' for i in range(rows)]})
    path = folder / f"{name}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, row_group_size=4)


READERS = {"csv": "read_delimited", "jsonl": "read_json_lines", "parquet": "read_parquet"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "split", [SplitSpec(by="bytes", bytes=40), SplitSpec(by="rows", rows=3)], ids=["bytes", "rows"]
)
@pytest.mark.parametrize(("skip", "take"), [(0, 4), (3, 5), (9, 10), (12, 100), (29, 1)])
def test_skip_and_take_count_over_all_files(tmp_path: Path, kind: str, split: SplitSpec, skip: int, take: int) -> None:
    for number in range(3):
        write(tmp_path, kind, str(number), 10 * number, 10)
    table = {"paths": [{"pattern": f"*.{kind}"}], "transformations": [READERS[kind], {"skip": skip}, {"take": take}]}
    rows = pd.concat(frames_of(tmp_path, table, split))["n"].tolist()
    assert rows == list(range(30))[skip : skip + take]


def test_skipping_every_row_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "csv", "a", 0, 3)
    table = {"paths": [{"file": "a.csv"}], "transformations": ["read_delimited", {"skip": 3}]}
    with pytest.raises(InputError, match="leave no row"):
        frames_of(tmp_path, table)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_are_kept_dropped_and_made_of_file_names(tmp_path: Path, kind: str) -> None:
    for store in ("east", "west"):
        write(tmp_path / store, kind, "2024", 0, 2)
    table = {
        "paths": [{"pattern": f"./**/*.{kind}"}],
        "transformations": [
            {READERS[kind]: {"include_path_column": True, "path_column": "source"}},
            {"extract_columns_from_partition_format": {"partition_format": f"{{store}}/{{year}}.{kind}"}},
            {"keep_columns": ["store", "year", "source", "n"]},
            {"drop_columns": ["year"]},
        ],
    }
    frame = pd.concat(frames_of(tmp_path, table), ignore_index=True)
    assert list(frame.columns) == ["store", "source", "n"]
    assert frame["store"].tolist() == ["east", "east", "west", "west"]
    assert frame["source"].tolist()[::2] == [f"east/2024.{kind}", f"west/2024.{kind}"]


def test_columns_of_csv_are_converted_and_a_value_that_does_not_fit_fails_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("zip,when,flag,n\n01234,2024-01-31,true,1\n99999,2024-02-01,false,2\n")
    change = [
        {"columns": ["zip"], "column_type": "string"},
        {"columns": "when", "column_type": {"datetime": {"formats": ["%Y-%m-%d"]}}},
        {"columns": ["n"], "column_type": "float"},
    ]
    table = {"paths": [{"file": "a.csv"}], "transformations": ["read_delimited", {"convert_column_types": change}]}
    [frame] = frames_of(tmp_path, table, SplitSpec(by="bytes"))
    assert frame["zip"].tolist() == ["01234", "99999"]
    assert frame["when"].tolist() == [pd.Timestamp("2024-01-31"), pd.Timestamp("2024-02-01")]
    assert (str(frame["n"].dtype), str(frame["flag"].dtype)) == ("float64", "bool")
    (tmp_path / "a.csv").write_text("zip,when,flag,n\n1,2024-01-31,true,1\n2,2024-02-01,false,much\n")
    with pytest.raises(csv_records.UnreadableRowsError, match=r"row 1: column 'n' holds 'much'"):
        frames_of(tmp_path, table, SplitSpec(by="bytes"))


def test_nothing_is_inferred_when_it_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b\n01;true\n")
    reader = {"read_delimited": {"infer_column_types": False, "delimiter": ";"}}
    [frame] = frames_of(tmp_path, {"paths": [{"file": "a.csv"}], "transformations": [reader]})
    assert frame.loc[0].tolist() == ["01", "true"]


def test_columns_that_the_table_lacks_are_named(tmp_path: Path) -> None:
    write(tmp_path, "csv", "a", 0, 3)
    table = {"paths": [{"file": "a.csv"}], "transformations": ["read_delimited", {"keep_columns": ["n", "price"]}]}
    with pytest.raises(InputError, match=r"name price\. The table has n, text"):
        frames_of(tmp_path, table)


def test_a_file_that_does_not_fit_the_partition_format_is_a_failed_item(tmp_path: Path) -> None:
    write(tmp_path, "csv", "east/1", 0, 3)
    write(tmp_path, "csv", "stray", 0, 3)
    step = {"extract_columns_from_partition_format": {"partition_format": "{store}/1.csv"}}
    table = {"paths": [{"pattern": "**/*.csv"}], "transformations": ["read_delimited", step]}
    spec = resolved(spec_of(tmp_path, table, SplitSpec(by="bytes")))
    errors = [batch.unreadable.type for batch in plan(spec, Stores(), tmp_path / "run") if batch.unreadable]
    assert errors == ["PartitionMismatch"]
