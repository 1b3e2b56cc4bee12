"""Datastores: named places for bytes. Their credentials are shown to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from batchpoint.entities.resources import Datastore
from batchpoint.server.studio.rendering import Page, Visited, page

router = APIRouter(prefix="/datastores")


class DatastoresPage(Page):
    """All datastores."""

    datastores: Sequence[Datastore]


@page(router, "", "datastores.html")
def datastores(visit: Visited) -> DatastoresPage:
    """All datastores."""
    found = [one for one in visit.work.resources.list("datastore") if isinstance(one, Datastore)]
    return DatastoresPage(title="Datastores", datastores=found)
