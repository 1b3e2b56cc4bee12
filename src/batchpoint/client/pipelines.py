"""Published pipelines: an address of their own that starts a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batchpoint.client.connection import ByteProgress, Connection, address
from batchpoint.client.files import LocalFiles, kind_of, load
from batchpoint.client.jobs import Job, entity_of
from batchpoint.entities.jobs import Job as JobEntity
from batchpoint.entities.jobs import LiteralValue
from batchpoint.entities.pipeline_deployments import CommandJob, PublishedPipeline
from batchpoint.entities.pipelines import Component, Pipeline


class Pipelines:
    """Published pipelines."""

    def __init__(self, connection: Connection, files: Callable[[], LocalFiles]) -> None:
        self._connection = connection
        self._files = files

    def publish(
        self,
        name: str,
        source: Pipeline | Component | Job | str | Path,
        *,
        version: str | None = None,
        description: str | None = None,
        experiment_name: str | None = None,
        progress: ByteProgress | None = None,
    ) -> PublishedPipeline:
        """Give a pipeline an address. Under a name that was published before, it takes the place of what ran there.

        Args:
            name: what it is to be called.
            source: a pipeline, a pipeline component, ``azureml:name:version`` of one, the YAML file of either, or a
                job that ran a pipeline. What the pipeline was given are the defaults of its runs.
            version: free text that is shown with it.
            description: what it does.
            experiment_name: of its runs, unless they name one.
            progress: called while local files are uploaded.

        Raises:
            InvalidEntityError: it is no pipeline, or not a sound one.
        """
        said = {"name": name, "version": version, "description": description, "experiment_name": experiment_name}
        body = {key: value for key, value in said.items() if value is not None} | self._source(source, progress)
        return entity_of(PublishedPipeline, self._connection.send("POST", "/pipelines", body=body, timeout=300))

    def get(self, name: str) -> PublishedPipeline:
        """One of them; ``endpoint`` is its address, ``status`` Active or Disabled."""
        return entity_of(PublishedPipeline, self._connection.get(address("pipelines", name)))

    def list(self, *, limit: int | None = None) -> Iterator[PublishedPipeline]:
        """All of them."""
        for item in self._connection.pages("/pipelines", limit=limit):
            yield entity_of(PublishedPipeline, item)

    def enable(self, name: str) -> PublishedPipeline:
        """Let it be started again."""
        return self._set_status(name, "Active")

    def disable(self, name: str) -> PublishedPipeline:
        """Refuse every start. Runs that go on are left alone."""
        return self._set_status(name, "Disabled")

    def delete(self, name: str) -> None:
        """Take its address away. Its component and its jobs stay; a schedule of it fails from then on."""
        self._connection.send("DELETE", address("pipelines", name))

    def run(
        self,
        name: str,
        parameters: Mapping[str, LiteralValue] | None = None,
        *,
        data: Mapping[str, str | Path] | None = None,
        experiment_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        progress: ByteProgress | None = None,
    ) -> Job:
        """Start a run; answers at once with its job.

        Args:
            name: the published pipeline.
            parameters: values of its inputs that are no data.
            data: a local path, address or reference for each data input.
            experiment_name: recorded with the job.
            tags: recorded with the job.
            progress: called while local files are uploaded.

        Raises:
            ConflictError: it is disabled.
            InvalidEntityError: a parameter is none of the pipeline's, is missing, or of another type.
        """
        files = self._files()
        paths = {key: files.place(path, said=key, progress=progress) for key, path in (data or {}).items()}
        body = {
            "ExperimentName": experiment_name,
            "ParameterAssignments": dict(parameters or {}),
            "DataPathAssignments": paths,
            "Tags": dict(tags or {}),
        }
        given = {key: value for key, value in body.items() if value}
        started = self._connection.send("POST", address("pipelines", name), body=given)
        return Job(self._connection, entity_of(JobEntity, self._connection.get(address("jobs", started["Id"]))))

    def runs(self, name: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Its runs, the newest first: ``Id``, ``Status``, ``HasErrors``, ``TotalRunSteps``, ``ScheduleId``."""
        return self._connection.pages(address("pipelines", name, "runs"), limit=limit)

    def get_run(self, name: str, run: str) -> dict[str, Any]:
        """One of them."""
        return dict(self._connection.get(address("pipelines", name, "runs", run)))

    def _set_status(self, name: str, status: str) -> PublishedPipeline:
        body = self._connection.send("PATCH", address("pipelines", name), body={"status": status})
        return entity_of(PublishedPipeline, body)

    def _source(self, source: Pipeline | Component | Job | str | Path, progress: ByteProgress | None) -> dict[str, Any]:
        if isinstance(source, Job):
            return {"job": source.name}
        if isinstance(source, str) and not source.endswith((".yml", ".yaml")):
            return {"component": source}
        entity = load(source) if isinstance(source, str | Path) else source
        if isinstance(entity, CommandJob):
            entity = entity.as_pipeline()
        kind = kind_of(entity)
        key = "component" if kind == "component" else "pipeline"
        return {key: self._files().entity_body(kind, entity, progress=progress)}
