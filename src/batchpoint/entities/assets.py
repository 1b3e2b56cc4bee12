"""Assets: models, data, environments and code. Versioned and immutable.

Keys and defaults are those of Azure ML's YAML files (CLI v2 model, data and environment schemas).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import model_validator

from batchpoint.entities.base import Asset, Part

ModelType = Literal["custom_model", "mlflow_model", "triton_model"]
DataType = Literal["uri_file", "uri_folder", "mltable"]


class Model(Asset):
    """A trained model: a file or a folder. An ``mlflow_model`` needs no scoring script."""

    type: ModelType = "custom_model"
    path: str
    """Local path when declared; ``azureml://datastores/<ds>/paths/<p>`` once registered."""
    flavors: dict[str, Any] | None = None
    """Flavors of the ``MLmodel`` file, filled in at registration."""
    stage: str | None = None
    job_name: str | None = None
    datastore: str | None = None


class Data(Asset):
    """Data to score: a file, a folder or an MLTable. Registering data that lies in a datastore copies nothing."""

    type: DataType = "uri_folder"
    path: str
    datastore: str | None = None
    auto_delete_setting: dict[str, Any] | None = None


class Build(Part):
    """A Docker build context, recorded and not used: containers are not built here."""

    path: str
    dockerfile_path: str = "Dockerfile"


CURATED_ENVIRONMENT = re.compile(
    r"^(?:azureml:)?azureml://registries/[^/]+/environments/(?P<name>[^/]+)(?:/(?:versions|labels)/[^/]+)?/?$"
)
"""An environment that Azure keeps for everybody, or an organization for its workspaces."""


class Environment(Asset):
    """The packages that a scoring script runs with.

    ``image`` is recorded and answered with a notice; what counts is ``conda_file`` (a path, or the conda specification
    itself) or ``pip_requirements`` (our extension: a path or a list of requirements).
    """

    image: str | None = None
    conda_file: str | dict[str, Any] | None = None
    pip_requirements: str | list[str] | None = None
    build: Build | None = None
    os_type: Literal["linux", "windows", "Linux", "Windows"] | None = None
    inference_config: dict[str, Any] | None = None
    datastore: str | None = None

    @model_validator(mode="after")
    def _image_or_build(self) -> Environment:
        if self.image and self.build:
            raise ValueError("give either 'image' or 'build', not both")
        return self


class Code(Asset):
    """A folder of source code, as uploaded for a deployment. Registered by batchpoint itself, named by content."""

    path: str
    content_hash: str | None = None
    """Made here of what lies on this machine; of a folder in a datastore, as told by whoever put it there."""
