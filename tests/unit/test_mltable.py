"""An MLTable becomes an ordinary input, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from batchpoint.errors import InputError
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec, TableShape


def spec_with(
    table: dict[str, Any] | None, url: str = "/data/table/MLTable", *, datastore: str | None = None
) -> ScoringSpec:
    return ScoringSpec(
        job="j",
        python="python",
        script=ScriptSpec(kind="script", takes="dataframe"),
        input=InputSpec(type="mltable", locations=[Location(url=url, datastore=datastore)]),
        split=SplitSpec(by="bytes"),
        output=OutputSpec(folder=Location(url="/out")),
        mltable=table,
    )


def test_paths_and_the_reader_become_locations_and_csv_options() -> None:
    table = {
        "paths": [{"file": "./a.csv"}, {"folder": "more/"}, {"pattern": "x/*.csv"}, {"file": "/abs.csv"}],
        "transformations": [{"read_delimited": {"delimiter": ";", "encoding": "iso88591", "header": "no_header"}}],
    }
    spec = resolved(spec_with(table))
    urls = [location.url for location in spec.input.locations]
    assert urls == ["/data/table/a.csv", "/data/table/more/", "/data/table/x/*.csv", "/abs.csv"]
    assert (spec.csv.delimiter, spec.csv.encoding, spec.csv.header) == (";", "latin-1", False)
    assert resolved(spec) is spec


def test_patterns_of_a_remote_table_become_globs() -> None:
    spec = resolved(spec_with({"paths": [{"pattern": "./**/*.csv"}]}, "s3://bucket/table", datastore="lake"))
    assert [location.url for location in spec.input.locations] == ["s3://bucket/table"]
    assert (spec.input.include, spec.input.recursive) == (["**/*.csv"], True)


def with_steps(*steps: Any) -> dict[str, Any]:
    return {"paths": [{"folder": "in/"}], "transformations": [*steps]}


def test_transformations_become_the_shape_of_the_table() -> None:
    table = with_steps(
        {
            "read_delimited": {
                "include_path_column": True,
                "infer_column_types": {"column_type_overrides": {"a": "int"}},
            }
        },
        {"skip": 2},
        {"take": 10},
        {"skip": 3},
        {"keep_columns": ["a", "b", "day"]},
        {"drop_columns": "b"},
        {"convert_column_types": [{"columns": ["day"], "column_type": {"datetime": {"formats": ["%Y-%m-%d"]}}}]},
        {"extract_columns_from_partition_format": {"partition_format": "{store}/v1.{kind}.csv"}},
    )
    assert resolved(spec_with(table)).table == TableShape(
        skip=5,
        take=7,
        keep=["a", "b", "day", "store", "kind"],
        drop=["b"],
        types={"a": "int64", "day": "timestamp[ns]"},
        path_column="Path",
        partition_pattern=r"(?:^|.*/)([^/]+?)/v1\.([^/]+?)\.csv",
        partition_columns=["store", "kind"],
    )


def test_a_table_without_transformations_has_no_shape() -> None:
    assert resolved(spec_with(with_steps("read_parquet"))).table is None
    assert resolved(spec_with(with_steps({"read_delimited": {"infer_column_types": False}}))).table == TableShape(
        only_text=True
    )


def test_addresses_of_datastores_were_looked_up_before() -> None:
    table = {"paths": [{"file": "/store/x.csv", "datastore": "other"}]}
    assert resolved(spec_with(table, datastore="lake")).input.locations == [
        Location(url="/store/x.csv", datastore="other")
    ]


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret.csv"])
def test_a_table_in_a_datastore_does_not_lead_out_of_it(path: str) -> None:
    with pytest.raises(InputError, match="outside its folder"):
        resolved(spec_with({"paths": [{"file": path}]}, datastore="lake"))


def test_a_script_that_takes_paths_cannot_be_given_transformed_rows() -> None:
    spec = spec_with(with_steps("read_parquet", {"take": 5}))
    paths = spec.model_copy(update={"script": ScriptSpec(kind="script", takes="paths")})
    with pytest.raises(InputError, match="mini_batch_type"):
        resolved(paths)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"paths": []}, "names no paths"),
        ({"paths": [{"url": "x"}]}, "by 'url'"),
        (with_steps({"read_delta_lake": None}), "'read_delta_lake'"),
        (with_steps({"take": 5}), "'take' is not supported as number 1"),
        (with_steps("read_parquet", {"filter": "col('x') > 1"}), "'filter' is not supported"),
        (with_steps("read_parquet", {"take": -1}), "a number of rows"),
        (with_steps("read_parquet", {"keep_columns": {"pattern": "x"}}), "names of columns"),
        (with_steps("read_parquet", {"convert_column_types": {"columns": "x", "column_type": "int"}}), "for csv"),
        (
            with_steps("read_delimited", {"convert_column_types": {"columns": "x", "column_type": "stream_info"}}),
            "'stream_info'",
        ),
        (
            with_steps("read_parquet", {"extract_columns_from_partition_format": "{day:yyyy}/x.csv"}),
            "partition_format",
        ),
        (with_steps({"read_parquet": {"unknown": True}}), "Leave it"),
        (with_steps({"read_delimited": {"encoding": "klingon"}}), "not known"),
        (with_steps({"read_delimited": {"header": "from_first_file"}}), "from_first_file"),
    ],
)
def test_what_cannot_be_honoured_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved(spec_with(table))
