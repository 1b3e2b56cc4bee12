"""What an invoke is asked with in the words of Azure's preview of 2021, and the traffic of its endpoints."""

from __future__ import annotations

from typing import Any

import click

from batchpoint.cli.options import AnyCommand, State

_PREFIXES = {"folder:": "uri_folder", "file:": "uri_file"}
"""How an address was said to be a folder or a file."""


def place_options(command: AnyCommand) -> AnyCommand:
    """``--input-data``, ``--input-path``, ``--input-datastore``, ``--input-local-path``, ``--output-datastore``."""
    names = (
        ("--input-data", "--input-dataset", "input_data"),
        ("--input-path", "input_address"),
        ("--input-datastore", "input_datastore"),
        ("--input-local-path", "input_local_path"),
        ("--output-datastore", "output_datastore"),
    )
    for declarations in names:
        command = click.option(*declarations, hidden=True)(command)
    return command


def places_given(state: State, given: dict[str, Any]) -> dict[str, Any]:
    """What these options mean in today's words; they are taken out of ``given``. Local data may be uploaded for it."""
    asset, address = given.pop("input_data"), given.pop("input_address")
    datastore, local = _name(given.pop("input_datastore")), given.pop("input_local_path")
    path: str | None
    kind, found = None, [each for each in (asset, local or address or datastore, given["input_path"]) if each]
    if len(found) > 1:
        raise click.UsageError(f"Give one input: {found[0]!r} and {found[1]!r} are two.")
    if local and datastore:
        path = _uploaded(state, local, datastore, address)
    elif datastore:
        path = f"azureml://datastores/{datastore}/paths/{(address or '').lstrip('/')}"
    elif address and not local:
        path, kind = _plain(address)
    else:
        path = found[0] if found else None
    output, output_datastore = given["output_path"], _name(given.pop("output_datastore"))
    if output_datastore:
        output = f"azureml://datastores/{output_datastore}/paths/{(output or '').lstrip('/')}"
    elif output:
        output, _ = _plain(output)
    return {"input_path": path, "input_type": given["input_type"] or kind, "output_path": output}


def traffic_option(command: AnyCommand) -> AnyCommand:
    """``--traffic name:100``: which deployment answers by default."""
    return click.option(
        "--traffic", multiple=True, hidden=True, metavar="NAME:0|100", callback=lambda _, __, texts: _shares(texts)
    )(command)


def _shares(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.strip() for text in texts for pair in text.split(",")]
    shares = {}
    for pair in pairs:
        name, colon, share = pair.replace("=", ":").partition(":")
        if not colon:
            raise click.BadParameter(f"{pair!r}: write NAME:100 or NAME:0.", param_hint="--traffic")
        shares[name.strip()] = share.strip()
    return shares


def _uploaded(state: State, local: str, datastore: str, path: str | None) -> str:
    """A local file, or the files of a folder, in a datastore; answers with the address."""
    from pathlib import Path

    from batchpoint.errors import InvalidEntityError

    source = Path(local).expanduser()
    if not source.exists():
        raise InvalidEntityError(f"{local} does not exist.")
    target = (path or source.name).strip("/")
    if source.is_file():
        return state.client().datastores.upload(datastore, source, target)
    for file in sorted(each for each in source.rglob("*") if each.is_file()):
        state.client().datastores.upload(datastore, file, f"{target}/{file.relative_to(source).as_posix()}")
    return f"azureml://datastores/{datastore}/paths/{target}/"


def _name(datastore: str | None) -> str | None:
    return datastore and datastore.removeprefix("azureml:")


def _plain(address: str) -> tuple[str, str | None]:
    """``folder:azureml://…`` → the address, and that it is a folder. A local ``file:`` address stays one."""
    for prefix, kind in _PREFIXES.items():
        inner = address.removeprefix(prefix)
        if inner != address and (prefix == "folder:" or "://" in inner):
            return inner, kind
    return address, None
