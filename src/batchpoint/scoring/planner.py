"""The thread that plans a run, beside the loop that scores it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batchpoint.scoring.events import Event, MiniBatchPlanned, PlanEnded
from batchpoint.scoring.mini_batches import KeySpan, MiniBatch
from batchpoint.scoring.query_input import as_files
from batchpoint.scoring.spec import ScoringSpec
from batchpoint.storage.datastores import Stores


class Planner:
    """Plans in a thread of its own, a bounded number of mini-batches ahead, so that reading never holds up scoring."""

    AHEAD = 256

    def __init__(
        self,
        spec: ScoringSpec,
        storage_options: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        narrow: Callable[[Any], Any] | None = None,
    ) -> None:
        """Begin to plan; ``narrow`` makes of the plan the one that is carried out."""
        self._narrow = narrow
        self.plan: Any = None
        self.items_of: dict[str, int] = {}
        """Items of each input file, as planned: what the receipt is checked against."""
        self.spans: dict[int, tuple[KeySpan, ...]] = {}
        """The keys of each mini-batch of a model map."""
        self.key_files: Mapping[int, tuple[tuple[int, str], ...]] = {}
        """What of each mini-batch goes to which file, for a job that writes one for each key."""
        self._spec, self._options, self._folder = spec, storage_options, folder
        self._stopped = threading.Event()
        self._found: deque[MiniBatch | BaseException | None] = deque()
        self._has_room = threading.Event()
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)
        self._thread.start()

    def take(self, number: int) -> list[Event]:
        """Up to ``number`` events of what is planned by now. Raises what planning raised."""
        events: list[Event] = []
        while self._found and len(events) < number:
            found = self._found.popleft()
            if isinstance(found, BaseException):
                raise found
            events.append(PlanEnded() if found is None else MiniBatchPlanned(found))
        if events and len(self._found) < self.AHEAD // 2:
            self._has_room.set()
        return events

    def stop(self) -> None:
        """Give up; what is planned already is dropped."""
        self._stopped.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        try:
            from batchpoint.scoring import planning  # noqa: PLC0415 -- imported beside the start of the workers

            spec = as_files(self._spec, self._folder, self._options)
            whole = planning.plan(spec, Stores(self._options), self._folder)
            self.plan = self._narrow(whole) if self._narrow is not None else whole
            key_files = self._key_files()
            for mini_batch in self.plan:
                self._count(mini_batch)
                if key_files is not None:
                    key_files.add(mini_batch)
                if not self._put(mini_batch):
                    return
            self._put(None)
            from batchpoint.scoring import output  # noqa: PLC0415, F401 -- needed at the end; there is time for it now
        except BaseException as error:  # noqa: BLE001 -- the rim of the thread: the driver raises it again
            self._put(error)

    def _key_files(self) -> Any:
        """Names the files of keys while their mini-batches are found; None for a job that writes none."""
        if self._spec.output.file_per_key is None:
            return None
        from batchpoint.scoring.file_per_key import KeyFiles  # noqa: PLC0415 -- imports Arrow, which others do without

        key_files = KeyFiles(self._spec.output)
        self.key_files = key_files.spans
        return key_files

    def _count(self, mini_batch: MiniBatch) -> None:
        if mini_batch.unreadable is not None or mini_batch.unit == "files":
            for file in mini_batch.files:
                self.items_of[file.name] = self.items_of.get(file.name, 0) + 1
        else:
            if mini_batch.spans:
                self.spans[mini_batch.index] = mini_batch.spans
            for piece in mini_batch.slices:
                self.items_of[piece.file.name] = self.items_of.get(piece.file.name, 0) + piece.rows

    def _put(self, found: MiniBatch | BaseException | None) -> bool:
        """Add to what is found, once there is room; False when nobody wants it any more."""
        while len(self._found) >= self.AHEAD and not self._stopped.is_set():
            self._has_room.clear()
            self._has_room.wait(0.1)
        self._found.append(found)
        return not self._stopped.is_set()
