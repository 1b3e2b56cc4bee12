"""What a challenger made of a part that the champion had scored: where both results lie, for the comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from batchpoint.scoring.mini_batches import ErrorInfo
from batchpoint.scoring.spec import ScoringSpec

PREDICTIONS, VALUES, CHAMPION_VALUES = ".challenger.rows", ".challenger-values.rows", ".values.rows"
"""Endings of a worker's further segments: what the challenger predicted, and both results as they are compared."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as they lie in a segment."""

    segment: str
    """Path of the segment file, relative to ``segments/`` of the run's folder."""
    offset: int
    length: int
    rows: int
    encoding: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Items of which the challenger made nothing: its error, time-out or crash."""

    start: int
    stop: int
    """Positions within the mini-batch."""
    file: str | None
    row: int | None
    """File and row of the first of them."""
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Challenge:
    """One part, as both scored it."""

    asked: int
    """Items that the challenger was given: none when it is switched off."""
    champion: tuple[Rows, ...] = ()
    """The champion's result with file and row, whatever form its predictions have."""
    challenger: tuple[Rows, ...] = ()
    """The challenger's, in the same form and in the order of the items."""
    predictions: tuple[Rows, ...] = ()
    """The challenger's result in the form of the job's predictions."""
    refusals: tuple[Refusal, ...] = ()
    missing: int = 0
    """Items for which it returned no result."""
    champion_seconds: float = 0.0
    challenger_seconds: float = 0.0
    """Spent in ``run()``."""
    notice: str = ""
    """Why the challenger is not asked any more, said once."""

    def all_rows(self) -> Iterator[Rows]:
        """Everything that lies in segments."""
        yield from (*self.champion, *self.challenger, *self.predictions)

    def located(self, folder: str) -> Challenge:
        """The same with the segments of another run's folder by their full path."""

        def there(rows: tuple[Rows, ...]) -> tuple[Rows, ...]:
            return tuple(
                piece if piece.segment.startswith("/") else replace(piece, segment=f"{folder}/segments/{piece.segment}")
                for piece in rows
            )

        return replace(
            self,
            champion=there(self.champion),
            challenger=there(self.challenger),
            predictions=there(self.predictions),
        )

    def as_json(self) -> dict[str, Any]:
        """For the ledger: what is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value or name == "asked"}


def read_challenge(found: Mapping[str, Any]) -> Challenge:
    """A challenge as a worker says it, or the ledger has it."""
    numbers = {field.name: found[field.name] for field in fields(Challenge) if field.name in found}
    for name in ("champion", "challenger", "predictions"):
        numbers[name] = tuple(Rows(**{**one, "columns": tuple(one["columns"])}) for one in found.get(name) or ())
    numbers["refusals"] = tuple(
        Refusal(**{**one, "error": ErrorInfo(**one["error"])}) for one in found.get("refusals") or ()
    )
    return Challenge(**numbers)


def challenger_setup(spec: ScoringSpec, setup: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a worker has to know to start its challenger; None when there is none.

    ``setup`` is the worker's own: the challenger's differs in what scores, and in where it writes and logs.
    """
    given = spec.challenger
    if given is None:
        return None
    stem = setup["segment"].removesuffix(".rows")
    model = given.model
    own = {
        "kind": given.script.kind,
        "script": given.script.path,
        "code_dir": given.script.code_dir,
        "arguments": given.script.arguments,
        "environment_variables": given.environment_variables,
        "model": {"directory": model.directory, "path": model.path} if model else None,
        "process": f"{setup['process']}-challenger",
        "segment": stem + PREDICTIONS,
        "values": stem + VALUES,
        "output_dir": f"{setup['output_dir']}-challenger",
        "working_dir": f"{setup['working_dir']}-challenger",
        "sketches": False,
        "stack_file": setup["stack_file"].removesuffix(".txt") + "-challenger.txt",
    }
    return {
        "setup": own,
        "python": given.python if given.python != spec.python else None,
        "limit": given.timeout + spec.retry.task_overhead_timeout,
        "halves": spec.retry.isolate_failures,
        "champion_values": stem + CHAMPION_VALUES,
    }
