"""Files of predictions → tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from batchpoint.errors import RequestError

Engine = Literal["pandas", "polars", "arrow"]


def read_table(path: Path, *, engine: Engine = "pandas", azureml: bool = False) -> Any:
    """A file of predictions as a pandas or polars DataFrame, or an Arrow table.

    In csv only an empty, unquoted cell means "missing": a text column keeps the text ``None``. ``azureml`` reads
    Azure ML's bytes: values separated by spaces, no header.

    Raises:
        RequestError: the file's ending is not csv, jsonl or parquet, or the engine's package is not installed.
    """
    table = _arrow(path, azureml=azureml)
    if engine == "arrow":
        return table
    try:
        if engine == "polars":
            import polars as pl

            return pl.from_arrow(table)
        if engine == "pandas":
            return table.to_pandas()
    except ModuleNotFoundError as missing:
        message = f"engine={engine!r} needs the package {missing.name}: pip install 'batchpoint[{engine}]'."
        raise RequestError(message) from None
    raise RequestError(f"engine={engine!r} is not known. Use 'pandas', 'polars' or 'arrow'.")


def _arrow(path: Path, *, azureml: bool) -> Any:
    ending = path.suffix.lower()
    if azureml or ending == ".csv":
        from pyarrow import csv

        if path.stat().st_size == 0:
            import pyarrow as pa

            return pa.table({})
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(autogenerate_column_names=azureml),
            parse_options=csv.ParseOptions(delimiter=" " if azureml else ",", newlines_in_values=not azureml),
            convert_options=csv.ConvertOptions(
                null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    if ending == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path)
    if ending in (".jsonl", ".ndjson"):
        from pyarrow import json as arrow_json

        return arrow_json.read_json(path)
    raise RequestError(f"{path.name}: only csv, jsonl and parquet are read as tables. Download the file instead.")
