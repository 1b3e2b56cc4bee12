"""The files of an input → files on this machine, remote ones a few ahead of who asks for them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from batchpoint.errors import InputError
from batchpoint.scoring.mini_batches import ErrorInfo, InputFile, error_info
from batchpoint.storage.datastores import Stores
from batchpoint.storage.inputs import StoredFile

_FETCHERS = 4
_FETCH_AHEAD = 8
"""Remote files fetched before they are needed."""


def fetched(
    files: list[StoredFile], stores: Stores, folder: Path
) -> Iterator[InputFile | tuple[StoredFile, ErrorInfo]]:
    """The files on this machine, in order; remote ones are fetched a few ahead by threads into ``folder/inputs``.

    A file that cannot be had is told with the reason.
    """
    if all(stores.is_local(file.url) for file in files):
        for file in files:  # no Path for a path that is whole: among many files that is what planning costs
            path = file.url if file.url.startswith("/") else str(Path(file.url).absolute())
            yield InputFile(file.name, path, file.size)
        return
    waiting = iter(files)
    ahead: deque[tuple[StoredFile, Future[InputFile]]] = deque()
    with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:
        try:
            while True:
                for upcoming in itertools.islice(waiting, _FETCH_AHEAD - len(ahead)):
                    ahead.append((upcoming, pool.submit(_fetch, upcoming, stores, folder)))
                if not ahead:
                    return
                file, future = ahead.popleft()
                try:
                    local = future.result()
                except InputError as error:
                    yield file, error_info(error)
                else:
                    yield local
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch(file: StoredFile, stores: Stores, folder: Path) -> InputFile:
    if (path := stores.local_path(file.url)) is not None:
        return InputFile(file.name, str(path.absolute()), file.size)
    parts = [part for part in PurePosixPath(file.name).parts if part not in {"..", "/"}]
    target = folder / "inputs" / "fetched" / Path(*parts)
    if not target.exists():  # a resumed run has it already: files are fetched whole or not at all
        stores.fetch(file.url, target, file.datastore)
    return InputFile(file.name, str(target), target.stat().st_size)
