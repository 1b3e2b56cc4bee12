"""A staged folder → its final place, at once, never over what somebody else put there.

``publishing.json`` in the run's folder is written before anything appears under a final name. So a publish that was cut
off anywhere is told from a place that was taken by another: with it, files equal to the staged ones are our own.
"""

from __future__ import annotations

import ctypes
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from batchpoint.errors import OutputError
from batchpoint.scoring.spec import Location, OutputSpec, ScoringSpec

MARKER = "publishing.json"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS, errno.EMLINK}
_HELP = "Choose another place, or say if_exists: overwrite or if_exists: version."


class PlaceTakenError(OutputError):
    """Another has put something where the output should go; nothing of ours was left beside it."""


class Stores(Protocol):
    """Places that are not on this machine."""

    def exists(self, url: str, datastore: str | None = None) -> bool:
        """Whether a file or a folder lies there."""

    def put(self, source: Path, url: str, datastore: str | None = None) -> None:
        """Store a local file there, whole or not at all, in place of what was there."""


class Publishing(Protocol):
    """What is published: of which job, where to, and in place of what."""

    @property
    def job(self) -> str:
        """Its name."""

    @property
    def output(self) -> OutputSpec:
        """Folder, names, and what to do when they are taken."""

    @property
    def retry_of(self) -> str | None:
        """Folder of the run whose output is replaced."""


@dataclass(frozen=True)
class Destination:
    """Where this run's output goes, its number among versions already settled."""

    folder: Location
    predictions: str
    errors: str
    receipt: str
    owned: bool
    """Whether the folder is this job's alone."""
    resumed: bool = False
    """Whether an earlier process of this run may have published here already."""
    replaces: bool = False
    """Whether what lies here was published by a run whose failed items this one scores again."""
    number: int = 1
    """Of the version, where it stands in the names of files."""
    one_file: bool = True
    """Whether ``predictions`` is written."""

    @property
    def local(self) -> Path | None:
        """The folder's path if it is on this machine."""
        return local_path(self.folder)

    @property
    def own_names(self) -> tuple[str, str, str]:
        """The files that batchpoint writes, in the order in which they appear: the predictions last."""
        return self.errors, self.receipt, self.predictions

    def numbered(self, name: str) -> str:
        """A file's name with the number of the version in it, where that is how versions are told apart."""
        return _numbered(name, self.number)


def local_path(location: Location) -> Path | None:
    """The path that a location is on this machine, None if it is elsewhere."""
    if location.url.startswith("file://"):
        return Path(unquote(urlsplit(location.url).path))
    return None if "://" in location.url else Path(location.url)


def choose_destination(
    spec: Publishing, run_folder: Path, stores: Stores, *, key_files: Sequence[str] = ()
) -> Destination:
    """Settle where to publish, and note it in the run's folder so that a later process publishes to the same place.

    ``key_files`` are names that have to be free too.

    Raises:
        OutputError: something lies there, and nothing allows to replace it.
    """
    marker, earlier = run_folder / MARKER, _earlier_marker(spec)
    replaces = earlier is not None
    if marker.exists():
        return _destination(spec.output, _number(marker), resumed=True, replaces=replaces)
    if earlier is not None:
        number = _number(earlier)
    else:
        number = _first_free(spec.output, stores, key_files) if spec.output.if_exists == "version" else 1
        check_free(spec, stores)
    write_synced(marker, json.dumps({"number": number}).encode())
    return _destination(spec.output, number, replaces=replaces)


def forget_destination(run_folder: Path) -> None:
    """Give up the place that was settled on: it is another's, and must never be taken for ours."""
    (run_folder / MARKER).unlink(missing_ok=True)


def earlier_runs(spec: Publishing) -> list[Path]:
    """Folders of the runs that this one goes back to: the one that it scores again, the one that that did, …"""
    folders: list[Path] = []
    earlier = spec.retry_of
    while earlier is not None and (Path(earlier) / "spec.json").exists():
        folders.append(Path(earlier))
        earlier = ScoringSpec.read(folders[-1]).retry_of
    return folders


def check_free(spec: Publishing, stores: Stores, run_folder: Path | None = None) -> None:
    """Check that the output's place is free, or may be replaced; for submit time and for the start of a run.

    Args:
        spec: The run.
        stores: Opens places that are not on this machine.
        run_folder: The run's folder, once there is one: a run that has begun to publish owns what lies there.

    Raises:
        OutputError: naming what lies there and which option helps.
    """
    if spec.output.if_exists != "fail" or _earlier_marker(spec) is not None:
        return
    if run_folder is not None and (run_folder / MARKER).exists():
        return
    taken = _taken(_destination(spec.output, 1), stores)
    if taken is not None:
        message = f"The output {taken} exists already and is never overwritten unasked. {_HELP}"
        raise OutputError(message, path=taken)


def _number(marker: Path) -> int:
    return int(json.loads(marker.read_text())["number"])


def _earlier_marker(spec: Publishing) -> Path | None:
    """Where the runs that are scored again have published, if one has: that output is replaced."""
    markers = (folder / MARKER for folder in earlier_runs(spec))
    return next((marker for marker in markers if marker.exists()), None)


