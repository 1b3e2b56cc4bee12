"""Bytes, wherever they lie: list, open, fetch, put, publish. The only module that knows fsspec.

A place is an absolute local path, or an fsspec URL together with the name of the datastore whose options open it.
Local files never go through fsspec: they are read and renamed directly.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import quote, unquote, urlsplit

from batchpoint.entities.resources import Datastore
from batchpoint.errors import AlreadyExistsError, DatastoreError, InputError, InvalidEntityError

EXTRAS = {
    "s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"), "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"), "abfss": ("adlfs", "azure"), "adl": ("adlfs", "azure"), "wasbs": ("adlfs", "azure"),
}  # fmt: skip
"""For each protocol that a plain install cannot open: the package it needs, and the extra that brings it."""

_CHUNK = 1 << 20
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_LONGEST_NAME, _LONGEST_PATH, _MOST_FOLDERS = 255, 4095, 254
"""Linux takes names and paths of so many bytes; blobs of Azure lie in so many folders."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One file that a listing found."""

    url: str
    path: str
    """Path below the listed place, with forward slashes."""
    size: int
    """Bytes."""
    fingerprint: str = ""
    """Changes whenever the content does: size, and time of change or entity tag, as the store tells them."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies directly in a folder."""

    folders: tuple[str, ...]
    """Names, sorted byte by byte."""
    files: tuple[StoredObject, ...]
    """The same; ``path`` is the name."""


