"""Computes, datastores and webhooks; the files in datastores, what was sent to webhooks."""

from __future__ import annotations

from typing import Annotated, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from batchpoint.entities.base import Entity
from batchpoint.entities.documents import read_body
from batchpoint.entities.file_names import as_text
from batchpoint.entities.resources import RESOURCE_KINDS, Compute, DatastoreCredentials, ResourceKind
from batchpoint.entities.webhooks import Delivery, DeliveryState, WebhookCredentials
from batchpoint.errors import InputError, InvalidEntityError, NotFoundError
from batchpoint.operations.places import Place
from batchpoint.server.api.wire import LARGEST_OFFSET, Paged, answer, described, files_json, merged
from batchpoint.server.auth import Admin, Operator, Reader
from batchpoint.server.bodies import JsonBody, received
from batchpoint.server.context import Shared, Work
from batchpoint.server.streams import sent_file
from batchpoint.workspace import Workspace

E = TypeVar("E", bound=Entity)

router = APIRouter(tags=["resources"])


@router.get("/datastores/{name}/files", name="datastores.files")
def list_files(name: str, _: Reader, work: Work, page: Paged, prefix: str = "") -> JSONResponse:
    """The files of a datastore below ``prefix``."""
    place, stores = _place(work, name, prefix), work.stores()
    if not stores.exists(place.url, place.datastore):
        return page.answer([])
    inner = prefix.strip("/")
    if not stores.is_folder(place.url, place.datastore):
        return page.answer(files_json([(inner, stores.size(place.url, place.datastore))]))
    whole = _place(work, name, "")
    files = stores.list(place.url, place.datastore, recursive=True, within=whole.url)
    found = list(files)[page.offset : page.offset + page.reach]
    return page.answer(files_json((as_text(f"{inner}/{file.path}".lstrip("/")), file.size) for file in found))


@router.get("/datastores/{name}/files/{path:path}", name="datastores.download")
def download(name: str, path: str, _: Reader, work: Work) -> StreamingResponse:
    """One file of a datastore."""
    place, stores = _place(work, name, path), work.stores()
    try:
        size = stores.size(place.url, place.datastore)
        if stores.is_folder(place.url, place.datastore):
            raise NotFoundError(f"{path} in datastore {name} is a folder; list it instead.", kind="file", name=path)
    except InputError as error:
        raise NotFoundError(f"Datastore {name} has no file {path}.", kind="file", name=path) from error
    return sent_file(stores.open_read(place.url, place.datastore), path, size or None)


@router.put("/datastores/{name}/files/{path:path}", name="datastores.upload", status_code=201)
async def upload(name: str, path: str, request: Request, _: Operator, work: Work) -> JSONResponse:
    """Write one file, of any size: it goes to disk as it comes, and appears whole under its name."""
    place = await to_thread.run_sync(_place_of_file, work, name, path)
    async with received(request, work.settings.home / "uploads") as partial:
        size = partial.stat().st_size
        await to_thread.run_sync(work.stores().move, partial, place.url, place.datastore)
    return answer({"path": path, "size": size, "uri": place.uri}, status=201)


@router.post("/datastores/{name}/credentials/compare", name="datastores.compare_credentials")
def compare_credentials(name: str, body: JsonBody, _: Admin, work: Work) -> JSONResponse:
    """Whether these are the credentials that the datastore has."""
    given = read_body(DatastoreCredentials, body, name="credentials")
    return answer({"same": work.resources.holds_credentials(name, given)})


@router.get("/computes/{name}/nodes", name="computes.nodes")
def nodes(name: str, _: Reader, shared: Shared) -> JSONResponse:
    """The instances of a compute, and what each does."""
    compute = shared.workspace.resources.get("compute", name)
    assert isinstance(compute, Compute)
    found = shared.background.nodes(compute, shared.workspace.name)
    return answer({"value": [vars(node) for node in found], "next": None})


@router.post("/webhooks/{name}/credentials/compare", name="webhooks.compare_credentials")
def compare_secret(name: str, body: JsonBody, _: Admin, work: Work) -> JSONResponse:
    """Whether this is the secret that the webhook has."""
    given = read_body(WebhookCredentials, body, name="credentials")
    return answer({"same": work.resources.holds_secret(name, given)})


@router.post("/webhooks/{name}/secret", name="webhooks.renew_secret")
def renew_secret(name: str, caller: Admin, work: Work) -> JSONResponse:
    """Give the webhook a new secret; this once it is shown."""
    return answer({"secret": work.resources.renew_secret(name, by=caller.name)})


