"""How datastores look from the blob side: the account, and a container for each datastore.

The client makes an address of them: ``https://<account>.blob.core.windows.net/<container>/<path>``. With a host in the
account's name that address leads back here, to ``<base>/<workspace>.blob.core.windows.net/<container>/<path>``.
"""

from __future__ import annotations

import re
import uuid
from urllib.parse import quote, unquote, urlsplit

from batchpoint.errors import InvalidEntityError
from batchpoint.operations.assets import DEFAULT_DATASTORE
from batchpoint.server.azureml.wire import Scope

ARTIFACT_DATASTORE = "workspaceartifactstore"
"""Where the client looks for the logs of jobs. There is no such datastore of ours: its files are those of the jobs."""

SUFFIX = ".blob.core.windows.net"
"""What the client adds to the name of an account."""

CODE_UPLOADS = "code-uploads"
"""The folder of the default datastore in which each upload of code has a container of its own."""

_CONTAINERS = {DEFAULT_DATASTORE: "azureml-blobstore", ARTIFACT_DATASTORE: "azureml"}
_DATASTORES = {container: datastore for datastore, container in _CONTAINERS.items()}
_CODE_UPLOAD = re.compile(rf"^/?{CODE_UPLOADS}/(?P<container>[^/]+)/(?P<path>.*)$")
_PATH = re.compile(rf"^(?:/(?P<workspace>[^/]*){re.escape(SUFFIX)})?/(?P<container>[^/]+)/(?P<path>.*)$")


def account_of(scope: Scope) -> str:
    """The account that the client is told, such that it comes to this server and says which workspace it means."""
    return f"{scope.base.partition('://')[2]}/{quote(scope.workspace)}"


def container_of(datastore: str) -> str:
    """The container that stands for a datastore."""
    return _CONTAINERS.get(datastore, datastore)


def place_in(container: str, path: str) -> str:
    """Where a blob lies: ``azureml://datastores/<datastore>/paths/<path>``."""
    datastore = _DATASTORES.get(container, container)
    if "-" in datastore:  # which no datastore has in its name
        datastore, path = DEFAULT_DATASTORE, f"{CODE_UPLOADS}/{container}/{path}"
    return f"azureml://datastores/{datastore}/paths/{path}"


def place_of(scope: Scope, address: str) -> str:
    """Where the blob of an address of this server lies; any other address as it is.

    The account may be missing: where the client joins addresses by itself, it loses it.

    Raises:
        InvalidEntityError: the account is that of another workspace, whose files are not looked for in this one.
    """
    if not address.startswith(f"{scope.base}/"):
        return address
    match = _PATH.match(urlsplit(address).path.removeprefix(urlsplit(scope.base).path))
    if match is None:
        return address
    named = None if match["workspace"] is None else unquote(match["workspace"])
    if named is not None and named.lower() != scope.workspace.lower():
        raise InvalidEntityError(
            f"{address} is an address of workspace {named}, not of {scope.workspace}. Use a file of this workspace: "
            "upload it here, or register the data there."
        )
    return place_in(unquote(match["container"]), unquote(match["path"]))


def new_code_container() -> str:
    """A container for one upload of code, which nothing else is uploaded to."""
    return f"code-{uuid.uuid4().hex}"


def container_path(workspace: str, container: str) -> str:
    """The path of a container on this server, with nothing escaped."""
    return f"/{workspace}{SUFFIX}/{container}"


def blob_address(scope: Scope, datastore: str, path: str) -> str:
    """The address of a file or folder of a datastore, as the client reaches it; ``place_of`` reads it."""
    container = container_of(datastore)
    if datastore == DEFAULT_DATASTORE and (match := _CODE_UPLOAD.match(path)):
        container, path = match["container"], match["path"]
    return f"{scope.base}/{quote(scope.workspace)}{SUFFIX}/{container}/{quote(path.lstrip('/'))}"
