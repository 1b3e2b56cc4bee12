"""The head of a table, and what a model's signature or an MLTable says of its columns → one schema for all slices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchpoint.errors import InputError
from batchpoint.scoring.mini_batches import TableSchema
from batchpoint.scoring.spec import TableShape
from batchpoint.scoring.tabular import Head

_ARROW_TYPES = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float", "double": "double", "string": "string",
    "binary": "binary", "datetime": "timestamp[ns]",
}  # fmt: skip
"""MLflow's column types in Arrow's words."""


def signature_of(model_path: str) -> tuple[dict[str, Any], ...] | None:
    """The inputs of the signature in a model's ``MLmodel`` file; None when it has none.

    Raises:
        InputError: the file is missing or is not an MLmodel.
    """
    import yaml  # noqa: PLC0415 -- only MLflow models need it

    path = Path(model_path) / "MLmodel"
    try:
        content = yaml.safe_load(path.read_bytes())
        inputs = (content.get("signature") or {}).get("inputs")
        return tuple(json.loads(inputs)) if inputs else None
    except (OSError, yaml.YAMLError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is not a readable MLmodel file: {error}") from None


def shaped(head: Head, shape: TableShape) -> Head:
    """The head as ``run()`` sees it once the MLTable's transformations are done.

    Raises:
        InputError: they name columns that the table lacks.
    """
    made = [*([shape.path_column] if shape.path_column else []), *shape.partition_columns]
    named = [name for name in (*(shape.keep or ()), *shape.drop) if name not in made]
    lacking = [name for name in dict.fromkeys((*named, *shape.types)) if name not in head.columns]
    if lacking and head.columns:
        message = f"The MLTable's transformations name {', '.join(lacking)}. The table has {', '.join(head.columns)}."
        raise InputError(message)
    types = dict(zip(head.columns, head.types, strict=True))
    types = {name: shape.types.get(name, "string" if shape.only_text else kind) for name, kind in types.items()}
    types.update(dict.fromkeys(made, "string"))
    kept = [name for name in shape.keep or types if name in types and name not in shape.drop]
    return Head(tuple(kept), tuple(types[name] for name in kept), head.texts - shape.types.keys(), head.offset)


def schema_of(head: Head, signature: tuple[dict[str, Any], ...] | None, shape: TableShape | None = None) -> TableSchema:
    """The columns of the first file; those of the signature have its types, which are strict.

    So are the types that an MLTable converts columns to. Columns that it leaves out are still read: rows are checked
    whole.
    """
    if shape is not None:
        return _shaped_schema(head, signature, shape)
    demanded = {
        str(column["name"]): _ARROW_TYPES[column["type"]]
        for column in signature or ()
        if column.get("name") is not None and column.get("type") in _ARROW_TYPES
    }
    types = tuple(demanded.get(name, kind) for name, kind in zip(head.columns, head.types, strict=True))
    absent = tuple(name for name in demanded if name not in head.columns)
    strict = tuple(name for name in (*head.columns, *absent) if name in demanded)
    return TableSchema((*head.columns, *absent), (*types, *(demanded[name] for name in absent)), strict)


def _shaped_schema(head: Head, signature: tuple[dict[str, Any], ...] | None, shape: TableShape) -> TableSchema:
    shaped(head, shape)
    types = [
        shape.types.get(name, "string" if shape.only_text else kind)
        for name, kind in zip(head.columns, head.types, strict=True)
    ]
    plain = schema_of(Head(head.columns, tuple(types)), signature)
    strict = (*plain.strict, *(name for name in shape.types if name not in plain.strict))
    return replace(
        plain,
        strict=strict,
        keep=None if shape.keep is None else tuple(shape.keep),
        drop=tuple(shape.drop),
        path_column=shape.path_column,
        partition_pattern=shape.partition_pattern,
        partition_columns=tuple(shape.partition_columns),
    )


def mismatch(head: Head, signature: tuple[dict[str, Any], ...] | None, *, named: bool) -> str | None:
    """Why a file does not fit the signature: columns that are missing or of another kind. More columns are fine."""
    columns = [
        column for column in signature or () if column.get("name") is not None and column.get("type") != "tensor"
    ]
    if not columns or not named:
        return None
    found = dict(zip(head.columns, head.types, strict=True))
    faults = []
    missing = [c for c in columns if c["name"] not in found and c.get("required", True)]
    if missing:
        faults.append("missing columns " + ", ".join(f"{c['name']} ({c['type']})" for c in missing))
    numbers = {"boolean", "integer", "long", "float", "double"}
    wrong = [c for c in columns if c.get("type") in numbers and c["name"] in head.texts]
    if wrong:
        faults.append("text in columns " + ", ".join(f"{c['name']} (should be {c['type']})" for c in wrong))
    if not faults:
        return None
    return "; ".join(faults) + ". Found: " + ", ".join(f"{name} ({kind})" for name, kind in found.items()) + "."