class Stores:
    """Opens places with the options of their datastores.

    Args:
        storage_options: for each datastore with options, what ``storage_options()`` gave for it.
    """

    def __init__(self, storage_options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._options = {name: dict(options) for name, options in (storage_options or {}).items()}

    @staticmethod
    def is_local(url: str) -> bool:
        """Whether a place lies on this machine."""
        scheme, separator, _ = url.partition("://")
        return not separator or scheme in {"file", "local"} or url.startswith("file:")

    @staticmethod
    def local_path(url: str) -> Path | None:
        """The local path that a place is, or None when it lies elsewhere."""
        if not Stores.is_local(url):
            return None
        if "://" in url or url.startswith("file:"):
            return Path(unquote(urlsplit(url).path))
        return Path(url)

    def exists(self, url: str, datastore: str | None = None) -> bool:
        """Whether a file or a folder lies there. Raises ``DatastoreError`` when the store does not answer."""
        if (path := self.local_path(url)) is not None:
            with _reported(url):
                return path.exists()
        with self._access(url, datastore) as (system, inner):
            return bool(system.exists(inner))

    def is_folder(self, url: str, datastore: str | None = None) -> bool:
        """Whether a folder lies there. Raises ``DatastoreError`` when the store does not answer."""
        if (path := self.local_path(url)) is not None:
            return path.is_dir()
        with self._access(url, datastore) as (system, inner):
            return _protocol(url) not in {"http", "https"} and bool(system.isdir(inner))

    def size(self, url: str, datastore: str | None = None) -> int:
        """Bytes of a file; 0 where the store does not tell. Raises ``InputError`` when it is missing."""
        if (path := self.local_path(url)) is not None:
            self.check_readable(url)
            return path.stat().st_size
        with self._access(url, datastore) as (system, inner):
            return int(system.size(inner) or 0)

    def list(
        self, url: str, datastore: str | None = None, *, recursive: bool = False, within: str | None = None
    ) -> Iterator[StoredObject]:
        """The files of a folder, sorted by path byte by byte: its direct children, or all below it.

        Links of this machine are followed, but for those that lead nowhere or round in a circle.

        Args:
            url: the folder.
            datastore: the one that it lies in.
            recursive: whether what lies in folders of it is listed, too.
            within: a folder that no link may lead out of, when it lies on this machine.

        Raises:
            InputError: there is no such folder.
            DatastoreError: the store does not answer.
        """
        if (path := self.local_path(url)) is not None:
            yield from _list_local(path, recursive=recursive, within=within)
            return
        with self._access(url, datastore) as (system, inner):
            root = inner.rstrip("/")
            if recursive:
                found = system.find(root, detail=True)
            else:
                found = {entry["name"]: entry for entry in system.ls(root, detail=True)}
        files = ((name, entry) for name, entry in found.items() if entry.get("type") != "directory")
        objects = (_stored(url, root, name, entry) for name, entry in files)
        yield from sorted((each for each in objects if each.path), key=lambda each: each.path.encode())

    def some(self, url: str, datastore: str | None = None, *, limit: int) -> Sequence[StoredObject]:
        """So many files of a folder and those below it, whichever are found first; no more are looked at.

        Raises:
            InputError: there is no such folder.
            DatastoreError: the store does not answer.
        """
        if (path := self.local_path(url)) is not None:
            with _reported(url):
                return [*islice(_found_local(path, recursive=True, within=None), limit)]
        with self._access(url, datastore) as (system, inner):
            root = inner.rstrip("/")
            walked = (entry for _, _, files in system.walk(root, detail=True) for entry in files.values())
            objects = (_stored(url, root, entry["name"], entry) for entry in walked)
            return [*islice((each for each in objects if each.path), limit)]

    def listing(self, url: str, datastore: str | None = None, *, within: str | None = None) -> Listing:
        """What lies directly in a folder, folders too. Links of this machine are followed as ``list`` does.

        Raises:
            InputError: there is no such folder.
            DatastoreError: the store does not answer.
        """
        files = tuple(self.list(url, datastore, within=within))
        if (path := self.local_path(url)) is not None:
            with _reported(url):
                folders = _Scan(recursive=False, within=os.path.realpath(within or path)).folders(path)
        else:
            with self._access(url, datastore) as (system, inner):
                entries = system.ls(inner.rstrip("/"), detail=True)
            found = [entry["name"].rstrip("/") for entry in entries if entry.get("type") == "directory"]
            folders = [name.rpartition("/")[2] for name in found if name != inner.rstrip("/")]
        return Listing(tuple(sorted(folders, key=os.fsencode)), files)

    def is_within(self, url: str, root: str) -> bool:
        """Whether a place of this machine is a folder, or lies in it, after all links; true of places elsewhere."""
        path, folder = self.local_path(url), self.local_path(root)
        if path is None or folder is None:
            return True
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))

    def fingerprint(self, url: str, datastore: str | None = None) -> str | None:
        """Changes when a file there, or below there, is added, taken away or written: a hash of names, sizes and times
        (or etags), not of contents. None where the store tells none of these.

        Raises:
            InputError: nothing is there.
            DatastoreError: the store does not answer.
        """
        if self.is_folder(url, datastore):
            found = [f"{file.path} {file.fingerprint}" for file in self.list(url, datastore, recursive=True)]
        else:
            found = [self._fingerprint_of_file(url, datastore)]
        if any(told.endswith("-") for told in found):  # a size alone says too little
            return None
        return hashlib.sha256("\n".join(found).encode(errors="surrogateescape")).hexdigest()

    @contextmanager
    def open_read(self, url: str, datastore: str | None = None) -> Iterator[IO[bytes]]:
        """A file to read from. Raises ``InputError`` when it is missing or may not be read."""
        if (path := self.local_path(url)) is not None:
            self.check_readable(url)
            with path.open("rb") as file:
                yield file
            return
        with self._access(url, datastore) as (system, inner), system.open(inner, "rb") as file:
            yield cast("IO[bytes]", file)

    def fetch(self, url: str, target: Path, datastore: str | None = None) -> Path:
        """Copy a file to this machine; the target appears whole or not at all.

        Raises:
            InputError: it is missing or may not be read.
            DatastoreError: the store does not answer.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self.open_read(url, datastore) as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def put(self, source: Path, url: str, datastore: str | None = None, *, exclusive: bool = False) -> None:
        """Copy a file of this machine to a place, where it appears whole or not at all.

        Object stores show an object when its upload is complete; on this machine the copy is synced and renamed.

        Args:
            source: the file.
            url: the place.
            datastore: the one that the place lies in.
            exclusive: never in place of a file that is there already, also not of one that appears meanwhile; as far
                as the store can tell: S3, Google's and Azure's can.

        Raises:
            AlreadyExistsError: there is one.
            DatastoreError: it could not be written there.
        """
        if (path := self.local_path(url)) is not None:
            with source.open("rb") as file:
                _write_local(path, file, exclusive=exclusive)
            return
        with self._access(url, datastore) as (system, inner):
            try:
                system.put_file(str(source), inner, **({"mode": "create"} if exclusive else {}))
            except FileExistsError:
                raise AlreadyExistsError(f"{url} exists already.") from None

    def move(self, source: Path, url: str, datastore: str | None = None, *, exclusive: bool = False) -> None:
        """As ``put``, of a file that is not needed any more: within one file system it is renamed, not copied.

        Raises:
            AlreadyExistsError: it is to be exclusive, and a file is there.
            InvalidEntityError: a file lies where a folder of the path would have to be.
            DatastoreError: it could not be written there.
        """
        if (path := self.local_path(url)) is not None:
            with _reported(url):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    message = f"{url} cannot be written: a file lies where one of its folders would have to be."
                    raise InvalidEntityError(message) from None
                with source.open("rb") as file:
                    os.fsync(file.fileno())
                try:
                    _rename(source, path, exclusive=exclusive)
                except OSError as fault:
                    if fault.errno != errno.EXDEV:
                        raise
                else:
                    return
        self.put(source, url, datastore, exclusive=exclusive)
        source.unlink()

    def write_bytes(self, url: str, content: bytes, datastore: str | None = None) -> None:
        """Write a small file, whole or not at all. Raises ``DatastoreError`` when it cannot be written."""
        if (path := self.local_path(url)) is not None:
            _write_local(path, content)
            return
        with self._access(url, datastore) as (system, inner):
            system.pipe_file(inner, content)

    def remove(self, url: str, datastore: str | None = None) -> None:
        """Remove a file, or a folder with all that it holds; nothing there is fine."""
        if (path := self.local_path(url)) is not None:
            with _reported(url):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            return
        with self._access(url, datastore) as (system, inner):
            if system.exists(inner):
                system.rm(inner, recursive=True)

    def check_readable(self, url: str, datastore: str | None = None) -> None:
        """Raises ``InputError`` when nothing is there or it may not be read, ``DatastoreError`` when nobody answers."""
        if not self.exists(url, datastore):
            # Asked whether an address exists, fsspec takes a server that does not answer for a no.
            silent = " or its server does not answer" if _protocol(url) in {"http", "https"} else ""
            raise InputError(f"{url} does not exist{silent}. Check the path{_of(datastore)}.", url=url)
        if (path := self.local_path(url)) is not None:
            if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
                raise InputError(f"{url} may not be read. Give this user the right to read it.", url=url)
            return
        with self._access(url, datastore) as (system, inner):
            if not system.isdir(inner) and _protocol(url) not in {"http", "https"}:
                system.info(inner)

    def check_writable(self, url: str, datastore: str | None = None) -> None:
        """Raises ``DatastoreError`` when a file or folder could not be created there. Leaves nothing behind."""
        if _protocol(url) in {"http", "https"}:
            raise DatastoreError(f"{url} cannot be written: http is for input. Name another place.", url=url)
        if (path := self.local_path(url)) is not None:
            nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
            if not (nearest.is_dir() or nearest == path) or not os.access(nearest, os.W_OK):
                message = f"{url} cannot be written: {nearest} is not a folder this user may write to."
                raise DatastoreError(message, url=url)
            return
        probe = f"{url.rstrip('/')}.batchpoint-{uuid.uuid4().hex[:12]}"
        with self._access(probe, datastore) as (system, inner):
            system.pipe_file(inner, b"batchpoint")
            system.rm_file(inner)

    def _fingerprint_of_file(self, url: str, datastore: str | None) -> str:
        if (path := self.local_path(url)) is not None:
            self.check_readable(url)
            found = path.stat()
            return f"{found.st_size}-{found.st_mtime_ns}"
        with self._access(url, datastore) as (system, inner):
            entry = system.info(inner)
        return _fingerprint(entry, int(entry.get("size") or 0))

    @contextmanager
    def _access(self, url: str, datastore: str | None) -> Iterator[tuple[Any, str]]:
        """The file system of a place and its path there; what goes wrong inside is told in our words."""
        import fsspec  # noqa: PLC0415 -- costs 50 ms that purely local runs need not pay

        protocol = _protocol(url)
        package, extra = EXTRAS.get(protocol, (None, ""))
        if package and importlib.util.find_spec(package) is None:
            message = f"{url} needs the package {package}. Install it with: pip install 'batchpoint[{extra}]'"
            raise DatastoreError(message, url=url)
        with _reported(url, datastore):
            options = self._options.get(datastore, {}) if datastore else {}
            system, inner = fsspec.core.url_to_fs(url, **options)
            if protocol not in {"http", "https", "memory"}:
                system.invalidate_cache()
            yield system, inner


def datastore_url(datastore: Datastore, path: str = "") -> str:
    """The place of ``path`` within a datastore: an absolute local path, or an fsspec URL.

    Raises:
        InvalidEntityError: the path leads out of the datastore, or is longer than file systems take, or the type is
            not supported here.
    """
    inner = path.replace("\\", "/").strip("/")
    if ".." in PurePosixPath(inner).parts or "\x00" in inner:
        raise InvalidEntityError(f"{path!r} leads out of datastore {datastore.name!r}. Leave out the '..'.")
    if datastore.type == "local":
        root = Path(datastore.path or "").expanduser().absolute()
        target = root / inner
        _check_length(target, inner)
        if inner and not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(root)):  # in no circle, either
            raise InvalidEntityError(f"{path!r} leads out of datastore {datastore.name!r} through a link.")
        return f"{target}/" if inner and path.endswith("/") else str(target)
    root_url = _root_url(datastore)
    slash = "/" if inner and path.endswith("/") else ""
    return "/".join(part for part in (root_url, (datastore.path or "").strip("/"), inner) if part) + slash


def _check_length(target: Path, inner: str) -> None:
    """Raises ``InvalidEntityError`` for what every look at the disk would fail at."""
    parts = PurePosixPath(inner).parts
    longest = max((len(os.fsencode(part)) for part in parts), default=0)
    if longest > _LONGEST_NAME or len(parts) > _MOST_FOLDERS or len(os.fsencode(target)) > _LONGEST_PATH:
        message = (
            f"{inner[:60]!r}… is too long for a path of files: a name has {_LONGEST_NAME} bytes at most, a path "
            f"{_LONGEST_PATH} bytes and {_MOST_FOLDERS} folders."
        )
        raise InvalidEntityError(message)


def storage_options(datastore: Datastore) -> dict[str, Any]:
    """The fsspec options that open a datastore, its credentials in clear: hand them on, never write them down.

    Of a ``sql`` datastore: ``url``, the database's whole address.

    Raises:
        InvalidEntityError: the type is not supported here.
    """
    credentials = datastore.credentials
    given = credentials.model_dump(exclude_none=True) if credentials else {}
    secrets = {
        key: value.get_secret_value() if hasattr(value, "get_secret_value") else value for key, value in given.items()
    }
    if datastore.type == "sql":
        return {"url": _database_url(datastore.url or "", secrets)}
    _check_supported(datastore)
    if datastore.type == "s3":
        options = _renamed(secrets, {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token"})
        if datastore.endpoint:
            options["endpoint_url"] = datastore.endpoint
        return options
    if datastore.type == "gcs":
        return _renamed(secrets, {"token": "token"})
    if datastore.type in {"azure_blob", "azure_data_lake_gen2"}:
        return _blob_options(datastore, secrets)
    if datastore.type == "http" and "token" in secrets:
        return {"headers": {"Authorization": f"Bearer {secrets['token']}"}}
    return {}


def _blob_options(datastore: Datastore, secrets: Mapping[str, Any]) -> dict[str, Any]:
    """The account's options. ``endpoint`` is a cloud's suffix, as Azure writes it, or the whole address of the account.

    The second is what emulators and private gateways have: ``http://127.0.0.1:10000/devstoreaccount1``.
    """
    names = ("account_key", "sas_token", "tenant_id", "client_id", "client_secret")
    options = {
        "account_name": datastore.account_name,
        "anon": False,
        **_renamed(secrets, {name: name for name in names}),
    }
    endpoint = (datastore.endpoint or "").rstrip("/")
    if "://" in endpoint:
        parts = {
            "BlobEndpoint": endpoint,
            "AccountName": datastore.account_name,
            "AccountKey": secrets.get("account_key"),
            "SharedAccessSignature": secrets.get("sas_token"),
        }
        options["connection_string"] = ";".join(f"{name}={value}" for name, value in parts.items() if value)
    elif endpoint and endpoint != AZURE_SUFFIX:
        options["account_host"] = f"{datastore.account_name}.blob.{endpoint}"
    return options


def _root_url(datastore: Datastore) -> str:
    _check_supported(datastore)
    if datastore.type == "memory":
        return f"memory://{datastore.name}"
    if datastore.type == "http":
        endpoint = (datastore.endpoint or "").rstrip("/")
        if not endpoint:
            raise InvalidEntityError(
                f"Datastore {datastore.name!r} of type http needs 'endpoint', the address below which."
            )
        return endpoint if "://" in endpoint else f"{datastore.protocol or 'https'}://{endpoint}"
    if datastore.type == "s3":
        return f"s3://{datastore.bucket}"
    if datastore.type == "gcs":
        return f"gs://{datastore.bucket}"
    return f"abfs://{datastore.container_name or datastore.filesystem}"


def _database_url(url: str, secrets: Mapping[str, Any]) -> str:
    """The address with user and password in it."""
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")
    user = secrets.get("username") or place[0]
    if scheme == "sqlite" or not user:
        return url
    who = quote(user, safe="")
    if "password" in secrets:
        who += f":{quote(secrets['password'], safe='')}"
    return f"{scheme}://{who}@{place[2]}"


def _check_supported(datastore: Datastore) -> None:
    if datastore.type == "sql":
        message = f"Datastore {datastore.name} is a database and holds no files. Ask it for rows, with a query."
        raise InvalidEntityError(message)
    supported = ("local", "memory", "http", "s3", "gcs", "azure_blob", "azure_data_lake_gen2")
    if datastore.type not in supported:
        message = f"Datastores of type {datastore.type} are not supported here. Use one of: {', '.join(supported)}."
        raise InvalidEntityError(message)


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {new: values[old] for old, new in names.items() if old in values}


AZURE_SUFFIX = "core.windows.net"
"""Of Azure's public cloud."""
_TELLING = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What file systems call that which changes with the content; the surest first."""


def _stored(url: str, root: str, name: str, entry: Mapping[str, Any]) -> StoredObject:
    """What a store tells of a file below ``root``, which is the path of ``url`` in that store."""
    below = name.lstrip("/").removeprefix(root.lstrip("/")).lstrip("/")
    size = int(entry.get("size") or 0)
    return StoredObject(f"{url.rstrip('/')}/{below}", below, size, _fingerprint(entry, size))


def _fingerprint(entry: Mapping[str, Any], size: int) -> str:
    change = next((str(entry[key]) for key in _TELLING if entry.get(key) is not None), "")
    return f"{size}-{change}"[:128]


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else "file"


def _of(datastore: str | None) -> str:
    return f" in datastore {datastore!r}" if datastore else ""


@contextmanager
def _reported(url: str, datastore: str | None = None) -> Iterator[None]:
    """Tell in our words what a file system or a cloud's client raised."""
    try:
        yield
    except (DatastoreError, InputError, InvalidEntityError):
        raise
    except FileNotFoundError:
        raise InputError(f"{url} does not exist. Check the path{_of(datastore)}.", url=url) from None
    except PermissionError as error:
        message = f"{url} refused access ({error}). Check the credentials{_of(datastore)} and their rights."
        raise DatastoreError(message, url=url) from error
    except OSError as error:
        raise DatastoreError(f"{url} could not be used{_of(datastore)}: {error}", url=url) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in {"builtins", "batchpoint"}:
            raise
        # Each cloud's client has exceptions of its own: network, credentials, signatures.
        message = f"{url} did not answer{_of(datastore)}: {type(error).__name__}: {error}"
        raise DatastoreError(message, url=url) from error


