"""What is printed for an entity: its own keys, and what Azure's command line says beside or instead of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchpoint.client.azureml import workspace_path
from batchpoint.entities.base import Asset, Entity
from batchpoint.entities.endpoints import LEGACY_KEYS, BatchEndpoint
from batchpoint.entities.jobs import AZURE_STATUS, Job
from batchpoint.entities.studio_addresses import Addresses


def record(entity: Entity, url: str, workspace: str) -> dict[str, Any]:
    """The keys of an entity, with an ``id`` that other commands and files take as a reference to it, and ``studio``,
    the address of its page.

    The status of a job is told in Azure's words, for scripts that wait for ``Completed``, and the ``scoring_uri`` of an
    endpoint is the address that they post Azure's bodies to.
    """
    body, page = entity.body(), Addresses(workspace).page_of(entity)
    if isinstance(entity, Job):
        body["status"] = AZURE_STATUS[entity.status]
        body.setdefault("display_name", entity.name)
        body["services"] = {"Studio": {"type": "Studio", "endpoint": f"{url}{page}", "status": body["status"]}}
    if isinstance(entity, BatchEndpoint):
        body["scoring_uri"] = f"{url}{workspace_path(workspace)}/batchEndpoints/{entity.name}/jobs"
    return {**body, "id": f"azureml:{_reference(entity)}", **({"studio": f"{url}{page}"} if page else {})}


def with_other_words(value: Any) -> Any:
    """A record, or a list of them, with what ``--query`` may ask for in words of Azure's command lines beside ours."""
    if isinstance(value, list):
        return [with_other_words(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    more: dict[str, Any] = {}
    if "created_at" in value:
        written = ("created_at", "created_by", "modified_at")
        known = {key.replace("modified", "last_modified"): value[key] for key in written if key in value}
        more["creation_context"] = known
    if "endpoint_name" in value and isinstance(settings := value.get("settings"), Mapping):
        more |= {key: settings[key] for key in sorted(LEGACY_KEYS & settings.keys())}
    if "scoring_uri" in value:
        name = (value.get("defaults") or {}).get("deployment_name")
        more["traffic"] = {name: 100} if name else {}
    if isinstance(found := value.get("services"), Mapping):
        more["interaction_endpoints"] = {key.lower(): each["endpoint"] for key, each in found.items()}
    return {**more, **value}


def _reference(entity: Entity) -> str:
    if isinstance(entity, Asset):
        return entity.reference
    endpoint = None if isinstance(entity, Job) else getattr(entity, "endpoint_name", None)
    return f"{endpoint}/{entity.name}" if endpoint else entity.name
