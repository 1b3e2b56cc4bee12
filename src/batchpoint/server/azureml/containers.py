"""How datastores look from the blob side: the account, and a container for each datastore.

The client makes an address of them: ``https://<account>.blob.core.windows.net/<container>/<path>``. With a host in the
account's name that address leads back here, to ``<base>/<workspace>.blob.core.windows.net/<container>/<path>``.
"""

from __future__ import annotations

from urllib.parse import quote

from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.server.azureml.wire import Scope

ARTIFACT_DATASTORE = "workspaceartifactstore"
"""Where the client looks for the logs of jobs. There is no such datastore of ours: its files are those of the jobs."""

SUFFIX = ".blob.core.windows.net"
"""What the client adds to the name of an account."""

_CONTAINERS = {DEFAULT_DATASTORE: "azureml-blobstore", ARTIFACT_DATASTORE: "azureml"}
_DATASTORES = {container: datastore for datastore, container in _CONTAINERS.items()}


def account_of(scope: Scope) -> str:
    """The account that the client is told, such that it comes to this server and says which workspace it means."""
    return f"{scope.base.partition('://')[2]}/{quote(scope.workspace)}"


def container_of(datastore: str) -> str:
    """The container that stands for a datastore."""
    return _CONTAINERS.get(datastore, datastore)


def datastore_of(container: str) -> str:
    """The datastore that a container stands for."""
    return _DATASTORES.get(container, container)


def blob_address(scope: Scope, datastore: str, path: str) -> str:
    """The address of a file or folder of a datastore, as the client reaches it."""
    return f"{scope.base}/{quote(scope.workspace)}{SUFFIX}/{container_of(datastore)}/{quote(path.lstrip('/'))}"
