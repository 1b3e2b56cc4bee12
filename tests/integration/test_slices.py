"""What a worker reads of tabular files."""

from __future__ import annotations

import errno
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchpoint.entities.endpoints import CsvOptions
from batchpoint.scoring import csv_records, json_rows, parquet_rows, slice_bytes, slices, tabular, worker
from batchpoint.scoring.mini_batches import InputFile
from batchpoint.scoring.tabular import Format


def read(
    path: Path,
    schema: dict[str, Any] | None = None,
    *,
    csv: CsvOptions | None = None,
    size: int = 1 << 20,
    part: tuple[int, int] | None = None,
) -> Any:
    csv = csv or CsvOptions()
    kind: Format | None = tabular.format_of(path.name)
    assert kind
    file = tabular.prepared(InputFile(path.name, str(path), path.stat().st_size), kind, csv, path.parent)
    head = tabular.head_of(file, kind, csv)
    pieces = [
        {"name": file.name, "path": file.path, "format": kind, **cut._asdict()}
        for cut in tabular.cut(file, kind, csv, head, size=size, rows=None)
    ]
    start, stop = part or (0, sum(piece["rows"] for piece in pieces))
    pinned = schema or {"columns": head.columns, "types": head.types}
    return slices.read_rows(pieces, start, stop, csv.model_dump(), pinned)


def test_a_text_column_keeps_the_texts_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('holiday,n\nNone,1\nNA,2\nnan,\n"",4\n,NaN\n')
    frame = read(path)
    assert frame["holiday"].tolist()[:4] == ["None", "NA", "nan", ""]
    assert pd.isna(frame["holiday"][4])
    assert frame["n"].isna().tolist() == [False, False, True, False, True]


def test_only_the_null_values_that_were_named_are_missing_in_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,n\nNA,1\n,NA\nx,3\n")
    frame = read(path, csv=CsvOptions(null_values=["NA"]))
    assert frame["t"].isna().tolist() == [True, False, False]
    assert frame["n"].isna().tolist() == [False, True, False]


def test_a_slice_that_does_not_fit_the_guessed_types_is_widened(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n,m\n" + "1,1\n" * 5 + "2.5,x\n")
    frame = read(path, {"columns": ["n", "m"], "types": ["int64", "int64"]})
    assert frame["n"].tolist() == [1, 1, 1, 1, 1, 2.5]
    assert frame["m"].tolist() == ["1", "1", "1", "1", "1", "x"]


def test_a_value_that_does_not_fit_the_signature_is_named_and_its_neighbours_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\nabc\n3\n")
    schema = {"columns": ["n"], "types": ["double"], "strict": ["n"]}
    with pytest.raises(
        csv_records.UnreadableRowsError, match=r"a\.csv, row 1: column 'n' holds 'abc', which is not double"
    ):
        read(path, schema)
    assert read(path, schema, part=(0, 1))["n"].tolist() == [1.0]
    assert read(path, schema, part=(2, 3))["n"].tolist() == [3.0]


def test_a_ragged_row_is_named_with_the_fields_expected_and_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n1,2,3\n4,5\n6,7,8\n")
    with pytest.raises(csv_records.UnreadableRowsError, match=r"a\.csv, row 1: expected 3 fields, found 2"):
        read(path)
    assert read(path, part=(2, 3))["c"].tolist() == [8]


def test_a_row_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"t\nab\n\xff\xfe\ncd\n")
    with pytest.raises(csv_records.UnreadableRowsError, match="row 1: not UTF-8"):
        read(path)
    assert read(path, part=(0, 1))["t"].tolist() == ["ab"]


def test_a_quote_that_is_never_closed_is_an_error_and_swallows_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n3,"4\n5,6\n7,8\n')
    with pytest.raises(csv_records.UnreadableRowsError, match="row 1: a quote is never closed"):
        read(path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "windows-1252"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("name,n\nGötz,1\nÉmile,2\n".encode(encoding))
    assert read(path, csv=CsvOptions(encoding=encoding))["name"].tolist() == ["Götz", "Émile"]


def test_a_compressed_file_is_cut_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"n\n" + b"".join(b"%d\n" % i for i in range(1000))))
    assert read(path, size=100)["n"].tolist() == list(range(1000))


def test_a_damaged_archive_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"n\n" + bytes(range(48, 58)) * 1000)[:-20])
    with pytest.raises(csv_records.UnreadableRowsError, match="cannot be decompressed"):
        read(path)


def test_headerless_files_take_the_names_given_or_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,x\n2,y\n")
    assert list(read(path, csv=CsvOptions(header=False)).columns) == ["0", "1"]
    named = read(path, csv=CsvOptions(header=False, column_names=["n", "t"]))
    assert named.to_dict("list") == {"n": [1, 2], "t": ["x", "y"]}


