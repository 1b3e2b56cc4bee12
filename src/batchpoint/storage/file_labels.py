"""Names and values that clients keep with a file, beside the datastore: who looks into it sees his own files alone."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path


class FileLabels:
    """The labels of the files of all datastores, in one folder, each known by the file's address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, uri: str) -> dict[str, str]:
        """The labels of a file; none when nobody gave it any."""
        try:
            found: dict[str, str] = json.loads(self._of(uri).read_text())
        except FileNotFoundError:
            return {}
        return found

    def write(self, uri: str, labels: Mapping[str, str]) -> None:
        """The labels of a file from now on."""
        path = self._of(uri)
        if not labels:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
        partial.write_text(json.dumps(dict(labels)))
        partial.replace(path)

    def _of(self, uri: str) -> Path:
        name = hashlib.sha256(uri.encode(errors="surrogateescape")).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
