"""What must not be shown of what people declare: values of environment variables, and what opens an address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_ADDRESSES = frozenset({"path", "paths", "url", "uri", "folder", "known", "reference"})
_PORTS = frozenset({"inputs", "outputs", "literals"})
"""Texts below these are addresses, or may be."""
_PACKAGES = frozenset({"dependencies", "pip", "pip_requirements", "conda_file"})
_TEXTS = frozenset({"message", "traceback", "files_missing", "outputs_missing"}) | _PACKAGES
"""Texts that may quote addresses; indexes of packages are among them."""
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*://[^\s'\"<>]+")


def masked(address: str) -> str:
    """The address without its password, and without the values of its query: a signature is one of them.

    Whoever is named in an address of the web is named by a token as often as not.
    """
    if "://" not in address:
        return address
    place, mark, query = address.partition("?")
    place = re.sub(r"(https?://)[^/@]+@", rf"\1{HIDDEN}@", place)
    place = re.sub(r"(://[^:/@]*):[^@]*@", rf"\1:{HIDDEN}@", place)
    return place + mark + re.sub(r"(^|[&;])([^=&;/]+)=[^&;]*", rf"\1\2={HIDDEN}", query)


def masked_in(text: str) -> str:
    """A text with each address in it masked."""
    return _ADDRESS.sub(lambda found: masked(found[0]), text)


def without_secrets(value: Any, key: str = "") -> Any:
    """Values ready for JSON as they may be shown to everybody who may look: environment variables keep their names.

    Only keys that hold addresses or messages are masked: what a file or a log holds is shown as it is.
    """
    if isinstance(value, Mapping):
        if key == "environment_variables":
            return dict.fromkeys(value, HIDDEN)
        is_port = key in _PORTS
        return {
            name: without_secrets(item, key if is_port and isinstance(item, str) else name)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in _TEXTS:
        return masked_in(value)
    return masked(value) if key in _ADDRESSES | _PORTS else value
