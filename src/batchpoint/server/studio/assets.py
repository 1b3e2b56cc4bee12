"""Models, data, environments, components and code: all by name, and one with its versions and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import SerializeAsAny

from batchpoint.entities.base import Asset
from batchpoint.entities.secrets import without_secrets
from batchpoint.errors import DatastoreError, InputError, NotFoundError
from batchpoint.server.studio.rendering import Page, Visited, page

router = APIRouter(prefix="/assets")

ON_A_PAGE = 100
FILES_SHOWN = 200
Kind = Literal["model", "data", "environment", "component", "code"]
PLURALS: Mapping[Kind, str] = {
    "model": "Models",
    "data": "Data",
    "environment": "Environments",
    "component": "Components",
    "code": "Code",
}


class AssetsPage(Page):
    """The newest version of each asset of a kind."""

    kind: Kind
    kinds: Mapping[Kind, str]
    assets: Sequence[SerializeAsAny[Asset]]
    before: int | None
    following: int | None
    """Where the pages before and after begin; None where there is none."""


class AssetPage(Page):
    """One version of an asset."""

    kind: Kind
    asset: SerializeAsAny[Asset]
    declared: Mapping[str, Any]
    """Its keys, as they are declared."""
    versions: Sequence[SerializeAsAny[Asset]]
    files: Sequence[tuple[str, int]]
    """Path and size."""
    has_more_files: bool
    """Whether there are others, which this page does not look at."""
    files_missing: str | None
    """Why the files cannot be shown."""


@page(router, "/{kind}", "assets.html")
def assets(visit: Visited, kind: Kind, offset: Annotated[int, Query(ge=0, le=2**53)] = 0) -> AssetsPage:
    """The assets of a kind, by name."""
    found = visit.work.assets.by_name(kind, limit=ON_A_PAGE + 1, offset=offset)
    return AssetsPage(
        title=PLURALS[kind],
        kind=kind,
        kinds=PLURALS,
        assets=[one.latest for one in found[:ON_A_PAGE]],
        before=max(offset - ON_A_PAGE, 0) if offset else None,
        following=offset + ON_A_PAGE if len(found) > ON_A_PAGE else None,
    )


@page(router, "/{kind}/{name}", "asset.html")
def asset(visit: Visited, kind: Kind, name: str, version: str | None = None) -> AssetPage:
    """One asset: a version, or the newest."""
    found = visit.work.assets.get(kind, name, version)
    files: list[tuple[str, int]] = []
    missing = None
    if kind not in ("environment", "component"):
        try:
            listed = visit.work.assets.files(kind, name, found.version, limit=FILES_SHOWN + 1)
            files = [(file.path, file.size) for file in listed]
        except (DatastoreError, InputError, NotFoundError) as error:
            missing = error.message
    return AssetPage(
        title=f"{name}:{found.version}",
        kind=kind,
        asset=found,
        declared=without_secrets({key: value for key, value in found.body().items() if key not in ("name", "version")}),
        versions=visit.work.assets.list(kind, name=name, limit=ON_A_PAGE),
        files=files[:FILES_SHOWN],
        has_more_files=len(files) > FILES_SHOWN,
        files_missing=missing,
    )