def staging_folder(spec: Publishing, destination: Destination, run_folder: Path) -> Path:
    """An empty folder to put the output together in: on the final file system when that is on this machine."""
    final = destination.local
    if final is None:
        staging = run_folder / "staging"
    elif destination.owned:
        staging = final.parent / f".{final.name}.{spec.job}.partial"
    else:
        staging = final / f".{spec.job}.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def link_files(source: Path, target: Path, *, keep: bool = False, skip: Sequence[str] = ()) -> list[str]:
    """Give the files under ``source`` a second name under ``target``, by hard links where the file system has them.

    Args:
        source: A folder, or nothing.
        target: The folder to link into.
        keep: Whether a file that ``target`` has already stays; otherwise the name is changed to ``script-<name>``.
        skip: Relative names that are left out.

    Returns:
        Relative names, with forward slashes, of files whose name was changed.
    """
    renamed = []
    for relative in files_under(source):
        if relative in skip:
            continue
        place = target / relative
        if place.exists() and keep:
            continue
        if place.exists():
            renamed.append(relative)
            place = place.with_name(f"script-{place.name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(source / relative, place)
    return renamed


def files_under(folder: Path) -> list[str]:
    """Relative names of all files under a folder, sorted, with forward slashes; none if there is no folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def place(spec: Publishing, destination: Destination, staging: Path, stores: Stores) -> None:
    """Let the staged files appear under their final names; calling it again after an interruption completes it.

    Raises:
        OutputError: another has taken the place meanwhile.
        OSError: the disk is full, or the folder cannot be written.
    """
    names = _in_order(files_under(staging), destination)
    final = destination.local
    if final is None:
        for name in names:
            stores.put(staging / name, child(destination.folder, name).url, destination.folder.datastore)
        return
    if destination.owned and _place_folder(spec, destination, staging, final):
        _sync_folder(final.parent)
        return
    _place_files(spec, destination, staging, final, names)


def child(folder: Location, name: str) -> Location:
    """A file within a folder."""
    return Location(url=f"{folder.url.rstrip('/')}/{name}", datastore=folder.datastore)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash it is there whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_folder(path.parent)


def _destination(output: OutputSpec, number: int, *, resumed: bool = False, replaces: bool = False) -> Destination:
    url = output.folder.url.rstrip("/")
    if number > 1 and output.owns_folder:
        url, number = f"{url}-{number}", 1
    return Destination(
        folder=Location(url=url, datastore=output.folder.datastore),
        predictions=_numbered(output.file_name, number),
        errors=_numbered(output.errors_name, number),
        receipt=_numbered(output.receipt_name, number),
        owned=output.owns_folder,
        resumed=resumed,
        replaces=replaces,
        number=number,
        one_file=output.one_file,
    )


def _numbered(name: str, number: int) -> str:
    path = PurePosixPath(name)
    if number == 1:
        return name
    return f"{path.stem}-{number}{path.suffix}"


def _first_free(output: OutputSpec, stores: Stores, key_files: Sequence[str]) -> int:
    number = 1
    while _taken(_destination(output, number), stores, key_files) is not None:
        number += 1
    return number


def _taken(destination: Destination, stores: Stores, key_files: Sequence[str] = ()) -> str | None:
    """What lies where the output should go: the folder if it should be ours alone, else the first of its files."""
    places = [destination.folder]
    if not destination.owned:
        own = destination.own_names if destination.one_file else (destination.errors, destination.receipt)
        names = [*reversed(own), *map(destination.numbered, key_files)]
        places = [child(destination.folder, name) for name in names]
    for location in places:
        path = local_path(location)
        if path is None:
            found = stores.exists(location.url, location.datastore)
        else:
            found = path.exists() and not (destination.owned and path.is_dir() and not any(path.iterdir()))
        if found:
            return location.url
    return None


def _in_order(names: Sequence[str], destination: Destination) -> list[str]:
    own = [name for name in dict.fromkeys(destination.own_names) if name in names]
    return [*(name for name in names if name not in own), *own]


def _place_folder(spec: Publishing, destination: Destination, staging: Path, final: Path) -> bool:
    """Publish by one rename; False when it must be done file by file."""
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        try:
            staging.rename(final)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            return False  # filled a moment ago: looked at file by file
        return True
    if destination.replaces:
        link_files(final, staging, keep=True, skip=_own_names_of_any_format(spec, destination))
        _sync_folder(staging)
        if _exchange(staging, final):
            shutil.rmtree(staging, ignore_errors=True)
            return True
    return False


def _own_names_of_any_format(spec: Publishing, destination: Destination) -> Sequence[str]:
    """What an earlier run wrote under our names is not carried over, also if this run writes no such file."""
    return [*destination.own_names, spec.output.file_name]


def _place_files(spec: Publishing, destination: Destination, staging: Path, final: Path, names: Sequence[str]) -> None:
    replace = destination.replaces or spec.output.if_exists == "overwrite"
    if not replace:
        for name in names:
            _check_not_taken(staging / name, final / name, destination)
    placed: list[Path] = []
    for name in names:
        target = final / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if replace:
            (staging / name).replace(target)
        elif not target.exists():
            _rename_exclusively(staging / name, target, placed)
    for folder in {(final / name).parent for name in names}:
        _sync_folder(folder)
    shutil.rmtree(staging, ignore_errors=True)


def _check_not_taken(staged: Path, target: Path, destination: Destination) -> None:
    if not target.exists():
        return
    if destination.resumed and target.is_file() and filecmp.cmp(staged, target, shallow=False):
        return
    message = f"The output {target} exists already and is never overwritten unasked. {_HELP}"
    raise PlaceTakenError(message, path=str(target))


def _rename_exclusively(source: Path, target: Path, placed: list[Path]) -> None:
    """Rename, but never over a file that appeared since it was looked for (``rename`` would replace it).

    Then what was placed before is taken away again; else ``target`` is added to it.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        message = f"The output {target} was made by another program meanwhile and is not overwritten. {_HELP}"
        for path in placed:
            path.unlink(missing_ok=True)
        raise PlaceTakenError(message, path=str(target)) from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        source.rename(target)
    else:
        source.unlink()
    placed.append(target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux); False where the system cannot."""
    at_working_folder, exchange = -100, 2
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(at_working_folder, os.fsencode(one), at_working_folder, os.fsencode(other), exchange) == 0)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
