"""Endpoints and deployments in the words of Azure ML's preview of 2021, brought into those of today.

There one file held the endpoint, its deployments (as a list, or by name), and who gets its traffic. Pure: documents go
in and come out, and every key keeps the place that it was written at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from batchpoint.entities.documents import Document, Key, value_at
from batchpoint.errors import InvalidEntityError

_BATCH_SETTINGS = "batch_settings"
"""Held in the first form what stands at the root in the second."""

_MOVED: tuple[tuple[Key, Key], ...] = (
    (("partition_scheme", "mini_batch_size"), ("mini_batch_size",)),
    (("output_configuration", "output_action"), ("output_action",)),
    (("output_configuration", "append_row_file_name"), ("output_file_name",)),
    (("retry_settings", "maximum_retries"), ("retry_settings", "max_retries")),
    (("retry_settings", "timeout_in_seconds"), ("retry_settings", "timeout")),
    (("model", "local_path"), ("model", "path")),
    (("code_configuration", "code", "local_path"), ("code_configuration", "code")),
    (("code_configuration", "code", "directory"), ("code_configuration", "code")),
    (("environment", "docker", "image"), ("environment", "image")),
    (("compute", "instance_count"), ("instance_count",)),
    (("compute", "target"), ("compute",)),
)
"""Where a key stood → where it stands today."""


def is_preview_endpoint(value: Mapping[str, Any]) -> bool:
    """Whether a document is an endpoint with deployments or traffic, as the preview had it."""
    return "endpoint_name" not in value and bool({"deployments", "traffic"} & value.keys())


def taken_apart(document: Document) -> tuple[Document, list[Document]]:
    """The endpoint, with its default deployment, and the deployments.

    Raises:
        InvalidEntityError: deployments or traffic cannot be read.
    """
    named = [*_deployments(document)]
    endpoint = replace(document, value={k: v for k, v in document.value.items() if k not in ("deployments", "type")})
    if "traffic" in document.value:
        given = endpoint.value.pop("traffic")
        place = document.places.get(("traffic",), document.name)
        known = [part.value.get("name") for part in named]
        endpoint = endpoint.with_value(("defaults", "deployment_name"), default_of(given, place=place, known=known))
    return endpoint, named


def default_of(traffic: Any, *, place: str, known: list[Any] | None = None) -> str | None:
    """The deployment that gets all the traffic; None when none does.

    Args:
        traffic: name of a deployment → 0 or 100.
        place: where it was written, for messages.
        known: names of the deployments that there are; None does not look.

    Raises:
        InvalidEntityError: a share is neither 0 nor 100, or two deployments have 100, or one is not there.
    """
    if not isinstance(traffic, Mapping):
        raise InvalidEntityError(f"{place}: traffic must map names of deployments to 0 or 100.")
    for name, share in traffic.items():
        if str(share) not in ("0", "100"):
            message = f"{place}: traffic of {name} is {share!r}; a batch deployment gets all of it or none: 100 or 0."
            raise InvalidEntityError(message)
        if known is not None and name not in known:
            raise InvalidEntityError(f"{place}: traffic names {name}, which is none of the deployments.")
    full = [str(name) for name, share in traffic.items() if str(share) == "100"]
    if len(full) > 1:
        raise InvalidEntityError(f"{place}: traffic is 100 for {' and '.join(full)}; only one deployment can have it.")
    return full[0] if full else None


def deployment_of_today(document: Document) -> Document:
    """A deployment in either form of the preview, in today's words; one that is so already stays as it is.

    Raises:
        InvalidEntityError: a key has no place left, because another one moved to where it stood.
    """
    settings = document.value.get(_BATCH_SETTINGS)
    if isinstance(settings, Mapping):
        for key in settings:
            document = _moved(document, (_BATCH_SETTINGS, key), (key,))
    for old, new in _MOVED:
        if value_at(document.value, old) is not None:
            document = _moved(document, old, new)
    if value_at(document.value, ("environment", "conda_file")) and value_at(document.value, ("environment", "path")):
        # It named the folder that the conda file was looked for in, which is that of the file itself.
        document = _without(document, ("environment", "path"))
    return document


def _deployments(document: Document) -> Iterator[Document]:
    given = document.value.get("deployments") or {}
    if isinstance(given, Mapping):
        positions: list[tuple[Key, dict[str, Any]]] = [(("deployments", name), {"name": name}) for name in given]
    elif isinstance(given, list):
        positions = [(("deployments", position), {}) for position in range(len(given))]
    else:
        place = document.places.get(("deployments",), document.name)
        raise InvalidEntityError(f"{place}: deployments must be a list, or a mapping of names to deployments.")
    for key, named in positions:
        part = value_at(document.value, key)
        if not isinstance(part, Mapping):
            raise InvalidEntityError(f"{document.places.get(key, document.name)}: a deployment is a mapping of keys.")
        size = len(key)
        yield Document(
            value={**named, "endpoint_name": document.value.get("name"), **part},
            name=document.name,
            places={known[size:]: place for known, place in document.places.items() if known[:size] == key},
            texts={known[size:]: text for known, text in document.texts.items() if known[:size] == key},
        )


def _moved(document: Document, old: Key, new: Key) -> Document:
    """The document with a value, and what is known of it, at another key; a parent that is left empty goes."""
    value = value_at(document.value, old)
    places = {**document.places, **_rooted(document.places, old, new)}
    texts = {**document.texts, **_rooted(document.texts, old, new)}
    document = _without(document, old)
    left = value_at(document.value, new)
    if isinstance(left, Mapping) and old[: len(new)] == new and left:
        key = ".".join(map(str, (*new, next(iter(left)))))
        place = places.get((*new, next(iter(left))), document.name)
        raise InvalidEntityError(f"{place}: key '{key}' is not known here, beside '{'.'.join(map(str, old))}'.")
    return replace(document.with_value(new, value), places=places, texts=texts)


def _rooted(known: Mapping[Key, str], old: Key, new: Key) -> dict[Key, str]:
    return {(*new, *key[len(old) :]): said for key, said in known.items() if key[: len(old)] == old}


def _without(document: Document, key: Key) -> Document:
    *parents, last = key
    parent = value_at(document.value, tuple(parents))
    rest = {name: item for name, item in parent.items() if name != last}
    if not parents:
        return replace(document, value=rest)
    if not rest:
        return _without(document, tuple(parents))
    return document.with_value(tuple(parents), rest)
