"""The ways to say where something lies, and what they mean: datastore paths, assets' ids, jobs' outputs, URLs, paths.

Forms and grammar are those of Azure ML (short and long datastore addresses, asset ids, job outputs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from batchpoint.entities.base import Reference, parse_reference
from batchpoint.entities.resources import Datastore
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.registry import Registry
from batchpoint.storage.datastores import Stores, datastore_url, storage_options

_DATASTORE = re.compile(r"^(?:azureml:/)?/(?:subscriptions/.*/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)$")
_DATASTORE_ALONE = re.compile(r"^azureml://datastores/[^/]+/?$")
_JOB_OUTPUT = re.compile(r"^azureml://jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths/(?P<path>.*))?$")
_ASSET_ID = re.compile(
    r"^(?:azureml:/?)?/(?:locations|subscriptions)/.*/(?P<kind>data|models|environments|codes|components)/(?P<name>[^/]+)"
    r"/(?:versions/)?(?P<by>versions|labels)/(?P<which>[^/]+)/?$"
)
_DATABASE = re.compile(r"^azureml://datastores/(?P<datastore>[^/]+)(?:/(?:paths/?)?)?$")
_DATABASE_URL = re.compile(r"^(?:sqlite:///.|postgres(?:ql)?(?:\+psycopg)?://)")
_SHORT_REFERENCE = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*[:@][a-zA-Z0-9_.\-]+$")

_SCHEMES = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "wasbs", "memory"})
"""What a URL may begin with. Others of fsspec would open files of this machine by another name, or do so in chains."""

SUPPORTED = (
    "Give a registered asset (azureml:name:version or azureml:name@latest), a datastore path "
    "(azureml://datastores/<datastore>/paths/<path>), a URL, or an absolute path of the server's machine."
)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that bytes lie."""

    uri: str
    """As it is kept: ``azureml://datastores/<ds>/paths/<p>``, a URL, or an absolute path."""
    url: str
    """As storage opens it: an absolute path or an fsspec URL."""
    datastore: str | None = None
    """Name of the datastore whose options open it."""