def _list_local(folder: Path, *, recursive: bool, within: str | None) -> Iterator[StoredObject]:
    with _reported(str(folder)):
        found = [*_found_local(folder, recursive=recursive, within=within)]
    yield from sorted(found, key=lambda file: os.fsencode(file.path))


def _found_local(folder: Path, *, recursive: bool, within: str | None) -> Iterator[StoredObject]:
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is not a folder. Check the path.", url=str(folder))
    scan = _Scan(recursive, None if within is None else os.path.realpath(within))
    for below, path, known in scan.files(str(folder), "", (os.path.realpath(folder),)):
        yield StoredObject(path, below, known.st_size, f"{known.st_size}-{known.st_mtime_ns}")


@dataclass(frozen=True, slots=True)
class _Scan:
    """A walk over the files of a folder that goes through links, and round in no circle."""

    recursive: bool
    within: str | None
    """A real folder that no link may lead out of."""

    def files(self, folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, str, os.stat_result]]:
        """Name, path and state of each file; ``above`` are the real folders on the way here."""
        with os.scandir(folder) as entries:
            for entry in entries:
                real = os.path.realpath(entry.path) if entry.is_symlink() else None
                if real is not None and not self._leads_on(real, above):
                    continue
                if entry.is_file():
                    yield prefix + entry.name, entry.path, entry.stat()
                elif self.recursive and entry.is_dir():
                    inner = real or f"{above[-1].rstrip('/')}/{entry.name}"
                    yield from self.files(entry.path, f"{prefix}{entry.name}/", (*above, inner))

    def folders(self, folder: Path) -> list[str]:
        """The names of the folders directly in one."""
        above = (os.path.realpath(folder),)
        with os.scandir(folder) as entries:
            return [
                entry.name
                for entry in entries
                if entry.is_dir() and (not entry.is_symlink() or self._leads_on(os.path.realpath(entry.path), above))
            ]

    def _leads_on(self, real: str, above: tuple[str, ...]) -> bool:
        is_inside = self.within is None or os.path.commonpath([real, self.within]) == self.within
        is_circle = any(f"{folder}/".startswith(f"{real.rstrip('/')}/") for folder in above)
        return Path(real).exists() and is_inside and not is_circle


def _rename(source: Path, target: Path, *, exclusive: bool) -> None:
    """Rename; exclusively never over a file that is there already, which ``rename`` would replace.

    Raises:
        AlreadyExistsError: one is there.
    """
    try:
        if exclusive:
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                target.open("xb").close()  # the name is ours from now on
                source.replace(target)
            else:
                source.unlink()
        else:
            source.replace(target)
    except FileExistsError:
        raise AlreadyExistsError(f"{target} exists already.") from None


def _write_local(path: Path, content: bytes | IO[bytes], *, exclusive: bool = False) -> None:
    with _reported(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with partial.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    shutil.copyfileobj(content, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
            _rename(partial, path, exclusive=exclusive)
        finally:
            partial.unlink(missing_ok=True)
