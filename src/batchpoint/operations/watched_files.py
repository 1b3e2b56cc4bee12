"""The files that schedules wait for: those in a watched folder, and which of them are new."""

from __future__ import annotations

from collections.abc import Sequence

from batchpoint.entities.jobs import Input
from batchpoint.entities.schedules import Schedule, ScheduleRun
from batchpoint.entities.triggers import FileTrigger
from batchpoint.errors import InvalidEntityError
from batchpoint.operations.places import Places
from batchpoint.registry import Registry
from batchpoint.registry.schedules import SeenFile
from batchpoint.storage.inputs import matches

LONGEST_PATH = 1024


class WatchedFiles:
    """Looks into watched folders."""

    def __init__(self, registry: Registry, places: Places) -> None:
        self._registry = registry
        self._places = places

    def seen(self, trigger: FileTrigger) -> tuple[Sequence[SeenFile], Sequence[str]]:
        """The files in the watched folder, without those that are left alone; and those whose names cannot be told.

        Raises:
            InvalidEntityError: the path is a file, or one that cannot be listed.
            DatastoreError: the store does not answer.
        """
        place, stores = self._places.resolve(trigger.path), self._places.stores()
        if place.url.startswith(("http:", "https:")):
            raise InvalidEntityError(f"{trigger.path} cannot be watched: nothing can be listed over http.")
        if not stores.exists(place.url, place.datastore):
            return [], []  # it is made when the first file comes
        if not stores.is_folder(place.url, place.datastore):
            raise InvalidEntityError(f"{trigger.path} is a file. Give the folder that new files come to.")
        found, unusable = [], []
        for file in stores.list(place.url, place.datastore, recursive=trigger.recursive):
            wanted = not trigger.include or any(matches(file.path, pattern) for pattern in trigger.include)
            if not wanted or any(matches(file.path, pattern) for pattern in trigger.exclude):
                continue
            if _has_an_address(file.path):
                found.append(SeenFile(file.path, file.fingerprint))
            else:
                unusable.append(file.path)
        return found, unusable

    def there_before(self, schedule: Schedule, before: Schedule | None) -> Sequence[SeenFile] | None:
        """The files that do not count as new for a schedule; None leaves those that it knows."""
        trigger = schedule.trigger
        if not isinstance(trigger, FileTrigger):
            return []
        seen, _ = self.seen(trigger)
        watched = before.trigger if before is not None else None
        if isinstance(watched, FileTrigger) and watched.path == trigger.path:
            return None
        return [] if trigger.existing else seen

    def taken(self, schedule: Schedule, run: ScheduleRun) -> Input:
        """The files of a run, as an input of exactly these.

        One that was taken away or written again since it was found would fail the others' job, or be scored twice.
        """
        assert isinstance(schedule.trigger, FileTrigger)
        place = self._places.resolve(schedule.trigger.path)
        there = set(self.seen(schedule.trigger)[0])
        taken = self._registry.schedules.files_of(run)
        self._registry.schedules.forget_files(run, [file.path for file in taken if file not in there])
        paths = [self._places.below(place, file.path).uri for file in taken if file in there]
        if not paths:
            message = f"All {run.files} files have changed since they were found; they count as new again."
            raise InvalidEntityError(message)
        return Input(path=paths[0], paths=paths[1:])


def _has_an_address(path: str) -> bool:
    """Whether a file of this name can be named in an address, and kept."""
    try:
        return len(path.encode()) <= LONGEST_PATH and not set(path) & {"\n", "\r", "\\"}
    except UnicodeEncodeError:
        return False


def cannot_be_taken(path: str) -> str:
    """Why a file is never taken, and what to do."""
    shown = path.encode(errors="surrogateescape")[:200].decode(errors="backslashreplace")
    return (
        f"The file {shown!r} cannot be taken: its path is longer than {LONGEST_PATH} bytes, not UTF-8, or holds a "
        "backslash or an end of line. Rename it. The others are taken."
    )
