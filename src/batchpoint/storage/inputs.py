"""Input → the ordered files to score, and those left out.

Azure ML's rule for folders is kept: direct children, all of them, sub-folders not explored unless asked. What is left
out is listed with the reason, never dropped silently.
"""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from batchpoint.entities.file_names import as_text
from batchpoint.errors import InputError
from batchpoint.storage.datastores import Stores

Place = tuple[str, str | None]
"""A URL or local path, and the name of the datastore whose options open it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an input, wherever it lies."""

    name: str
    """Path relative to the input's root, with forward slashes. Unique within the input."""
    url: str
    datastore: str | None
    size: int
    """Bytes; 0 where the store does not tell."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the input that is not scored."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of an input in the order of their names, byte by byte within each location."""

    files: list[StoredFile]
    skipped: list[Skipped]


def list_input(
    stores: Stores,
    locations: Sequence[Place],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    recursive: bool = False,
) -> Listing:
    """Find the files of an input.

    Args:
        stores: opens the locations.
        locations: files, folders and local globs. Where two of them hold the same name, names get the location's number
            in front (``2/data.csv``).
        include: globs of relative names to take; none takes all. ``*`` stays within a folder, ``**`` does not. A glob
            without a slash is compared with the last part of the name.
        exclude: globs of relative names to leave out.
        recursive: whether sub-folders are explored.

    Raises:
        InputError: a location does not exist, or no file is left to score.
    """
    found = [list(_files_of(stores, place, recursive=recursive)) for place in locations]
    names = [file.name for files in found for file in files]
    clash = len(set(names)) < len(names)
    files: list[StoredFile] = []
    skipped: list[Skipped] = []
    for number, group in enumerate(found, 1):
        for file in group:
            name = as_text(f"{number}/{file.name}" if clash else file.name)
            reason = _reason_to_skip(file.name, include, exclude)
            if reason:
                skipped.append(Skipped(name, reason))
            else:
                files.append(StoredFile(name, file.url, file.datastore, file.size))
    if not files:
        raise InputError(_nothing_found(locations, len(skipped), recursive=recursive))
    return Listing(files, skipped)


def matches(name: str, pattern: str) -> bool:
    """Whether a relative name fits a glob."""
    target = name if "/" in pattern else PurePosixPath(name).name
    return _pattern(pattern).fullmatch(target) is not None


def _files_of(stores: Stores, place: Place, *, recursive: bool) -> Iterator[StoredFile]:
    url, datastore = place
    path = stores.local_path(url)
    if path is not None and not path.exists() and glob.has_magic(str(path)):
        yield from _globbed(path, datastore, recursive=recursive)
    elif stores.is_folder(url, datastore):
        for item in stores.list(url, datastore, recursive=recursive):
            yield StoredFile(item.path, item.url, datastore, item.size)
    else:
        stores.check_readable(url, datastore)
        name = path.name if path is not None else PurePosixPath(unquote(urlsplit(url).path)).name
        yield StoredFile(
            name or "input", str(path) if path is not None else url, datastore, stores.size(url, datastore)
        )


def _globbed(path: Path, datastore: str | None, *, recursive: bool) -> Iterator[StoredFile]:
    """Files that a local glob finds, named from the last folder before the first wildcard. Folders give their files."""
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed]) if fixed else Path()
    found: set[Path] = set()
    for match in glob.iglob(str(path), recursive=True, include_hidden=True):  # noqa: PTH207 -- Path.glob of 3.11 follows no links
        if Path(match).is_dir() and "**" not in str(path):
            found.update(item for item in Path(match).glob("**/*" if recursive else "*") if item.is_file())
        elif Path(match).is_file():
            found.add(Path(match))
    if not found:
        raise InputError(f"No file matches {path}. Check the pattern; quote it so that the shell leaves it alone.")
    for item in sorted(found, key=os.fsencode):
        yield StoredFile(item.relative_to(root).as_posix(), str(item), datastore, item.stat().st_size)


def _reason_to_skip(name: str, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    if include and not any(matches(name, pattern) for pattern in include):
        return "not included"
    hit = next((pattern for pattern in exclude if matches(name, pattern)), None)
    return f"excluded by {hit}" if hit else None


@functools.lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    text, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            text, position = text + "(?:.*/)?", position + 3
        elif pattern.startswith("**", position):
            text, position = text + ".*", position + 2
        elif pattern[position] == "*":
            text, position = text + "[^/]*", position + 1
        elif pattern[position] == "?":
            text, position = text + "[^/]", position + 1
        elif pattern[position] == "[" and (end := pattern.find("]", position + 2)) > 0:
            inside = pattern[position + 1 : end].replace("\\", "\\\\")
            text, position = text + f"[{'^' + inside[1:] if inside[0] == '!' else inside}]", end + 1
        else:
            text, position = text + re.escape(pattern[position]), position + 1
    return re.compile(text, re.DOTALL)


def _nothing_found(locations: Sequence[Place], skipped: int, *, recursive: bool) -> str:
    where = ", ".join(url for url, _ in locations)
    if skipped:
        return f"Nothing to score in {where}: all {skipped} files are left out. Check include and exclude."
    hint = "" if recursive else " Sub-folders are not explored unless 'recursive' is set."
    return f"Nothing to score: {where} holds no file.{hint}"
