"""A worker's segment: the file to which it appends the rows that ``run()`` returned.

Runs under the deployment's interpreter, Python 3.7 or later, and imports the standard library alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import results
from .encodings import encoded

if TYPE_CHECKING:
    from .encodings import Encoding


class SegmentWriter:
    """Appends result rows to one worker's segment, each time as one block of bytes at a known offset."""

    def __init__(self, path: str, encoding: Encoding, output: dict[str, Any]) -> None:
        """Open the segment, or go on at the end of the one that is there.

        Args:
            path: Absolute path of the segment.
            encoding: ``csv``, ``jsonl``, ``arrow``, ``azureml``; ``none`` counts results and keeps no rows.
            output: ``row_keys``, ``key_columns``, ``passthrough`` and ``rename`` of the job's output.
        """
        self.path = path
        self.encoding = encoding
        self._beside = results.Beside(
            row_keys=output.get("row_keys", True),
            key_columns=output.get("key_columns") or [],
            passthrough=output.get("passthrough") or [],
            rename=output.get("rename") or {},
        )
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.lseek(self._descriptor, 0, os.SEEK_END)

    def append(self, result: Any, part: dict[str, Any]) -> dict[str, Any]:
        """Check a result, append its rows, and tell where they lie and which items they stand for.

        Args:
            result: What ``run()`` returned.
            part: ``unit``, ``start``, ``stop``; ``names`` (files) or ``keys`` and ``frame`` (rows);
                ``positions`` of the items that have a result, where that is known.  ``frame`` is what
                ``run()`` was given, best as a shallow copy made before the call, so that columns which the script
                added or dropped in place are not mistaken for input.

        Returns:
            ``segment``, ``offset``, ``length`` (bytes), ``rows``, ``ok``, ``missing`` (positions in the mini-batch of
            the items without a result; None when only their number is known), ``encoding``, ``columns``.

        Raises:
            TypeError: the result is neither a list nor a table.
            ValueError: a key or passthrough column is not in the input, the result has rows but no columns, or two
                columns would have one name.
            OSError: the segment could not be written; it is as it was before.
        """
        rows = results.count(result)
        items = part["stop"] - part["start"]
        encoding, columns, data = encoded(self.encoding, result, rows, part, self._beside)
        answer = {
            "segment": self.path,
            "offset": self._end,
            "length": len(data),
            "rows": 0 if encoding == "none" else rows,
            "ok": min(rows, items),
            "missing": results.missing(result, rows, part),
            "encoding": encoding,
            "columns": columns,
        }
        self._write(data)
        return answer

    def close(self) -> None:
        """Close the segment. What was appended stays."""
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        at = self._end
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view = view[written:]
                at += written
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end = at
