"""The predictions of each combination of the partition keys in a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from batchpoint.entities.key_patterns import KeyPattern, key_text
from batchpoint.errors import OutputError
from batchpoint.scoring.ledger import Record
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.predictions_file import layout_of, parts_in_order, write_predictions
from batchpoint.scoring.spec import OutputSpec

_WRITERS = 8
"""Files that are written at once: each waits for the disk."""


class KeyFiles:
    """The names of the files, gathered while the input is planned."""

    def __init__(self, output: OutputSpec) -> None:
        self.names: dict[int, str] = {}
        """The file of each mini-batch, by its index."""
        self._pattern = KeyPattern(output.file_per_key) if output.file_per_key is not None else None
        self._submitted = output.submitted or datetime.now(UTC)
        self._keys: dict[str, tuple[str, ...] | None] = dict.fromkeys(
            [output.file_name, output.errors_name, output.receipt_name]
        )
        """Whose file a name is; None for those that every job writes."""

    def add(self, mini_batch: MiniBatch) -> None:
        """Name the file that the rows of a mini-batch go to.

        Raises:
            OutputError: its key's file would have the name of another one, or a name that is too long.
        """
        if self._pattern is None or not mini_batch.partition:
            return
        values = {key: key_text(value) for key, value in mini_batch.partition}
        key = tuple(values.values())
        try:
            name = self._pattern.file_name(values, self._submitted)
        except ValueError as fault:
            raise OutputError(f"There is no file for {_in_words(values, key)}: {fault}.") from None
        if self._keys.setdefault(name, key) != key:
            other = self._keys[name]
            owner = "one that every job writes" if other is None else f"that of {_in_words(values, other)}"
            raise OutputError(
                f"The file {name} of {_in_words(values, key)} would be {owner} too, and one of them would be lost. "
                "Put other text between the placeholders of file_per_key."
            )
        self.names[mini_batch.index] = name


def write_key_files(
    records: Sequence[Record],
    names: Mapping[int, str],
    output: OutputSpec,
    segments: Path,
    place: Callable[[str], Path],
) -> dict[str, int]:
    """Write the file of each key that has predictions; the rows of each file.

    Args:
        records: The committed mini-batches, in order.
        names: The file of each mini-batch.
        output: The format of the files.
        segments: Folder that relative segment paths start from.
        place: Where a file is written.

    Raises:
        OutputError, OSError: as ``write_predictions``.
    """
    by_name: dict[str, list[Record]] = {}
    for record in records:
        if record.mini_batch in names:
            by_name.setdefault(names[record.mini_batch], []).append(record)
    parts = {name: found for name, some in by_name.items() if (found := parts_in_order(some))}
    layout = layout_of(parts_in_order(records), segments, output.format)

    def write(name: str) -> int:
        return write_predictions(parts[name], segments, place(name), output.format, layout=layout)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="key-files") as pool:
        return dict(zip(parts, pool.map(write, parts), strict=True))


def _in_words(names: Mapping[str, str], values: Sequence[str]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in zip(names, values, strict=True))
