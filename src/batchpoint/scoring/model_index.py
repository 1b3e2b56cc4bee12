"""A key's values → its model: the lines of ``models.jsonl`` in the run's folder, as the launcher resolved them.

Keys are compared as text. A whole number is its digits, however its column is typed: ``1``, ``1.0`` of a column of
floats and the text ``1`` are one key; the texts ``01`` and ``1`` of a text column are two. A missing value is no text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from batchpoint.entities.key_patterns import key_text
from batchpoint.errors import InputError
from batchpoint.scoring.spec import ModelMapSpec


@dataclass(frozen=True, slots=True)
class KeyModel:
    """A model of the map."""

    name: str
    path: str
    type: str


Key = tuple[tuple[str, str], ...]
"""Names and values of a key, as text."""


@dataclass(frozen=True)
class ModelIndex:
    """The known keys and their models."""

    keys: Sequence[str]
    models: dict[tuple[str, ...], KeyModel]

    @classmethod
    def read(cls, folder: Path, given: ModelMapSpec, keys: Sequence[str]) -> Self:
        """Read the models file of a run's folder.

        Raises:
            InputError: there is none, or a line of it is not what it should be.
        """
        path = folder / given.models_file
        models = {}
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    entry = json.loads(line)
                    known = tuple(key_text(entry["key"][key]) for key in keys)
                    models[known] = KeyModel(entry["model"], entry["path"], entry["type"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"The models file {path} cannot be read: {type(error).__name__}: {error}.") from None
        return cls(keys, models)

    def of(self, values: Sequence[Any]) -> tuple[Key, KeyModel | None]:
        """The key of these values, and its model, if it has one."""
        texts = tuple(key_text(value) for value in values)
        return tuple(zip(self.keys, texts, strict=True)), self.models.get(texts)