class Places:
    """Finds places by what the registry knows."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def stores(self) -> Stores:
        """Storage that can open every datastore, credentials included."""
        return Stores(self.storage_options())

    def storage_options(self) -> dict[str, dict[str, object]]:
        """For each datastore that needs some, the options that open it, secrets in clear."""
        options = {}
        for entity in self._registry.resources.list("datastore"):
            datastore = cast("Datastore", entity)
            if datastore.type in {"local", "memory"}:
                continue
            credentials = self._registry.resources.credentials(datastore.name)
            try:
                options[datastore.name] = storage_options(datastore.model_copy(update={"credentials": credentials}))
            except InvalidEntityError:
                continue  # a type that is recorded but cannot be opened here: naming it fails, the others work
        return options

    def resolve(self, text: str) -> Place:
        """Where ``text`` points to; whether anything lies there is not looked at.

        Raises:
            InvalidEntityError: the text is of no known form.
            NotFoundError: it names a datastore or job that does not exist.
        """
        if match := _DATASTORE.match(text):
            datastore = cast("Datastore", self._registry.resources.get("datastore", match["datastore"]))
            return _in_datastore(datastore, match["path"])
        if match := _JOB_OUTPUT.match(text):
            return self._job_output(match["job"], match["output"], match["path"] or "")
        if _DATASTORE_ALONE.match(text):
            message = f"{text!r} names a datastore and no place in it: add /paths/<path>, or, for a database, a query."
            raise InvalidEntityError(message, on_command_line="--input-query <query>, for a database")
        if text.startswith("azureml:"):
            raise InvalidEntityError(f"{text!r} does not say where something lies. {SUPPORTED}")
        if text.startswith("file:") or "://" not in text:
            path = cast("Path", Stores.local_path(text))
            path = path.expanduser()
            if not path.is_absolute():
                raise InvalidEntityError(f"{text!r} is a relative path, which the server cannot place. {SUPPORTED}")
            slash = "/" if text.endswith("/") and str(path) != "/" else ""
            return Place(f"{path}{slash}", f"{path}{slash}")
        _check_url(text)
        return Place(text, text)

    def resolve_all(self, texts: Iterable[str]) -> list[Place]:
        """``resolve`` for thousands of texts: each datastore is looked up once.

        Raises:
            InvalidEntityError, NotFoundError: as ``resolve``.
        """
        known: dict[str, Datastore] = {}
        places = []
        for text in texts:
            match = _DATASTORE.match(text)
            if match is None:
                places.append(self.resolve(text))
                continue
            name = match["datastore"]
            if name not in known:
                known[name] = cast("Datastore", self._registry.resources.get("datastore", name))
            places.append(_in_datastore(known[name], match["path"]))
        return places

    def resolve_database(self, text: str) -> Place:
        """The database that ``text`` names. A datastore stays its name in ``url``: its address holds a password.

        Raises:
            InvalidEntityError: it is no database, or its password stands in the address.
            NotFoundError: it names a datastore that does not exist.
        """
        if match := _DATABASE.match(text):
            datastore = cast("Datastore", self._registry.resources.get("datastore", match["datastore"]))
            if datastore.type != "sql":
                message = f"Datastore {datastore.name} is of type {datastore.type}; a query needs one of type sql."
                raise InvalidEntityError(message)
            name = f"azureml://datastores/{datastore.name}"
            return Place(name, name, datastore.name)
        if not _DATABASE_URL.match(text):
            raise InvalidEntityError(
                f"{text!r} is no database that a query can be asked of. Give azureml://datastores/<datastore of type "
                "sql>, sqlite:///<absolute path> or postgresql://<user>@<host>/<database>."
            )
        check_no_password(text)
        return Place(text, text)

    def below(self, place: Place, path: str) -> Place:
        """A path inside a place. Raises ``InvalidEntityError`` when it leads out of it."""
        inner = path.replace("\\", "/").strip("/")
        if ".." in inner.split("/"):
            raise InvalidEntityError(f"{path!r} leads out of {place.uri}. Leave out the '..'.")
        if not inner:
            return place
        return Place(f"{place.uri.rstrip('/')}/{inner}", f"{place.url.rstrip('/')}/{inner}", place.datastore)

    def kept(self, url: str, datastore_name: str | None) -> str:
        """How the URL of something published is kept: by its datastore's address where that is needed to open it again.

        What lies on this machine is kept as its path, which people can use as it is.
        """
        if datastore_name is None or Stores.local_path(url) is not None:
            return url
        datastore = cast("Datastore", self._registry.resources.get("datastore", datastore_name))
        root = datastore_url(datastore, "").rstrip("/") + "/"
        if not url.startswith(root):
            return url
        return f"azureml://datastores/{datastore.name}/paths/{url.removeprefix(root)}"

    def in_datastore(self, text: str) -> str | None:
        """The same place as an address in a datastore, where it is kept as a path of this machine; None for what lies
        in no datastore."""
        if _DATASTORE.match(text):
            return text
        path = Stores.local_path(text) if text.startswith("file:") or "://" not in text else None
        for entity in self._registry.resources.list("datastore") if path is not None else ():
            datastore = cast("Datastore", entity)
            root = Stores.local_path(datastore_url(datastore, "")) if datastore.type == "local" else None
            if root is not None and path is not None and path.is_relative_to(root):
                slash = "/" if text.endswith("/") else ""
                inner = path.relative_to(root).as_posix()
                return f"azureml://datastores/{datastore.name}/paths/{inner}{slash}"
        return None

    def _job_output(self, job_name: str, output: str, path: str) -> Place:
        outputs = self._registry.jobs.get(job_name).outputs
        uri = outputs[output].folder if output in outputs else None
        if uri is None:
            message = f"Job {job_name} has published no output named {output}."
            raise NotFoundError(message, kind="output", name=output, job=job_name)
        return self.below(self.resolve(uri), path)


def check_no_password(url: str) -> None:
    """Refuse an address of a database that holds its password, which would be stored and shown as it is.

    Raises:
        InvalidEntityError: it does.
    """
    if urlsplit(url).password is not None:
        raise InvalidEntityError(
            "The address of the database holds its password, which would be kept in clear. Create a datastore of type "
            "sql with the password as a credential, or put it into ~/.pgpass of the server's user."
        )


def _check_url(text: str) -> None:
    scheme = text.partition("://")[0].lower()
    is_chain = "::" in re.sub(r"\[[^]]*]", "", text)  # outside of an IPv6 address, fsspec takes it for a chain
    if scheme not in _SCHEMES or is_chain:
        known = ", ".join(sorted(_SCHEMES))
        raise InvalidEntityError(f"{text!r} is no address that is opened here: {known}. {SUPPORTED}")
    try:
        _ = urlsplit(text).port
    except ValueError as fault:
        raise InvalidEntityError(f"{text!r} is not a URL: {fault}.") from None


def _in_datastore(datastore: Datastore, path: str) -> Place:
    uri = f"azureml://datastores/{datastore.name}/paths/{path}"
    return Place(uri, datastore_url(datastore, path), datastore.name)


def asset_reference(text: str) -> Reference | None:
    """The asset that ``text`` names, or None when it says a place or is nothing of ours.

    Raises:
        InvalidEntityError: it starts as a reference and is none.
    """
    if match := _ASSET_ID.match(text):
        by_version = match["by"] == "versions"
        return Reference(match["name"], match["which"] if by_version else None, None if by_version else match["which"])
    if text.startswith("azureml://registries/"):
        raise InvalidEntityError(f"{text!r} lies in a shared registry, which does not exist here. Register it first.")
    if (text.startswith("azureml:") and not text.startswith("azureml://")) or _SHORT_REFERENCE.match(text):
        return parse_reference(text)
    return None
