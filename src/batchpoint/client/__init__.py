"""The Python client: the same verbs as the operations, over HTTP."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchpoint import __version__
from batchpoint.client.apply import Applying, Outcome, Told
from batchpoint.client.assets import Assets
from batchpoint.client.azureml import AccessToken, AzureML, connect, signed_token
from batchpoint.client.connection import ByteProgress, Connection
from batchpoint.client.endpoints import Deployments, Endpoints
from batchpoint.client.files import LocalFiles, kind_of, load
from batchpoint.client.jobs import Job, Jobs
from batchpoint.client.pipelines import Pipelines
from batchpoint.client.resources import Computes, Datastores, Webhooks
from batchpoint.client.schedules import Schedules
from batchpoint.client.tokens import Tokens
from batchpoint.client.workspaces import Workspaces
from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.base import Entity
from batchpoint.entities.documents import Kind
from batchpoint.entities.endpoints import BatchEndpoint
from batchpoint.entities.pipelines import Component
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.entities.studio_addresses import Addresses
from batchpoint.entities.webhooks import Webhook
from batchpoint.entities.workspaces import DEFAULT_WORKSPACE, workspace_key
from batchpoint.settings import Settings

__all__ = ["Client", "Job", "load"]


class VersionMismatchWarning(UserWarning):
    """Client and server are of different versions."""


class Client:
    """Speaks to a server; with no address, to the local server of the home folder, which is started when none runs.

    Args:
        url: address of a server; else ``BATCHPOINT_URL``, else the local server.
        token: bearer token; else ``BATCHPOINT_TOKEN``, else the token that the local server left in its home.
        settings: instead of the settings of the environment.
        workspace: the namespace that names are looked for in; else ``BATCHPOINT_WORKSPACE``, else ``default``. It
            begins to exist when it is used first.

    Raises:
        InvalidEntityError: no workspace can be called so.
        ServerUnavailableError: the local server did not start. A remote one is first asked at the first call.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        settings: Settings | None = None,
        *,
        workspace: str | None = None,
    ) -> None:
        self._settings = settings = settings or Settings.from_environment()
        token = token or settings.token
        url = url or settings.url
        workspace = workspace or settings.workspace
        self.workspace = workspace or DEFAULT_WORKSPACE
        """The workspace that names are looked for in."""
        workspace_key(self.workspace)
        find_again: Callable[[], tuple[str, str | None]] | None = None
        if url is None:

            def find_again() -> tuple[str, str | None]:
                return _local_server(settings, token)

            url, token = find_again()
        self._connection = connection = Connection(url, token, workspace=workspace, find_again=find_again)
        self._server: dict[str, Any] | None = None
        self.models = Assets(connection, self.files, "models", Model)
        self.data = Assets(connection, self.files, "data", Data)
        self.environments = Assets(connection, self.files, "environments", Environment)
        self.codes = Assets(connection, self.files, "codes", Code)
        self.components = Assets(connection, self.files, "components", Component)
        self.computes = Computes(connection, self.files, "computes", Compute)
        self.datastores = Datastores(connection, self.files, "datastores", Datastore)
        self.endpoints = Endpoints(connection, self.files, "endpoints", BatchEndpoint)
        self.deployments = Deployments(connection, self.files)
        self.jobs = Jobs(connection, self.files)
        self.pipelines = Pipelines(connection, self.files)
        self.schedules = Schedules(connection, self.files, "schedules", Schedule)
        self.webhooks = Webhooks(connection, self.files, "webhooks", Webhook)
        self.tokens = Tokens(connection)
        self.workspaces = Workspaces(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connection."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._connection.url

    def studio_url(self, entity: Entity | None = None) -> str | None:
        """Address of an entity's page in the studio, or of the studio itself. None where it has no page."""
        addresses = Addresses(self.workspace)
        page = addresses.home() if entity is None else addresses.page_of(entity)
        return None if page is None else f"{self.url}{page}"

    def server(self) -> dict[str, Any]:
        """``version``, ``id``, ``python``, ``shares_files``, ``role``, asked for once. Warns when versions differ."""
        if self._server is None:
            self._server = dict(self._connection.get("/server"))
            _warn_about_version(self.url, str(self._server.get("version")))
        return self._server

    def create_or_update(self, entity: Entity, *, progress: ByteProgress | None = None) -> Any:
        """Any entity, by its class; answers with it as it is stored, or with the ``Job`` that it starts."""
        return self.door(kind_of(entity)).create_or_update(entity, progress=progress)

    def apply(
        self,
        *paths: str | Path,
        set: Iterable[str] = (),  # noqa: A002 - as --set
        dry_run: bool = False,
        told: Told | None = None,
    ) -> list[Outcome]:
        """Create or update everything that YAML files, and those of folders, declare, in the order of their references.

        A second run changes nothing; whatever differs from the files, whoever changed it, is brought back.

        Args:
            paths: files and folders.
            set: ``key=value``, or ``kind/name:key=value`` where several things are declared.
            dry_run: whether only to say what would be done.
            told: called with each outcome as soon as it is known.

        Raises:
            InvalidEntityError: with every fault of every file, before anything is changed.
            ConflictError: what is declared cannot become so; nothing is changed then.
        """
        applying = Applying(self, paths, set)
        return applying.carry_out(applying.changes(), told, dry_run=dry_run)

    def remove(self, *paths: str | Path, dry_run: bool = False, told: Told | None = None) -> list[Outcome]:
        """Undo ``apply``: delete or archive everything that the files declare, in reverse. What is gone is passed over.

        Raises:
            InvalidEntityError: with every fault of every file.
        """
        applying = Applying(self, paths)
        return applying.carry_out(applying.removals(), told, dry_run=dry_run)

    def audit(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Who did what, and when; the newest first."""
        return self._connection.pages("/audit", limit=limit)

    def azureml(self, *, port: int | None = None, names: Sequence[str] = ()) -> AzureML:
        """How the official ``azure-ai-ml`` client reaches this server, which speaks TLS from now on.

        Args:
            port: where; None means where it did the last time, and the first time a port that is free.
            names: more names that the server is reached by; the first of them is used.

        Raises:
            ConflictError: the port is taken.
            PermissionDeniedError: the server does not speak TLS yet, and the token is not an administrator's.
        """
        return connect(self._connection, self._settings, port=port, names=names)

    def signed_token(self) -> AccessToken:
        """A token that is valid for an hour, such as the official ``azure-ai-ml`` client asks of its credential."""
        return signed_token(self._connection)

    def door(self, kind: Kind) -> Any:
        """The verbs of one kind, such as ``client.models``."""
        doors: dict[Kind, Any] = {
            "model": self.models,
            "data": self.data,
            "environment": self.environments,
            "code": self.codes,
            "component": self.components,
            "compute": self.computes,
            "datastore": self.datastores,
            "endpoint": self.endpoints,
            "deployment": self.deployments,
            "job": self.jobs,
            "schedule": self.schedules,
            "webhook": self.webhooks,
        }
        return doors[kind]

    def files(self) -> LocalFiles:
        """What brings paths of this machine to the server."""
        return LocalFiles(self._connection, shares_files=bool(self.server().get("shares_files")))


def _local_server(settings: Settings, token: str | None) -> tuple[str, str | None]:
    from batchpoint import local_server

    server = local_server.ensure(settings.home)
    _warn_about_version(server.url, server.version)
    return server.url, token or local_server.read_token(settings.home)


def _warn_about_version(url: str, version: str) -> None:
    if version != __version__:
        message = (
            f"The server at {url} is version {version}, this client is version {__version__}. Restart a local server "
            "with 'batchpoint down' and 'batchpoint up'; for another one install its version of batchpoint."
        )
        warnings.warn(message, VersionMismatchWarning, stacklevel=3)
