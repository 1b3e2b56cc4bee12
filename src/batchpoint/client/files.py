"""Files of this machine: YAML files with what they point to, and local paths handed to a server or uploaded to it."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from batchpoint.client.connection import ByteProgress, Connection, address
from batchpoint.content import NEVER_CODE, hash_content, upload_path
from batchpoint.entities.base import Entity
from batchpoint.entities.documents import (
    ENTITY_KINDS,
    Document,
    Key,
    Kind,
    kind_by_schema,
    model_of,
    read_assignment,
    read_document,
)
from batchpoint.entities.endpoints import LEGACY_KEYS
from batchpoint.entities.local_paths import LocalPath, is_local, local_paths, parallel_run_paths
from batchpoint.entities.parallel_run_config import KEY as PARALLEL_RUN_CONFIG
from batchpoint.entities.preview_endpoints import deployment_of_today
from batchpoint.entities.resources import DatastoreCredentials
from batchpoint.entities.webhooks import WebhookCredentials
from batchpoint.errors import InvalidEntityError


def load(path: str | Path, kind: Kind | None = None, *, set: Iterable[str] = ()) -> Entity:  # noqa: A002 - as --set
    """The entity that a YAML file declares, with ``set`` (``a.b=c``) applied before it is checked.

    Local paths in the file are relative to the file and come out absolute; a conda file or requirements file that it
    names is read and put in its place. Without a kind, the file's ``$schema`` or ``type`` tells it.

    Raises:
        InvalidEntityError: with every fault of the file, by line; or a file that it names cannot be read.
    """
    return declared(kind, path=path, assignments=set)


def declared(
    kind: Kind | None,
    *,
    path: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Entity:
    """An entity from a YAML file, values given apart (which win over the file), and ``a.b=c`` assignments (which win).

    Paths of the file are relative to the file; those given otherwise are relative to the working folder.

    Raises:
        InvalidEntityError: as ``load``.
    """
    document, kind = declared_document(kind, path=path, given=given, assignments=assignments)
    return document.entity(kind)


def declared_document(
    kind: Kind | None,
    *,
    path: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> tuple[Document, Kind]:
    """The document of such an entity, with all files that it names in place, and its kind. Raises as ``load``."""
    document = read_yaml(path) if path is not None else Document(value={}, name=kind or "options")
    folder = Path(path).parent.absolute() if path is not None else Path.cwd()
    return _completed(document, kind, folder, given or {}, assignments)


def from_document(
    document: Document,
    kind: Kind | None = None,
    *,
    folder: Path,
    given: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Entity:
    """The same from a document that was read already, and lies in ``folder``."""
    document, kind = _completed(document, kind, folder, given or {}, assignments)
    return document.entity(kind)


def _completed(
    document: Document, kind: Kind | None, folder: Path, given: Mapping[str, Any], assignments: Iterable[str]
) -> tuple[Document, Kind]:
    for key, value in given.items():
        document = document.with_value((key,), value)
    assignments = list(assignments)
    written, document = document, document.with_settings(assignments)
    kind = kind or document.kind()
    if kind == "deployment":
        written = deployment_of_today(written)
        assignments = [_in_form_of(written.value, assignment) for assignment in assignments]
        document = written.with_settings(assignments)
    not_from_file = {*((key,) for key in given), *(read_assignment(text)[0] for text in assignments)}
    return in_place(document, kind, lambda key: Path.cwd() if key in not_from_file else folder), kind


def in_place(
    document: Document, kind: Kind, folder_of: Callable[[Key], Path], *, inside: tuple[str, ...] = ()
) -> Document:
    """The document with absolute paths, and with the content of the files that it is to hold.

    Args:
        document: what was declared.
        kind: what it declares.
        folder_of: the folder that the path at a key is relative to.
        inside: the component files that it stands in, outermost first.

    Raises:
        InvalidEntityError: a file cannot be read, or is a component that holds itself.
    """
    for found in local_paths(kind, document.value):
        if found.holds == "component":
            inner = _component_file(absolute(found.path, folder_of(found.key)), inside)
            document = document.with_document(found.key, inner)
        else:
            document = document.with_value(found.key, _content_or_path(found, folder_of(found.key)))
    return document


def _component_file(path: str, inside: tuple[str, ...]) -> Document:
    """A component's file, whose own paths are relative to it; without a name it is called after the file."""
    if path in inside:
        raise InvalidEntityError(f"A component holds itself: {' → '.join((*inside, path))}.")
    document = read_yaml(path)
    declared_kind = kind_by_schema(document.value)
    if declared_kind not in (None, "component"):
        place = document.places.get(("$schema",), path)
        raise InvalidEntityError(f"{place}: this declares a {declared_kind}; a component was expected.")
    if "name" not in document.value:
        document = document.with_value(("name",), re.sub(r"[^a-z0-9_]", "_", Path(path).stem.lower()))
    return in_place(document, "component", lambda _: Path(path).parent, inside=(*inside, path))