@router.post("/webhooks/{name}/test", name="webhooks.test", status_code=202, **described(result=Delivery))
def send_test(name: str, _: Operator, work: Work) -> JSONResponse:
    """Send it something that is about no job."""
    return answer(work.resources.test(name), status=202)


@router.get("/webhooks/{name}/deliveries", name="webhooks.deliveries")
def deliveries(name: str, _: Reader, work: Work, page: Paged, *, state: DeliveryState | None = None) -> JSONResponse:
    """What was sent to it or waits to be, the newest first."""
    return page.answer(work.resources.deliveries(name, state=state, limit=page.reach, offset=page.offset))


@router.post("/webhooks/{name}/deliveries/{number}/replay", name="webhooks.replay", status_code=202,
             **described(result=Delivery))  # fmt: skip
def replay(name: str, number: Annotated[int, Path(ge=0, le=LARGEST_OFFSET)], _: Operator, work: Work) -> JSONResponse:
    """Send a delivery again, whatever became of it."""
    return answer(work.resources.replay(name, number), status=202)


@router.post("/webhooks/{name}/replay-failed", name="webhooks.replay_failed", status_code=202)
def replay_failed(name: str, _: Operator, work: Work) -> JSONResponse:
    """Send all deliveries again that failed; how many those are."""
    return answer({"count": work.resources.replay_failed(name)}, status=202)


class _Routes:
    """The routes of one kind of resource."""

    def __init__(self, kind: ResourceKind) -> None:
        self._kind = kind

    def add_to(self, router: APIRouter) -> None:
        """Put the routes below ``/<kind>s``."""
        kind, path = self._kind, f"/{self._kind}s"
        both = described(body=RESOURCE_KINDS[kind], result=RESOURCE_KINDS[kind])
        one = f"{path}/{{name}}"
        router.get(path, name=f"{kind}s.list")(self.list_resources)
        router.get(one, name=f"{kind}s.get", **described(result=RESOURCE_KINDS[kind]))(self.get_resource)
        router.put(one, name=f"{kind}s.create_or_update", **both)(self.create_or_update)
        router.patch(one, name=f"{kind}s.update", **both)(self.update)
        router.delete(one, name=f"{kind}s.delete", status_code=204)(self.delete)

    def list_resources(self, _: Reader, work: Work, page: Paged) -> JSONResponse:
        """All of a kind, by name."""
        return page.answer(work.resources.list(self._kind, limit=page.reach, offset=page.offset))

    def get_resource(self, name: str, _: Reader, work: Work) -> JSONResponse:
        """One of them; credentials are never shown."""
        return answer(work.resources.get(self._kind, name))

    def create_or_update(self, name: str, body: JsonBody, caller: Admin, work: Work) -> JSONResponse:
        """Create one, or change the one of that name."""
        entity = named(RESOURCE_KINDS[self._kind], body, name)
        return answer(work.resources.create_or_update(self._kind, entity, by=caller.name))

    def update(self, name: str, body: JsonBody, caller: Admin, work: Work) -> JSONResponse:
        """Change the keys that are given; null takes one away."""

        def change(before: Entity) -> Entity:
            return named(RESOURCE_KINDS[self._kind], merged(before.body(), body), name)

        return answer(work.resources.update(self._kind, name, change, by=caller.name))

    def delete(self, name: str, _: Admin, work: Work) -> Response:
        """Delete one. What lies in a datastore stays there."""
        work.resources.delete(self._kind, name)
        return Response(status_code=204)


def named(model: type[E], body: object, name: str) -> E:
    """The entity of a body whose name stands in the address.

    Raises:
        InvalidEntityError: the body is not valid, or names another.
    """
    if isinstance(body, dict):
        body = {"name": name, **body}
    entity = read_body(model, body)
    if entity.name != name:
        from_body = (
            f"The body names {entity.name!r}, the address {name!r}. Give the same name, or leave it out of the body."
        )
        raise InvalidEntityError(from_body)
    return entity


def _place(work: Workspace, datastore: str, path: str) -> Place:
    work.resources.get("datastore", datastore)
    return work.places.resolve(f"azureml://datastores/{datastore}/paths/{path}")


def _place_of_file(work: Workspace, datastore: str, path: str) -> Place:
    """Where a file is to be written. Raises ``InvalidEntityError`` when that is the place of a folder."""
    place = _place(work, datastore, path)
    if not path.strip("/") or path.endswith("/") or work.stores().is_folder(place.url, place.datastore):
        raise InvalidEntityError(f"{path!r} in datastore {datastore} is a folder. Give the path of a file.")
    return place


for _kind in RESOURCE_KINDS:
    _Routes(_kind).add_to(router)
