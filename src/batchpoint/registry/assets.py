"""Assets: versions, labels, archiving. A version is stored once and never changes but in description and tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, case, func, tuple_
from sqlalchemy.exc import IntegrityError

from batchpoint.entities.base import Asset, AssetKind, retagged
from batchpoint.entities.kinds import ASSET_KINDS
from batchpoint.errors import AlreadyExistsError, NotFoundError
from batchpoint.registry.database import Database
from batchpoint.registry.scope import Scope
from batchpoint.registry.tables import assets_table as assets

Archived = Literal["exclude", "only", "include"]

_PAIRS_OF_A_QUERY = 2000
"""Names and versions asked for in one query: databases take a limited number of values."""


class AssetVersions(NamedTuple):
    """What there is under one name."""

    latest: Asset
    """The latest version; where all are archived, the newest of them, which is archived then."""
    next_version: str
    """What a version will be called that is registered without one."""


class Assets:
    """The assets of one workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], scope: Scope) -> None:
        self._database = database
        self._now = now
        self._scope = scope

    def register(self, kind: AssetKind, asset: Asset, content_hash: str, *, by: str | None) -> tuple[Asset, bool]:
        """Store a version. Answers with it, and whether it is new.

        Without a version it gets the highest whole number so far plus one. With one that exists already and the same
        content, only description and tags are taken over.

        Raises:
            AlreadyExistsError: the version exists with other content.
        """
        while True:
            with self._database.write() as connection:
                if asset.version is not None:
                    known = self._find(connection, kind, asset.name, asset.version, lock=True)
                    if known is not None:
                        return self._again(connection, known, asset, content_hash), False
                version = asset.version or self._next_version(connection, kind, asset.name)
                created = {"version": version, "created_at": self._now(), "created_by": by, "archived": False}
                stored = asset.model_copy(update=created)
                try:
                    with connection.begin_nested():
                        self._insert(connection, kind, stored, content_hash)
                    return stored, True
                except IntegrityError:
                    pass  # another process registered that version just now: look again

    def get(self, kind: AssetKind, name: str, version: str | None = None, label: str | None = None) -> Asset:
        """One version; without version, by label. ``latest`` is the most recently created that is not archived;
        ``default`` means the same.

        Raises:
            NotFoundError: there is no such asset, version or label.
        """
        with self._database.read() as connection:
            if version is not None:
                row = self._find(connection, kind, name, version)
            elif label in {None, "latest", "default"}:
                of_name = self._scope.select(assets).where(assets.c.kind == kind, assets.c.name == name)
                newest = of_name.where(assets.c.archived.is_(False)).order_by(assets.c.id.desc()).limit(1)
                row = connection.execute(newest).first()
            else:
                row = None
            if row is None:
                raise self._not_found(connection, kind, name, version, label)
            return _asset(row)

    def find_content(self, kind: AssetKind, name: str | None, content_hash: str) -> Asset | None:
        """The newest version of that name with that content; without a name, of any."""
        query = self._scope.select(assets).where(assets.c.kind == kind, assets.c.content_hash == content_hash)
        if name is not None:
            query = query.where(assets.c.name == name)
        query = query.order_by(assets.c.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return _asset(row) if row else None

    def list(
        self,
        kind: AssetKind,
        *,
        name: str | None = None,
        archived: Archived = "exclude",
        limit: int = 50,
        offset: int = 0,
    ) -> list[Asset]:
        """Versions, the newest first."""
        query = self._scope.select(assets).where(assets.c.kind == kind).order_by(assets.c.id.desc())
        if name is not None:
            query = query.where(assets.c.name == name)
        if archived != "include":
            query = query.where(assets.c.archived == (archived == "only"))
        with self._database.read() as connection:
            return [_asset(row) for row in connection.execute(query.limit(limit).offset(offset))]

    def by_name(
        self,
        kind: AssetKind,
        *,
        name: str | None = None,
        archived: Archived = "exclude",
        limit: int | None = None,
        offset: int = 0,
    ) -> Sequence[AssetVersions]:
        """What there is under each name, the newest first. A name is archived when all its versions are."""
        newest_shown = func.max(case((assets.c.archived.is_(False), assets.c.id)))
        newest = func.coalesce(newest_shown, func.max(assets.c.id))
        ids = self._scope.select(assets, newest).where(assets.c.kind == kind).group_by(assets.c.name)
        if name is not None:
            ids = ids.where(assets.c.name == name)
        if archived != "include":
            ids = ids.having(newest_shown.is_(None) if archived == "only" else newest_shown.is_not(None))
        ids = ids.order_by(newest.desc()).limit(limit).offset(offset)
        versions: dict[str, list[str]] = {}
        with self._database.read() as connection:
            known = connection.execute(ids).scalars().all()
            found = self._scope.select(assets).where(assets.c.id.in_(known)).order_by(assets.c.id.desc())
            rows = connection.execute(found).all()
            query = self._scope.select(assets, assets.c.name, assets.c.version).where(assets.c.kind == kind)
            for of_name, version in connection.execute(query.where(assets.c.name.in_([row.name for row in rows]))):
                versions.setdefault(of_name, []).append(version)
        return [AssetVersions(_asset(row), _following(versions[row.name])) for row in rows]

    def moment(self) -> int:
        """A mark of what is registered now: ``latest`` as of it stays the same whatever is registered later."""
        with self._database.read() as connection:
            return connection.execute(self._scope.select(assets, func.max(assets.c.id))).scalar() or 0

    def latest(self, kind: AssetKind, *, prefix: str = "", as_of: int | None = None) -> Sequence[Asset]:
        """The latest version of every asset whose name begins with ``prefix``, in one query; by name.

        ``as_of`` leaves out what was registered after that ``moment``. Archived versions are left out.
        """
        newest = self._scope.select(assets, func.max(assets.c.id))
        newest = newest.where(assets.c.kind == kind, assets.c.archived.is_(False))
        if prefix:
            newest = newest.where(assets.c.name.startswith(prefix, autoescape=True))
        if as_of is not None:
            newest = newest.where(assets.c.id <= as_of)
        ids = newest.group_by(assets.c.name)
        query = self._scope.select(assets).where(assets.c.id.in_(ids)).order_by(assets.c.name)
        with self._database.read() as connection:
            found = [_asset(row) for row in connection.execute(query)]
        return [asset for asset in found if asset.name.startswith(prefix)]  # SQLite's LIKE takes A for a

    def versions(self, kind: AssetKind, wanted: Iterable[tuple[str, str]]) -> Sequence[Asset]:
        """The versions of these names and numbers that exist, archived ones too; a few queries for thousands."""
        pairs = [*dict.fromkeys(wanted)]
        found: Sequence[Asset] = []
        with self._database.read() as connection:
            for first in range(0, len(pairs), _PAIRS_OF_A_QUERY):
                some = pairs[first : first + _PAIRS_OF_A_QUERY]
                query = self._scope.select(assets).where(assets.c.kind == kind)
                query = query.where(tuple_(assets.c.name, assets.c.version).in_(some))
                found = [*found, *(_asset(row) for row in connection.execute(query))]
        return found

    def update(
        self,
        kind: AssetKind,
        name: str,
        version: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Asset:
        """Change description or tags; None leaves them as they are. Tags are merged; None takes one away.

        Raises:
            NotFoundError: there is no such version.
        """
        with self._database.write() as connection:
            row = self._find(connection, kind, name, version, lock=True)
            if row is None:
                raise self._not_found(connection, kind, name, version, None)
            merged = None if tags is None else retagged(_asset(row).tags, tags)
            return self._update(connection, row, description, merged)

    def set_archived(self, kind: AssetKind, name: str, version: str | None, *, archived: bool) -> None:
        """Hide a version, or all there are, from lists and from ``latest``; or show them again.

        Raises:
            NotFoundError: there is no such asset.
        """
        which = self._scope.update(assets).where(assets.c.kind == kind, assets.c.name == name)
        if version is not None:
            which = which.where(assets.c.version == version)
        with self._database.write() as connection:
            if connection.execute(which.values(archived=archived)).rowcount == 0:
                raise self._not_found(connection, kind, name, version, None)

    def _again(self, connection: Connection, row: Row[Any], asset: Asset, content_hash: str) -> Asset:
        if row.content_hash != content_hash:
            raise AlreadyExistsError(
                f"{row.kind.capitalize()} {asset.reference} exists already with other content, and versions never "
                "change. Register it under another version, or leave the version out to count up."
            )
        described = asset.model_fields_set
        description = asset.description if "description" in described else None
        return self._update(connection, row, description, asset.tags if "tags" in described else None)

    def _update(
        self, connection: Connection, row: Row[Any], description: str | None, tags: Mapping[str, str] | None
    ) -> Asset:
        asset = _asset(row)
        before = (asset.description, asset.tags)
        after = (asset.description if description is None else description, asset.tags if tags is None else dict(tags))
        if before != after:
            asset.description, asset.tags = after
            asset.modified_at = self._now()
            connection.execute(self._scope.update(assets).where(assets.c.id == row.id).values(body=_body(asset)))
        return asset

    def _insert(self, connection: Connection, kind: AssetKind, asset: Asset, content_hash: str) -> None:
        values = {
            "kind": kind,
            "name": asset.name,
            "version": asset.version,
            "archived": False,
            "content_hash": content_hash,
            "body": _body(asset),
        }
        connection.execute(self._scope.insert(assets).values(values))

    def _find(
        self, connection: Connection, kind: AssetKind, name: str, version: str, *, lock: bool = False
    ) -> Row[Any] | None:
        key = (assets.c.kind == kind, assets.c.name == name, assets.c.version == version)
        query = self._scope.select(assets).where(*key)
        return connection.execute(query.with_for_update() if lock else query).first()

    def _next_version(self, connection: Connection, kind: AssetKind, name: str) -> str:
        query = self._scope.select(assets, assets.c.version).where(assets.c.kind == kind, assets.c.name == name)
        return _following(connection.execute(query).scalars())

    def _not_found(
        self, connection: Connection, kind: AssetKind, name: str, version: str | None, label: str | None
    ) -> NotFoundError:
        query = self._scope.select(assets, assets.c.version).where(assets.c.kind == kind, assets.c.name == name)
        versions = connection.execute(query.order_by(assets.c.id.desc()).limit(5)).scalars().all()
        if not versions:
            message = f"There is no {kind} named {name}."
        elif version is not None:
            message = f"There is no {kind} {name}:{version}. The newest versions are {', '.join(versions)}."
        elif label not in {None, "latest", "default"}:
            message = f"There is no {kind} {name}@{label}: the only label is latest, also called default."
        else:
            message = (
                f"All versions of {kind} {name} are archived. Name a version ({', '.join(versions)}), or restore one."
            )
        return NotFoundError(message, kind=kind, name=name, version=version, label=label)


def _following(versions: Iterable[str]) -> str:
    return str(max((int(version) for version in versions if version.isdecimal()), default=0) + 1)


def _asset(row: Row[Any]) -> Asset:
    return ASSET_KINDS[row.kind].model_validate({**row.body, "archived": row.archived})


def _body(asset: Asset) -> dict[str, Any]:
    return {key: value for key, value in asset.body().items() if key != "archived"}
