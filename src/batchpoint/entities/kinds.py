"""Which class stands for which kind of asset and of named thing."""

from __future__ import annotations

from typing import Literal

from batchpoint.entities.assets import Code, Data, Environment, Model
from batchpoint.entities.base import Asset, AssetKind, Entity
from batchpoint.entities.pipeline_deployments import PublishedPipeline
from batchpoint.entities.pipelines import Component
from batchpoint.entities.resources import RESOURCE_KINDS, ResourceKind

ASSET_KINDS: dict[AssetKind, type[Asset]] = {
    "model": Model,
    "data": Data,
    "environment": Environment,
    "code": Code,
    "component": Component,
}
"""Adding a kind of asset is a class and a line here."""

NamedKind = ResourceKind | Literal["published_pipeline"]

NAMED_KINDS: dict[NamedKind, type[Entity]] = {
    "compute": RESOURCE_KINDS["compute"],
    "datastore": RESOURCE_KINDS["datastore"],
    "webhook": RESOURCE_KINDS["webhook"],
    "published_pipeline": PublishedPipeline,
}
"""What is stored under a name alone."""
