"""Batch endpoints and their deployments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, func

from batchpoint.entities.base import Entity
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.pipeline_deployments import AnyDeployment, deployment_of
from batchpoint.errors import NotFoundError
from batchpoint.registry.changes import check_unchanged
from batchpoint.registry.database import Database
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import deployments_table as deployments
from batchpoint.registry.tables import endpoints_table as endpoints

E = TypeVar("E", bound=Entity)


class Endpoints:
    """The endpoints of one workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def put(self, endpoint: BatchEndpoint, *, by: str | None, seen: BatchEndpoint | None = None) -> BatchEndpoint:
        """Store an endpoint, new or in place of the one of that name; given ``seen``, in place of that one alone.

        Raises:
            ChangedMeanwhileError: another one is stored than was seen.
        """

        def work(connection: Connection) -> BatchEndpoint:
            query = self._scope.select(endpoints, endpoints.c.body).where(endpoints.c.name == endpoint.name)
            before = connection.execute(query.with_for_update()).scalar()
            check_unchanged(BatchEndpoint.model_validate(before) if before else None, seen)
            stored = stamped(endpoint, before, self._now(), by)
            if before is None:
                connection.execute(self._scope.insert(endpoints).values(name=endpoint.name, body=stored.body()))
            else:
                change = self._scope.update(endpoints).where(endpoints.c.name == endpoint.name)
                connection.execute(change.values(body=stored.body()))
            return stored

        return self._database.store(work)

    def get(self, name: str) -> BatchEndpoint:
        """One endpoint.

        Raises:
            NotFoundError: there is none of that name.
        """
        query = self._scope.select(endpoints, endpoints.c.body).where(endpoints.c.name == name)
        with self._database.read() as connection:
            body = connection.execute(query).scalar()
        if body is None:
            raise NotFoundError(f"There is no batch endpoint named {name}.", kind="endpoint", name=name)
        return BatchEndpoint.model_validate(body)

    def list(self, *, limit: int | None = None, offset: int = 0) -> list[BatchEndpoint]:
        """All endpoints, by name."""
        query = self._scope.select(endpoints, endpoints.c.body).order_by(endpoints.c.name).limit(limit).offset(offset)
        with self._database.read() as connection:
            return [BatchEndpoint.model_validate(body) for body in connection.execute(query).scalars()]

    def delete(self, name: str) -> None:
        """Forget an endpoint and its deployments.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._database.write() as connection:
            if connection.execute(self._scope.delete(endpoints).where(endpoints.c.name == name)).rowcount == 0:
                raise NotFoundError(f"There is no batch endpoint named {name}.", kind="endpoint", name=name)


class Deployments:
    """The deployments of one workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def put(self, deployment: AnyDeployment, *, by: str | None, seen: AnyDeployment | None = None) -> AnyDeployment:
        """Store a deployment, new or in place of the one of that name; given ``seen``, in place of that one alone.

        Raises:
            ConflictError: its endpoint does not exist any more.
            ChangedMeanwhileError: another one is stored than was seen.
        """
        key = (deployments.c.endpoint_name == deployment.endpoint_name, deployments.c.name == deployment.name)

        def work(connection: Connection) -> AnyDeployment:
            query = self._scope.select(deployments, deployments.c.body).where(*key).with_for_update()
            before = connection.execute(query).scalar()
            check_unchanged(deployment_of(before) if before else None, seen)
            stored = stamped(deployment, before, self._now(), by)
            model = stored.model if isinstance(stored, BatchDeployment) and isinstance(stored.model, str) else None
            values = {"compute": stored.compute_name, "model": model, "body": stored.body()}
            if before is None:
                names = {"endpoint_name": deployment.endpoint_name, "name": deployment.name}
                connection.execute(self._scope.insert(deployments).values(**names, **values))
            else:
                connection.execute(self._scope.update(deployments).where(*key).values(values))
            return stored

        return self._database.store(work)

    def get(self, endpoint_name: str, name: str) -> AnyDeployment:
        """One deployment.

        Raises:
            NotFoundError: the endpoint has none of that name.
        """
        key = (deployments.c.endpoint_name == endpoint_name, deployments.c.name == name)
        with self._database.read() as connection:
            body = connection.execute(self._scope.select(deployments, deployments.c.body).where(*key)).scalar()
        if body is None:
            raise _no_deployment(endpoint_name, name)
        return deployment_of(body)

    def list(
        self, *, endpoint_name: str | None = None, compute: str | None = None, model: str | None = None
    ) -> list[AnyDeployment]:
        """Deployments of an endpoint, of a compute, of a model (as they refer to it), or all; by name."""
        query = self._scope.select(deployments, deployments.c.body)
        query = query.order_by(deployments.c.endpoint_name, deployments.c.name)
        if endpoint_name is not None:
            query = query.where(deployments.c.endpoint_name == endpoint_name)
        if compute is not None:
            query = query.where(deployments.c.compute == compute)
        if model is not None:
            query = query.where(deployments.c.model == model)
        with self._database.read() as connection:
            return [deployment_of(body) for body in connection.execute(query).scalars()]

    def count(self, endpoint_name: str) -> int:
        """How many deployments an endpoint has."""
        query = self._scope.select(deployments, func.count()).where(deployments.c.endpoint_name == endpoint_name)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def delete(self, endpoint_name: str, name: str) -> None:
        """Forget a deployment.

        Raises:
            NotFoundError: the endpoint has none of that name.
        """
        key = (deployments.c.endpoint_name == endpoint_name, deployments.c.name == name)
        with self._database.write() as connection:
            if connection.execute(self._scope.delete(deployments).where(*key)).rowcount == 0:
                raise _no_deployment(endpoint_name, name)


def _no_deployment(endpoint_name: str, name: str) -> NotFoundError:
    message = f"Deployment {name} not found for endpoint {endpoint_name}."
    return NotFoundError(message, kind="deployment", name=name, endpoint=endpoint_name)


def stamped(entity: E, before: dict[str, Any] | None, now: datetime, by: str | None) -> E:
    """The entity with the fields set that only the server sets."""
    if before is None:
        return entity.model_copy(update={"created_at": now, "created_by": by, "modified_at": None})
    created = {"created_at": datetime.fromisoformat(before["created_at"]), "created_by": before.get("created_by")}
    return entity.model_copy(update={**created, "modified_at": now})
