"""Resources: computes and datastores, and which other kinds there are. Named, mutable.

Keys and defaults are those of Azure ML's YAML files (CLI v2 compute and datastore schemas); ``local`` and ``s3`` and
``gcs`` are ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from batchpoint.entities.base import ComputeName, DatastoreName, Entity, Part
from batchpoint.entities.webhooks import Webhook

ResourceKind = Literal["compute", "datastore", "webhook"]

MACHINE = "local"
"""The compute that is this machine. It exists from the start and is one for all workspaces."""


def pool_of(workspace: str, compute: str) -> str:
    """Which pool of instances a compute is: the machine's is shared by all workspaces, every other is of its own."""
    return compute if compute == MACHINE else f"{workspace}/{compute}"


def _lower(value: object) -> object:
    """Azure's own samples write ``Dedicated`` and ``AmlCompute``."""
    return value.lower() if isinstance(value, str) else value


class Compute(Entity):
    """Where jobs run: a number of instances, each with room for several worker processes.

    On one machine every instance is a logical node of this machine. ``min_instances`` are kept warm; the others are
    started when a job asks for them and given up after ``idle_time_before_scale_down`` seconds without one.
    """

    name: ComputeName
    type: Annotated[Literal["amlcompute", "local"], BeforeValidator(_lower)] = "amlcompute"
    size: str | None = None
    """Recorded, as Azure files carry it (``Standard_DS3_v2``); the machine is as large as it is."""
    tier: Annotated[Literal["dedicated", "low_priority"], BeforeValidator(_lower)] = "dedicated"
    min_instances: int = Field(default=0, ge=0)
    max_instances: int = Field(default=4, ge=1)
    idle_time_before_scale_down: int = Field(default=120, ge=0)
    """Seconds."""
    location: str | None = None
    identity: dict[str, Any] | None = None
    ssh_public_access_enabled: bool | None = None
    ssh_settings: dict[str, Any] | None = None
    network_settings: dict[str, Any] | None = None
    enable_node_public_ip: bool | None = None

    @model_validator(mode="after")
    def _min_below_max(self) -> Compute:
        if self.min_instances > self.max_instances:
            raise ValueError(f"min_instances ({self.min_instances}) is above max_instances ({self.max_instances})")
        return self


UPDATABLE_COMPUTE_KEYS = frozenset(
    {"description", "tags", "properties", "min_instances", "max_instances", "idle_time_before_scale_down", "identity"}
)
"""What may change on a compute; everything else means: delete and create it anew. Source: Azure ML's compute update."""


DatastoreType = Literal[
    "local", "memory", "http", "s3", "gcs", "azure_blob", "azure_file", "azure_data_lake_gen1",
    "azure_data_lake_gen2", "one_lake", "hdfs", "sql",
]  # fmt: skip


class DatastoreCredentials(Part):
    """What opens a datastore. Stored encrypted and never shown again."""

    account_key: SecretStr | None = None
    sas_token: SecretStr | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    thumbprint: str | None = None
    certificate: SecretStr | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    authority_url: str | None = None
    resource_url: str | None = None


class Datastore(Entity):
    """A named place for bytes: a folder of this machine, a bucket, a blob container."""

    name: DatastoreName
    type: Annotated[DatastoreType, BeforeValidator(_lower)] = "local"
    path: str | None = None
    """Root folder of a ``local`` datastore, or a prefix inside the bucket or container."""
    account_name: str | None = None
    container_name: str | None = None
    file_share_name: str | None = None
    filesystem: str | None = None
    store_name: str | None = None
    bucket: str | None = None
    protocol: str | None = None
    endpoint: str | None = None
    url: str | None = None
    """Of a ``sql`` datastore: ``sqlite:///path`` or ``postgresql://host/database``. The password is a credential."""
    one_lake_workspace_name: str | None = None
    artifact: dict[str, Any] | None = None
    credentials: DatastoreCredentials | None = None
    has_credentials: bool = False
    """Whether credentials are stored. Set by the server."""
    is_default: bool = False
    """Whether outputs and uploads go here when nothing else is said. Set by the server."""

    @model_validator(mode="after")
    def _required_keys(self) -> Datastore:
        required = {
            "local": ["path"],
            "sql": ["url"],
            "s3": ["bucket"],
            "gcs": ["bucket"],
            "azure_blob": ["account_name", "container_name"],
            "azure_file": ["account_name", "file_share_name"],
            "azure_data_lake_gen1": ["store_name"],
            "azure_data_lake_gen2": ["account_name", "filesystem"],
            "one_lake": ["one_lake_workspace_name", "artifact"],
        }.get(self.type, [])
        missing = [key for key in required if getattr(self, key) is None]
        if missing:
            raise ValueError(f"a datastore of type {self.type} needs {', '.join(missing)}")
        return self


RESOURCE_KINDS: dict[ResourceKind, type[Entity]] = {"compute": Compute, "datastore": Datastore, "webhook": Webhook}
"""Adding a kind of resource is a class above and a line here."""