def test_jsonl_and_json_are_read_by_rows(tmp_path: Path) -> None:
    rows = [{"n": i, "t": f"x{i}"} for i in range(50)]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n\n".join(json.dumps(row) for row in rows))
    array = tmp_path / "b.json"
    array.write_text(json.dumps(rows))
    for path in (lines, array):
        assert read(path, size=100).to_dict("records") == rows
        assert read(path, size=100, part=(7, 9)).to_dict("records") == rows[7:9]


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(csv_records.UnreadableRowsError, match=r"a\.jsonl, row 1: not valid JSON"):
        read(path)
    assert read(path, part=(2, 3))["n"].tolist() == [3]


def test_parquet_is_cut_inside_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"n": range(1000), "t": [f"x{i}" for i in range(1000)]})
    frame.to_parquet(path, row_group_size=300)
    assert read(path, size=500)["n"].tolist() == list(range(1000))
    assert read(path, size=500, part=(295, 305))["t"].tolist() == [f"x{i}" for i in range(295, 305)]


class Stale:
    """A file that is still open, on a file system that was away: it can never be read again."""

    def __init__(self, metadata: Any = None) -> None:
        self.metadata = metadata

    def seek(self, *_: Any, **__: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    read_row_group = seek

    def close(self) -> None:
        pass


def test_a_file_that_can_no_longer_be_read_is_opened_anew_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n2\n")
    slice_bytes._Memory.files[str(path)] = Stale()
    with pytest.raises(OSError, match="Stale"):
        read(path)
    assert read(path)["n"].tolist() == [1, 2]
    path = tmp_path / "a.parquet"
    pd.DataFrame({"n": [1, 2]}).to_parquet(path)
    read(path)
    monkeypatch.setattr(parquet_rows._Memory, "file", Stale(parquet_rows._Memory.file.metadata))
    monkeypatch.setattr(parquet_rows._Memory, "group_key", None)
    with pytest.raises(OSError, match="Stale"):
        read(path)
    assert read(path)["n"].tolist() == [1, 2]


def test_without_pyarrow_pandas_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,n,b,x\nNone,1,True,1.5\nNA,2,False,NA\n")
    whole = read(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    other = read(path)
    assert other.astype(object).equals(whole.astype(object))
    assert [dtype.kind for dtype in other.dtypes[1:]] == ["i", "b", "f"]
    with pytest.raises(csv_records.UnreadableRowsError, match="column 't' holds 'None'"):
        read(path, {"columns": ["t", "n", "b", "x"], "types": ["double", "int64", "bool", "double"], "strict": ["t"]})


def test_the_worker_side_imports_only_the_standard_library_at_its_top() -> None:
    for name in ("slices", "mlflow_script", "model_map", "lean_predict"):
        code = f"import runpy; runpy.run_path({worker.__file__!r})['load_sibling']({name!r})"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]},
        {"dataframe_records": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
        {"dataframe_split": {"index": [0, 1], "columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}},
    ],
)
def test_json_is_read_in_the_forms_that_mlflow_takes(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert read(path).to_dict("records") == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize("row", [[1], [1, "x", 2], {"a": 1}, 7])
def test_json_rows_with_more_or_fewer_values_than_columns_are_refused_with_a_reason(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"columns": ["a", "b"], "data": [[1, "x"], row]}))
    with pytest.raises(csv_records.UnreadableRowsError, match=r"a\.json has rows of more or fewer values"):
        json_rows.read_json_array(str(path))


def test_what_a_script_does_to_nested_values_of_json_is_gone_when_they_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"tags": ["x"], "more": {"deep": [number]}} for number in range(4)]))
    first = read(path)
    first["tags"].iloc[0].append("mine")
    first["more"].iloc[1]["deep"].append("mine")
    again = read(path)
    assert again["tags"].tolist() == [["x"]] * 4
    assert again["more"].tolist() == [{"deep": [number]} for number in range(4)]


def test_without_pyarrow_a_number_is_the_one_that_stands_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    texts = ["0.09158478740507359", "", "1e-310", "123456789.12345678", "-0.0", "NA", "7"]
    path.write_text("x,y\n" + "".join(f"{text},1\n" for text in texts))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    exact = pd.to_numeric
    monkeypatch.setattr(pd, "to_numeric", lambda found: exact(found) * (1 + 2**-52))  # as before pandas 3
    found = read(path, {"columns": ["x", "y"], "types": ["double", "double"]})["x"]
    assert [repr(value) for value in found] == [
        repr(float(text)) if text not in {"", "NA"} else "nan" for text in texts
    ]
