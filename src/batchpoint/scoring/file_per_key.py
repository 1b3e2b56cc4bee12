"""The predictions of each combination of the partition keys in a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from batchpoint.entities.key_patterns import KeyPattern, key_text
from batchpoint.errors import OutputError
from batchpoint.scoring.ledger import Part, Record
from batchpoint.scoring.mini_batches import MiniBatch
from batchpoint.scoring.predictions_file import RowCutter, layout_of, parts_in_order, write_predictions
from batchpoint.scoring.spec import OutputSpec

Spans = tuple[tuple[int, str], ...]
"""Numbers of items, in the order of a mini-batch, and the file that their rows go to."""

_WRITERS = 8
"""Files that are written at once: each waits for the disk."""


class KeyFiles:
    """The names of the files, gathered while the input is planned."""

    def __init__(self, output: OutputSpec) -> None:
        self.spans: dict[int, Spans] = {}
        """For each mini-batch, by its index: how many of its items, in order, go to which file."""
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
        if self._pattern is None:
            return
        if mini_batch.partition:
            keys = [({key: key_text(value) for key, value in mini_batch.partition}, mini_batch.items)]
        else:
            keys = [(dict(span.key), span.rows) for span in mini_batch.spans]
        self.spans[mini_batch.index] = tuple((items, self._name(values, self._pattern)) for values, items in keys)

    def _name(self, values: dict[str, str], pattern: KeyPattern) -> str:
        key = tuple(values.values())
        try:
            name = pattern.file_name(values, self._submitted)
        except ValueError as fault:
            raise OutputError(f"There is no file for {_in_words(values, key)}: {fault}.") from None
        if self._keys.setdefault(name, key) != key:
            other = self._keys[name]
            owner = "one that every job writes" if other is None else f"that of {_in_words(values, other)}"
            raise OutputError(
                f"The file {name} of {_in_words(values, key)} would be {owner} too, and one of them would be lost. "
                "Put other text between the placeholders of file_per_key."
            )
        return name


def write_key_files(
    records: Sequence[Record],
    spans: Mapping[int, Spans],
    output: OutputSpec,
    run_folder: Path,
    place: Callable[[str], Path],
) -> dict[str, int]:
    """Write the file of each key that has predictions; the rows of each file.

    Args:
        records: The committed mini-batches, in order.
        spans: What of each mini-batch goes to which file.
        output: The format of the files.
        run_folder: The run's folder, with ``segments/``.
        place: Where a file is written.

    Raises:
        OutputError, OSError: as ``write_predictions``.
    """
    segments = run_folder / "segments"
    parts: dict[str, list[Part]] = {}
    with RowCutter(segments, run_folder / "cut_rows") as cutter:
        for record in records:
            for part in parts_in_order([record]):
                for name, piece in _divided(part, spans.get(record.mini_batch, ()), cutter):
                    parts.setdefault(name, []).append(piece)
        layout = layout_of(parts_in_order(records), segments, output.format)

        def write(name: str) -> int:
            return write_predictions(parts[name], segments, place(name), output.format, layout=layout)

        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="key-files") as pool:
            return dict(zip(parts, pool.map(write, parts), strict=True))


def _divided(part: Part, spans: Spans, cutter: RowCutter) -> Iterator[tuple[str, Part]]:
    """The rows of a part by the file that they go to: an item has a row unless it is missing."""
    missing = frozenset(part.missing or ())
    found: list[tuple[str, int]] = []
    begin = 0
    for items, name in spans:
        items_of_part = range(max(begin, part.start), min(begin + items, part.stop))
        begin += items
        if items_of_part:
            found.append((name, sum(item not in missing for item in items_of_part)))
    if len(found) == 1:
        yield found[0][0], part
        return
    yield from (
        (name, piece)
        for (name, rows), piece in zip(found, cutter.cut(part, [rows for _, rows in found]), strict=True)
        if rows
    )


def _in_words(names: Mapping[str, str], values: Sequence[str]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in zip(names, values, strict=True))
