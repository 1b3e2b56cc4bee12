"""Records of an earlier run → the same records with the rows of failed keys cut out of their parts.

A worker scores many keys of a model map at once, and some of them fail. A retry scores those alone: what others gave
stays as it is, although newer models may be there by now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from batchpoint.errors import OutputError
from batchpoint.scoring.ledger import Part, Record
from batchpoint.scoring.model_outcomes import ModelOutcomes
from batchpoint.scoring.predictions_file import RowCutter

NAME = "kept.arrow"
"""Segment of a run that holds the rows of tables that were cut; a resumed run writes the same bytes again."""


def without_failed_keys(records: Mapping[int, Record], folder: Path) -> dict[int, Record]:
    """The records with every part of a model map in pieces without gaps; other parts are as they were.

    Args:
        records: Those of the earlier run, with segments by their full path.
        folder: The folder of the run that goes on with them.

    Raises:
        OSError: a segment cannot be read, or a piece cannot be written.
    """
    segments = folder / "segments"
    segments.mkdir(exist_ok=True)
    with RowCutter(segments, segments / NAME, keep=True) as cutter:
        return {
            index: replace(record, parts=tuple(piece for part in record.parts for piece in _whole(part, cutter)))
            for index, record in records.items()
        }


def _whole(part: Part, cutter: RowCutter) -> Iterator[Part]:
    """The pieces of a part whose items all have a row; the part itself where they cannot be told apart."""
    if part.models is None or not part.missing or part.rows != part.ok:
        yield part
        return
    bounds = [part.start - 1, *sorted(part.missing), part.stop]
    spans = [(before + 1, after) for before, after in pairwise(bounds) if after - before > 1]
    pieces: list[Part] = []
    with suppress(OutputError):  # a row that is no line of its own: all are scored again then
        pieces = cutter.cut(part, [stop - start for start, stop in spans])
    if not pieces:
        yield part
    told = part.models
    for (start, stop), piece in zip(spans, pieces, strict=False):
        uses = tuple(use for use in told.uses if use.start < stop and start < use.stop)
        told = replace(told, uses=tuple(use for use in told.uses if use not in uses))
        models = ModelOutcomes(uses=uses)
        yield replace(piece, start=start, stop=stop, ok=stop - start, missing=(), models=models)
