"""An input → its mini-batches."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from batchpoint.errors import DatastoreError, InputError
from batchpoint.scoring import planning
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.planning import Plan, plan
from batchpoint.scoring.spec import InputSpec, Location, ModelSpec, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec
from batchpoint.storage.datastores import Stores


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def spec_of(
    place: object,
    *,
    kind: Literal["script", "mlflow"] = "script",
    takes: Literal["paths", "dataframe"] = "dataframe",
    split: SplitSpec | None = None,
    model: Path | None = None,
    **options: Any,
) -> ScoringSpec:
    described = ModelSpec(name="m", version="1", type="mlflow_model", directory=str(model), path=str(model))
    return ScoringSpec(
        job="j",
        python="python",
        script=ScriptSpec(kind=kind, path=None, takes=takes),
        model=described if model else None,
        input=InputSpec(locations=[Location(url=str(place))], **options),
        split=split or SplitSpec(by="bytes"),
        output=OutputSpec(folder=Location(url="/nowhere")),
    )


def planned(spec: ScoringSpec, tmp_path: Path) -> tuple[Plan, list[MiniBatch]]:
    result = plan(spec, Stores(), tmp_path / "run")
    assert not result.total_known
    batches = list(result)
    assert [batch.index for batch in batches] == list(range(len(batches)))
    assert result.total_known
    assert result.planned_bytes == result.total_bytes
    return result, batches


def with_signature(folder: Path, *columns: tuple[str, str]) -> Path:
    folder.mkdir()
    inputs = json.dumps([{"name": name, "type": kind, "required": True} for name, kind in columns])
    (folder / "MLmodel").write_text(json.dumps({"flavors": {}, "signature": {"inputs": inputs}}))
    return folder


def test_paths_are_given_out_in_chunks_in_listing_order(data: Path, tmp_path: Path) -> None:
    for i in range(5):
        (data / f"f{i}.bin").write_bytes(b"x")
    spec = spec_of(data, takes="paths", split=SplitSpec(by="files", files=2), exclude=["f3*"])
    result, batches = planned_without_bytes(spec, tmp_path)
    assert [[file.name for file in batch.files] for batch in batches] == [["f0.bin", "f1.bin"], ["f2.bin", "f4.bin"]]
    assert [(item.file, item.skipped, item.reason) for item in result.skipped] == [("f3.bin", 1, "excluded by f3*")]


def planned_without_bytes(spec: ScoringSpec, tmp_path: Path) -> tuple[Plan, list[MiniBatch]]:
    result = plan(spec, Stores(), tmp_path / "run")
    return result, list(result)


def test_a_large_file_is_cut_and_small_ones_are_whole(data: Path, tmp_path: Path) -> None:
    (data / "a_big.csv").write_text("n\n" + "12345678\n" * 1000)
    for i in range(10):
        (data / f"small{i}.csv").write_text("n\n1\n2\n")
    _, batches = planned(spec_of(data, split=SplitSpec(by="bytes", bytes=4000)), tmp_path)
    assert [batch.items for batch in batches] == [444, 444, 112, *[2] * 10]


def test_mini_batches_of_rows_hold_no_more_than_that_many(data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("n\n" + "1\n" * 250)
    (data / "b.csv").write_text("n\n" + "1\n" * 30)
    _, batches = planned(spec_of(data, split=SplitSpec(by="rows", rows=100)), tmp_path)
    assert [batch.items for batch in batches] == [100, 100, 80]


def test_asked_for_files_tables_are_given_out_by_files(data: Path, tmp_path: Path) -> None:
    for i in range(3):
        (data / f"{i}.csv").write_text("n\n1\n2\n")
    _, batches = planned(spec_of(data, split=SplitSpec(by="files", files=2)), tmp_path)
    assert [batch.items for batch in batches] == [4, 2]


def test_formats_may_be_mixed_and_are_not_packed_together(data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("n\n1\n")
    (data / "b.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    (data / "c.json").write_text('[{"n": 1}]')
    pd.DataFrame({"n": [1, 2, 3]}).to_parquet(data / "d.pqt")
    _, batches = planned(spec_of(data), tmp_path)
    assert [(batch.slices[0].format, batch.items) for batch in batches] == [
        ("csv", 1), ("jsonl", 2), ("json", 1), ("parquet", 3),
    ]  # fmt: skip


def test_a_file_that_cannot_be_read_is_one_failed_item_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("n\n1\n")
    (data / "b.parquet").write_bytes(b"PAR1 cut off")
    (data / "c.txt").write_text("hello")
    (data / "d.csv").write_text("n\n2\n")
    _, batches = planned(spec_of(data), tmp_path)
    bad = [batch for batch in batches if batch.unreadable]
    assert [(batch.files[0].name, batch.items) for batch in bad] == [("b.parquet", 1), ("c.txt", 1)]
    assert bad[0].unreadable is not None
    assert "not a whole parquet file" in bad[0].unreadable.message
    assert bad[1].unreadable is not None
    assert bad[1].unreadable.message == "File type 'txt' is not supported"
    assert sum(batch.items for batch in batches) == 4


def test_files_without_rows_are_in_the_receipt_and_not_an_error(data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("n\n")
    (data / "b.csv").write_text("")
    (data / "c.csv").write_text("n\n1\n")
    result, batches = planned(spec_of(data), tmp_path)
    assert [batch.items for batch in batches] == [1]
    assert [(item.file, item.items, item.reason) for item in result.skipped] == [
        ("a.csv", 0, "no data rows"), ("b.csv", 0, "empty file"),
    ]  # fmt: skip


def test_an_input_without_any_row_is_an_error(data: Path, tmp_path: Path) -> None:
    (data / "a.csv").write_text("n\n")
    with pytest.raises(InputError, match="holds no data row"):
        plan(spec_of(data), Stores(), tmp_path)


def test_a_model_gets_only_files_that_fit_its_signature(data: Path, tmp_path: Path) -> None:
    model = with_signature(tmp_path / "model", ("age", "double"), ("city", "string"))
    (data / "a.csv").write_text("age,place\n1,x\n")
    (data / "b.csv").write_text("id,age,city\n7,1,None\n")
    (data / "c.csv").write_text("age,city\nold,x\n")
    result, batches = planned(spec_of(data, kind="mlflow", model=model), tmp_path)
    messages = [batch.unreadable.message if batch.unreadable else "" for batch in batches]
    assert "a.csv does not fit the model: missing columns city (string)" in messages[0]
    assert "text in columns age (should be double)" in messages[2]
    assert result.schema is not None
    assert (result.schema.columns, result.schema.types) == (("id", "age", "city"), ("int64", "double", "string"))
    assert result.schema.strict == ("age", "city")


def test_one_bad_value_near_the_top_does_not_refuse_the_file(data: Path, tmp_path: Path) -> None:
    model = with_signature(tmp_path / "model", ("age", "double"))
    (data / "a.csv").write_text("age\nabc\n2\n3\n")
    _, batches = planned(spec_of(data, kind="mlflow", model=model), tmp_path)
    assert [batch.unreadable for batch in batches] == [None]


def test_when_no_file_fits_the_signature_the_job_is_refused_with_the_report(data: Path, tmp_path: Path) -> None:
    model = with_signature(tmp_path / "model", ("age", "double"))
    (data / "a.csv").write_text("years\n1\n")
    with pytest.raises(InputError, match=r"missing columns age \(double\).*Found: years \(int64\)"):
        plan(spec_of(data, kind="mlflow", model=model), Stores(), tmp_path)


def test_images_of_a_model_are_files_and_a_stray_file_among_them_fails(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    for name in ("a.png", "b.txt", "c.JPG"):
        (data / name).write_bytes(b"x")
    result, batches = planned(spec_of(data, kind="mlflow", model=model, split=SplitSpec(by="files")), tmp_path)
    assert result.unit == "files"
    assert [(batch.files[0].name, batch.unreadable is not None) for batch in batches] == [
        ("a.png", False), ("b.txt", True), ("c.JPG", False),
    ]  # fmt: skip


def test_remote_files_are_fetched_as_the_plan_advances(tmp_path: Path) -> None:
    stores = Stores()
    root = f"memory://{uuid.uuid4().hex}"
    for i in range(30):
        stores.write_bytes(f"{root}/{i:02}.csv", b"n\n1\n")
    spec = spec_of(root, split=SplitSpec(by="rows", rows=1))
    result = plan(spec, stores, tmp_path)
    batches = iter(result)
    assert Path(next(batches).slices[0].file.path).read_text() == "n\n1\n"
    assert len(list((tmp_path / "inputs" / "fetched").glob("*.csv"))) < 30
    assert [batch.slices[0].file.name for batch in batches] == [f"{i:02}.csv" for i in range(1, 30)]


def test_a_store_that_breaks_down_stops_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores()
    root = f"memory://{uuid.uuid4().hex}"
    for i in range(20):
        stores.write_bytes(f"{root}/{i:02}.csv", b"n\n1\n")
    result = plan(spec_of(root, split=SplitSpec(by="rows", rows=1)), stores, tmp_path)

    def broken(*_: object) -> None:
        raise DatastoreError("the store is gone")

    monkeypatch.setattr(stores, "fetch", broken)
    with pytest.raises(DatastoreError, match="the store is gone"):
        list(result)


def test_planning_twice_gives_the_same(data: Path, tmp_path: Path) -> None:
    for i in range(5):
        (data / f"{i}.csv").write_text('a,b\n"x\ny",1\n' * (i * 50 + 1))
    spec = spec_of(data, split=SplitSpec(by="bytes", bytes=200))
    assert planned(spec, tmp_path)[1] == planned(spec, tmp_path)[1]


def test_the_size_of_mini_batches_follows_the_input_within_bounds() -> None:
    assert planning.slice_bytes(1000) == 1 << 20
    assert planning.slice_bytes(48 << 20) == 3 << 19
    assert planning.slice_bytes(1 << 40) == 2 << 20


@pytest.mark.parametrize(("first", "told"), [("1.5,2", True), ("0,1", False), ("a,b", False), ("2020,sales", False)])
def test_a_first_line_of_numbers_is_told_to_be_the_header(data: Path, tmp_path: Path, first: str, told: bool) -> None:
    (data / "a.csv").write_text(f"{first}\n3,4\n")
    result, _ = planned(spec_of(data), tmp_path)
    assert [("csv.header" in notice) for notice in result.notices] == [True] * told


def test_a_mini_batch_whose_bytes_were_asked_for_stays_within_one_file(data: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (data / name).write_text("n\n1\n2\n")
    _, asked = planned(spec_of(data, split=SplitSpec(by="bytes", bytes=1 << 20)), tmp_path)
    assert [[piece.file.name for piece in batch.slices] for batch in asked] == [["a.csv"], ["b.csv"]]
    _, chosen = planned(spec_of(data), tmp_path)
    assert [[piece.file.name for piece in batch.slices] for batch in chosen] == [["a.csv", "b.csv"]]
