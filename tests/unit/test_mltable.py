"""An MLTable becomes an ordinary input, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from batchpoint.errors import InputError
from batchpoint.scoring.mltable import resolved
from batchpoint.scoring.spec import InputSpec, Location, OutputSpec, ScoringSpec, ScriptSpec, SplitSpec


def spec_with(table: dict[str, Any] | None, url: str = "/data/table/MLTable") -> ScoringSpec:
    return ScoringSpec(
        job="j",
        python="python",
        script=ScriptSpec(kind="script"),
        input=InputSpec(type="mltable", locations=[Location(url=url, datastore="d")]),
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
    spec = resolved(spec_with({"paths": [{"pattern": "./**/*.csv"}]}, "s3://bucket/table"))
    assert [location.url for location in spec.input.locations] == ["s3://bucket/table"]
    assert (spec.input.include, spec.input.recursive) == (["**/*.csv"], True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"paths": []}, "names no paths"),
        ({"paths": [{"url": "x"}]}, "by 'url'"),
        ({"paths": [{"file": "x"}], "transformations": ["read_parquet", {"take": 5}]}, "'take' is not supported"),
        ({"paths": [{"file": "x"}], "transformations": [{"read_delta_lake": None}]}, "'read_delta_lake'"),
        ({"paths": [{"file": "x"}], "transformations": [{"read_parquet": {"include_path_column": True}}]}, "Leave it"),
        ({"paths": [{"file": "x"}], "transformations": [{"read_delimited": {"encoding": "klingon"}}]}, "not known"),
    ],
)
def test_what_cannot_be_honoured_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved(spec_with(table))
