"""Defaults of the command line, which ``configure --defaults workspace=risk`` keeps in the home."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from batchpoint.errors import InvalidEntityError


def defaults_file(home: Path) -> Path:
    """Where the defaults of a home are kept."""
    return home / "defaults.json"


def read_defaults(home: Path) -> dict[str, str]:
    """The defaults of a home, by their names.

    Raises:
        InvalidEntityError: the file is not what was written there.
    """
    path = defaults_file(home)
    if not path.is_file():
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise InvalidEntityError(
            f"{path} is not a JSON object of texts. Delete it, and set the defaults anew."
        ) from None


def keep_defaults(home: Path, given: Mapping[str, str]) -> None:
    """Keep more defaults of a home; an empty value takes one away, as with Azure's command line."""
    kept = {key: value for key, value in {**read_defaults(home), **given}.items() if value}
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = home / f"defaults.json.{os.getpid()}"
    partial.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    partial.replace(defaults_file(home))
