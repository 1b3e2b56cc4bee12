"""What the state machine and the driver say to each other: events (what happened) and instructions (what to do)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchpoint.entities.jobs import Reason
from batchpoint.scoring.challenge import Challenge
from batchpoint.scoring.ledger import FailedItem, Record
from batchpoint.scoring.mini_batches import ErrorInfo, MiniBatch
from batchpoint.scoring.model_outcomes import ModelOutcomes

# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins; the plan is not known yet."""


@dataclass(frozen=True, slots=True)
class MiniBatchPlanned:
    """The plan has one more mini-batch."""

    mini_batch: MiniBatch


@dataclass(frozen=True, slots=True)
class PlanEnded:
    """The plan is complete."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has finished ``init()``."""

    worker: int
    modules: tuple[str, ...] = ()
    """Third-party packages that it imported."""


@dataclass(frozen=True, slots=True)
class WorkerInitFailed:
    """A worker could not import the script, or ``init()`` raised."""

    worker: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class PartSucceeded:
    """``run()`` returned; its rows lie in the worker's segment."""

    worker: int
    id: int
    segment: str
    offset: int
    length: int
    rows: int
    ok: int
    missing: tuple[int, ...] | None = ()
    encoding: str = "csv"
    columns: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    models: ModelOutcomes | None = None
    """Which models scored it, where each key has its own; the items that these failed or left out have no row."""
    challenge: Challenge | None = None
    """What the challenger made of the part, where there is one."""
    sketched: int = 0
    """Bytes of its sketch, behind its rows."""


@dataclass(frozen=True, slots=True)
class ChampionDone:
    """``run()`` returned, and the challenger is asked now: its time is not the champion's."""

    worker: int
    id: int
    within: float
    """Seconds after which ``PartSucceeded`` follows at the latest."""


@dataclass(frozen=True, slots=True)
class PartFailed:
    """``run()`` raised, its result was refused, or the part could not be read."""

    worker: int
    id: int
    error: ErrorInfo
    key: dict[str, object] | None = None
    item: int | None = None
    """The one item that is at fault, where the error says so."""
    is_unread: bool = False
    """Whether its input could not be read from where it lies: the fault of no item."""
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerKilled:
    """A worker was killed as instructed, for taking too long."""

    worker: int
    stack: str = ""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker ended without being asked to."""

    worker: int
    message: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened, but time went on."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The user asked the run to stop."""


Event = (
    RunStarted
    | MiniBatchPlanned
    | PlanEnded
    | WorkerReady
    | WorkerInitFailed
    | PartSucceeded
    | ChampionDone
    | PartFailed
    | WorkerKilled
    | WorkerLost
    | TimePassed
    | CancelRequested
)


# ── instructions ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker in a slot: slots count the workers that may live at once, over all instances."""

    worker: int
    slot: int


@dataclass(frozen=True, slots=True)
class Score:
    """Give a part to a worker; it may still be busy with the one before."""

    worker: int
    id: int
    mini_batch: MiniBatch
    start: int
    stop: int
    attempt: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Kill a worker that takes too long, its stack captured first; answer with ``WorkerKilled``."""

    worker: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Note a mini-batch as done for good."""

    record: Record


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: nothing more is given out."""

    reason: Reason
    message: str = ""
    failure: FailedItem | None = None
    """The first failed item, in input order."""
    error: ErrorInfo | None = None
    """What failed, when it was no item."""


Instruction = StartWorker | Score | KillWorker | Commit | Finish