def read_yaml(path: str | Path) -> Document:
    """A YAML file as a document.

    Raises:
        InvalidEntityError: it cannot be read, or is not YAML.
    """
    return read_document(read_text(Path(path)), name=str(path))


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        InvalidEntityError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise InvalidEntityError(f"{path} cannot be read: {reason}.") from None


def _in_form_of(written: Mapping[str, Any], assignment: str) -> str:
    """An assignment to a deployment in the form that its file has: ``mini_batch_size``, at the root or in settings."""
    text = assignment.strip()
    root, *inner = read_assignment(text)[0]
    if root == "instance_count" and written.get("resources"):
        return f"resources.{text}"
    if root in LEGACY_KEYS and written.get("settings"):
        return f"settings.{text}"
    if root == "settings" and inner and inner[0] in LEGACY_KEYS & written.keys():
        return text.removeprefix("settings.")
    return assignment


def _content_or_path(found: LocalPath, folder: Path) -> Any:
    path = absolute(found.path, folder)
    if found.holds == "document":
        document = read_document(read_text(Path(path)), name=str(path))
        return in_place(document, "job", lambda _: Path(path).parent).value
    if found.holds == "conda_file":
        return read_document(read_text(Path(path)), name=str(path)).value
    if found.holds == "parallel_run_config":
        return _parallel_run_config(Path(path))
    if found.holds == "pip_requirements":
        lines = (line.split(" #", 1)[0].strip() for line in read_text(Path(path)).splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    return path


def _parallel_run_config(path: Path) -> Any:
    """What a file of SDK v1's ``ParallelRunConfig`` holds, with its paths, which are relative to it, made absolute."""
    document = read_yaml(path)
    if not isinstance(document.value.get(PARALLEL_RUN_CONFIG), Mapping):
        raise InvalidEntityError(
            f"{path} has no key '{PARALLEL_RUN_CONFIG}', as ParallelRunConfig.save_to_yaml writes."
        )
    for found in [*parallel_run_paths(document.value, ())]:
        document = document.with_value(found.key, _content_or_path(found, path.parent))
    return document.value[PARALLEL_RUN_CONFIG]


def absolute(text: str, folder: Path) -> str:
    """A local path (also ``~`` and ``file:``) as an absolute one; a trailing slash stays."""
    plain = text.removeprefix("file://").removeprefix("file:")
    joined = os.path.normpath(folder / Path(plain).expanduser())
    return f"{joined}/" if plain.endswith("/") and joined != "/" else joined


class LocalFiles:
    """Brings paths of this machine to a server: as they are when it shares this machine's files, else uploaded.

    Uploads go to the default datastore, under the hash of their content, so what is there already is not sent again.
    """

    def __init__(self, connection: Connection, *, shares_files: bool) -> None:
        self._connection = connection
        self._shares_files = shares_files
        self._default_datastore: str | None = None

    def entity_body(self, kind: Kind, entity: Entity, *, progress: ByteProgress | None = None) -> dict[str, Any]:
        """The entity as a request body: files in place, contents read, secrets shown to the server.

        Raises:
            InvalidEntityError: a local path does not exist.
        """
        document = Document(value=with_secrets_of(entity), name=f"{kind} {entity.name or ''}".rstrip())
        if any(found.holds == "component" for found in local_paths(kind, document.value)):
            document = in_place(document, kind, lambda _: Path.cwd())
        problems = []
        for found in local_paths(kind, document.value):
            said = ".".join(map(str, found.key))
            try:
                document = document.with_value(found.key, self._placed(kind, found, said, progress))
            except InvalidEntityError as fault:
                message = fault.message.removeprefix(f"{said}: ")
                problems.append({"place": document.name, "key": said, "message": f"{said}: {message}"})
        if problems:
            message = "\n  ".join(f"{problem['place']}: {problem['message']}" for problem in problems)
            raise InvalidEntityError(message, problems=problems)
        return document.value

    def _placed(self, kind: Kind, found: LocalPath, said: str, progress: ByteProgress | None) -> Any:
        if kind == "schedule" and found.holds == "path" and "job" not in found.key:
            return absolute(found.path, Path.cwd())  # what lies there each time, so nothing is uploaded now
        if kind == "datastore":
            return absolute(found.path, Path.cwd()) if self._shares_files else found.path
        if found.holds == "path":
            return self.place(found.path, said=said, progress=progress)
        return self.output_path(found.path) if found.holds == "output" else _content_or_path(found, Path.cwd())

    def place(self, path: str | Path, *, said: str = "input", progress: ByteProgress | None = None) -> str:
        """What to tell the server for a path: unchanged when it is none of this machine.

        Raises:
            InvalidEntityError: nothing lies there.
        """
        text = str(path)
        if not text:
            # The empty path is the working folder to the system, but an unset variable to whoever wrote the command.
            raise InvalidEntityError(f"{said}: the path is empty.")
        if not is_local(text):
            return text
        local = absolute(text, Path.cwd())
        if not Path(local).exists() and "@" in text and "/" not in text:
            return text  # a reference such as churn@latest
        if not Path(local).exists() and not _matches(local):
            raise InvalidEntityError(f"{said}: {_missing(text, local)}")
        return local if self._shares_files else self._uploaded(local, _files_of(local), progress)

    def output_path(self, path: str) -> str:
        """What to tell the server for a place to write to.

        Raises:
            InvalidEntityError: a local path was given and the server does not share this machine's files.
        """
        if not is_local(path):
            return path
        if not self._shares_files:
            message = (
                f"output {path!r} is a path of this machine, which the server does not share. Write to a datastore "
                "(azureml://datastores/<name>/paths/<path>) and download it from there."
            )
            raise InvalidEntityError(message)
        return absolute(path, Path.cwd())

    def expected_address(self, kind: Kind, local: str) -> str:
        """Where the content of a local file or folder lies once it was handed over or uploaded. Nothing is sent.

        Raises:
            InvalidEntityError: nothing lies at the path, or something in it cannot be copied.
        """
        root = Path(absolute(local, Path.cwd()))
        if not root.exists():
            raise InvalidEntityError(_missing(local, str(root)))
        skip = frozenset[str]() if self._shares_files and kind != "code" else NEVER_CODE
        return f"azureml://datastores/{self._datastore()}/paths/{upload_path(root, hash_content(root, skip))}"

    def expected_code(self, local: str) -> str:
        """The reference to a local folder of code once it was registered: code is named by its content."""
        address = self.expected_address("code", local)
        if self._shares_files:
            return f"azureml:{address.split('/')[-2]}:1"
        return f"azureml:{hashlib.sha256(address.encode()).hexdigest()[:32]}:1"

    def expected_place(self, local: str) -> str:
        """What ``place`` tells the server for a file or folder. Nothing is sent.

        Raises:
            InvalidEntityError: as ``expected_address``.
        """
        if self._shares_files:
            return absolute(local, Path.cwd())
        slash = "" if Path(absolute(local, Path.cwd())).is_file() else "/"
        return f"{self.expected_address('data', local)}{slash}"

    def _uploaded(self, local: str, files: list[tuple[str, Path]], progress: ByteProgress | None) -> str:
        datastore = self._datastore()
        root = Path(local)
        target = upload_path(root, hash_content(root, NEVER_CODE)) if root.exists() else _upload_of_many(files)
        folder = target.rpartition("/")[0] if root.is_file() else target
        known = {
            item["path"]: item.get("size")
            for item in self._connection.pages(f"/datastores/{datastore}/files", prefix=f"{folder}/")
        }
        for name, file in files:
            path = f"{folder}/{name}"
            if known.get(path) != file.stat().st_size:
                self._connection.upload(address("datastores", datastore, "files", file=path), file, progress=progress)
        return f"azureml://datastores/{datastore}/paths/{target}{'' if root.is_file() else '/'}"

    def _datastore(self) -> str:
        if self._default_datastore is None:
            stores = list(self._connection.pages("/datastores"))
            chosen = [store["name"] for store in stores if store.get("is_default")]
            if not chosen:
                raise InvalidEntityError("The server has no default datastore to upload local files to.")
            self._default_datastore = str(chosen[0])
        return self._default_datastore


def with_secrets_of(entity: Entity) -> dict[str, Any]:
    """``Entity.body`` hides secrets, as it should wherever it is shown; the server must get them."""
    body = entity.given()
    credentials = getattr(entity, "credentials", None)
    if credentials is not None:
        body["credentials"] = with_secrets(credentials)
    return body


def with_secrets(credentials: DatastoreCredentials | WebhookCredentials) -> dict[str, str]:
    """Credentials in clear, for the body of a request and nothing else."""
    shown = credentials.model_dump(exclude_none=True)
    return {
        key: value.get_secret_value() if hasattr(value, "get_secret_value") else value for key, value in shown.items()
    }


def _files_of(local: str) -> list[tuple[str, Path]]:
    """Relative name and path of every file below a path or matching a glob, sorted."""
    path = Path(local)
    if path.is_file():
        return [(path.name, path)]
    if path.is_dir():
        found = ((file.relative_to(path), file) for file in path.rglob("*") if file.is_file())
        return sorted((name.as_posix(), file) for name, file in found if NEVER_CODE.isdisjoint(name.parts))
    root = _glob_root(local)
    return sorted((match.relative_to(root).as_posix(), match) for match in _matches(local))


def _matches(pattern: str) -> list[Path]:
    """The files that an absolute glob matches; ``Path.glob`` takes no absolute one."""
    return [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]  # noqa: PTH207 - above


def _missing(said: str, looked_for: str) -> str:
    place = "" if said == looked_for else f" (looked for {looked_for})"
    return f"{said!r} does not exist{place}."


def _glob_root(pattern: str) -> Path:
    """The deepest folder of a glob that holds no wildcard."""
    plain: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return Path(*plain)


def _upload_of_many(files: list[tuple[str, Path]]) -> str:
    """The folder for files that a glob has found, named by their names and contents."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0{hash_content(path)}\0".encode())
    return f"LocalUpload/{digest.hexdigest()[:32]}"


def kind_of(entity: Entity) -> Kind:
    """The kind of an entity object.

    Raises:
        InvalidEntityError: it is not one that a person declares.
    """
    for kind in ENTITY_KINDS:
        if isinstance(entity, model_of(kind, {"type": getattr(entity, "type", None)})):
            return kind
    raise InvalidEntityError(f"A {type(entity).__name__} is not something to create.")
