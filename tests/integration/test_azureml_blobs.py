"""The blob operations, onto the files of a datastore."""

from __future__ import annotations

import base64
import random
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest

from batchpoint.background.service import Background
from batchpoint.entities.tokens import Token
from batchpoint.errors import InvalidEntityError
from batchpoint.server.azureml.containers import place_of
from batchpoint.server.azureml.signing import signed
from batchpoint.server.azureml.wire import Scope
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.conftest import Clock
from integration.served import served

ACCOUNT = "/default.blob.core.windows.net"
CONTAINER = f"{ACCOUNT}/azureml-blobstore"
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/default"
WHOLE = {"x-ms-blob-type": "BlockBlob"}


@dataclass
class Served:
    """A server whose clock tests move."""

    client: httpx.Client
    context: Context
    clock: Clock
    files: Path
    """Folder of the default datastore."""

    def token(self, role: str) -> dict[str, str]:
        """Headers of a caller of this role."""
        secret, _ = self.context.workspace.tokens.create(role, role)  # type: ignore[arg-type]  # tests name roles
        return {"Authorization": f"Bearer {secret}"}

    def holder(self) -> Token:
        """The token that the server's own client holds."""
        return self.context.workspace.tokens.named("t")

    def names(self, **query: str) -> list[str]:
        """What a list holds."""
        answered = self.client.get(CONTAINER, params={"restype": "container", "comp": "list", **query})
        assert answered.status_code == 200, answered.text
        assert answered.headers["content-type"] == "application/xml"
        return [found.text or "" for found in ET.fromstring(answered.content).iterfind(".//Name")]


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[Served]:
    with Workspace.open(Settings(home=tmp_path / "home", max_request_bytes=10_000), now=clock) as workspace:
        secret, _ = workspace.tokens.create("t", "admin")
        context = Context(workspace, Background(workspace), server_id="s", shares_files=True)
        with served(context, secret) as client:
            yield Served(client, context, clock, tmp_path / "home" / "datastores" / "workspaceblobstore")
        context.background.dispatcher.stop()


def put(server: Served, name: str, content: bytes, **headers: str) -> httpx.Response:
    return server.client.put(f"{CONTAINER}/{name}", content=content, headers={**WHOLE, **headers})


def test_a_file_is_written_whole_is_there_and_is_not_written_again(server: Served) -> None:
    assert server.client.head(f"{CONTAINER}/LocalUpload/sha/model/MLmodel").status_code == 404
    answered = put(server, "LocalUpload/sha/model/MLmodel", b"x" * 50_000, **{"If-None-Match": "*"})
    assert answered.status_code == 201
    assert (server.files / "LocalUpload/sha/model/MLmodel").read_bytes() == b"x" * 50_000
    found = server.client.head(f"{CONTAINER}/LocalUpload/sha/model/MLmodel")
    assert (found.status_code, found.headers["content-length"]) == (200, "50000")
    again = put(server, "LocalUpload/sha/model/MLmodel", b"y", **{"If-None-Match": "*"})
    assert (again.status_code, again.headers["x-ms-error-code"]) == (409, "BlobAlreadyExists")
    assert put(server, "LocalUpload/sha/model/MLmodel", b"y").status_code == 201
    assert (server.files / "LocalUpload/sha/model/MLmodel").read_bytes() == b"y"


def by_offset(number: int) -> str:
    """The name that older clients give to a block: each of them the same."""
    inner = base64.b64encode(f"{number * 6000:032d}".encode()).decode()
    return base64.b64encode(quote(inner).encode()).decode()


def by_chance(_: int) -> str:
    """The name that newer clients give to it: each of them another."""
    return base64.b64encode(f"{uuid.uuid4().int:048d}".encode()).decode()


def send_block(server: Served, name: str, block: str, content: bytes) -> None:
    answered = server.client.put(f"{CONTAINER}/{name}", params={"comp": "block", "blockid": block}, content=content)
    assert answered.status_code == 201, answered.text


def commit(server: Served, name: str, blocks: Iterable[str], **headers: str) -> httpx.Response:
    body = "".join(f"<Latest>{block}</Latest>" for block in blocks)
    document = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{body}</BlockList>'
    return server.client.put(
        f"{CONTAINER}/{name}", params={"comp": "blocklist"}, content=document, headers={**WHOLE, **headers}
    )


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Each in a thread of its own, all begun together."""
    ready = threading.Barrier(len(calls))

    def start(call: Callable[[], object]) -> None:
        ready.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(start, calls))


@pytest.mark.parametrize("named", [by_offset, by_chance])
def test_a_file_in_blocks_is_what_the_list_of_blocks_says_whatever_their_order(
    server: Served, named: Callable[[int], str]
) -> None:
    blocks = {named(number): bytes([number]) * 6000 for number in range(9)}
    at_once([partial(send_block, server, "big.bin", block, blocks[block]) for block in reversed(blocks)])
    assert server.client.head(f"{CONTAINER}/big.bin").status_code == 404
    assert commit(server, "big.bin", ["absent", *blocks]).status_code == 422
    assert commit(server, "big.bin", blocks, **{"x-ms-meta-a": "b"}).status_code == 201
    assert (server.files / "big.bin").read_bytes() == b"".join(blocks.values())
    assert server.client.head(f"{CONTAINER}/big.bin").headers["x-ms-meta-a"] == "b"
    assert list((server.files.parents[1] / "uploads").rglob("*")) == [server.files.parents[1] / "uploads" / "blocks"]
    # Hundreds of blocks are one deed.
    assert [record.ok for record in server.context.workspace.tokens.audit()] == [True, False]


def test_blocks_are_joined_in_the_order_that_is_asked_for_and_as_often(server: Served) -> None:
    for number in range(3):
        send_block(server, "turned.bin", by_offset(number), bytes([number]) * 6000)
    assert commit(server, "turned.bin", [by_offset(number) for number in (2, 0, 2)]).is_success
    assert (server.files / "turned.bin").read_bytes() == b"\2" * 6000 + b"\0" * 6000 + b"\2" * 6000


def test_of_several_who_make_the_same_file_at_once_and_never_over_another_one_does(server: Served) -> None:
    """Each asks whether it is there before he writes it, and it is not there yet for any of them."""
    for round_ in range(3):
        whole, joined = f"whole-{round_}", f"joined-{round_}"
        contents = [bytes([65 + number]) * 5000 for number in range(6)]
        named = [by_chance(number) for number in range(6)]
        for block, content in zip(named, contents, strict=True):
            send_block(server, joined, block, content)
        answers: dict[str, dict[int, httpx.Response]] = {whole: {}, joined: {}}

        def put_whole(number: int, name: str = whole, contents: list[bytes] = contents, told: Any = answers) -> None:
            told[name][number] = put(server, name, contents[number], **{"If-None-Match": "*"})

        def put_joined(number: int, name: str = joined, blocks: list[str] = named, told: Any = answers) -> None:
            told[name][number] = commit(server, name, [blocks[number]], **{"If-None-Match": "*"})

        for act in (put_whole, put_joined):
            at_once([partial(act, number) for number in range(6)])
        for name, told in answers.items():
            (winner,) = [number for number, answered in told.items() if answered.status_code == 201]
            assert (server.files / name).read_bytes() == contents[winner]
            refused = [answered for number, answered in told.items() if number != winner]
            codes = {(answered.status_code, answered.headers["x-ms-error-code"]) for answered in refused}
            assert codes == {(409, "BlobAlreadyExists")}


def test_two_who_upload_in_blocks_to_one_name_do_not_take_each_others_blocks(server: Served) -> None:
    one, other = ([by_chance(number) for number in range(4)] for _ in range(2))
    for first, second in zip(one, other, strict=True):
        send_block(server, "x", first, b"1" * 6000)
        send_block(server, "x", second, b"2" * 6000)
    assert commit(server, "x", one).status_code == 201
    assert (server.files / "x").read_bytes() == b"1" * 24000
    assert commit(server, "x", other).status_code == 201
    assert (server.files / "x").read_bytes() == b"2" * 24000


@pytest.mark.parametrize("seed", range(5))
def test_two_older_clients_who_upload_to_one_name_never_make_a_mixture(server: Served, seed: int) -> None:
    """They give their blocks the same names. Whoever goes on alone afterwards has his file."""
    put(server, "x", b"before")
    names = [by_offset(number) for number in range(4)]
    steps = [(content, number) for content in (b"1", b"2") for number in range(4)]
    random.Random(seed).shuffle(steps)
    for content, number in steps:
        send_block(server, "x", names[number], content * 6000)
    answers = [commit(server, "x", names) for _ in range(2)]
    assert answers[0].status_code == 409
    assert answers[0].headers["x-ms-error-code"] == "InvalidBlockList"
    assert "was uploaded by two at once" in answers[0].text
    assert answers[1].status_code == 422
    assert (server.files / "x").read_bytes() == b"before"
    for number, name in enumerate(names):
        send_block(server, "x", name, bytes([number]) * 6000)
    assert commit(server, "x", names).status_code == 201
    assert (server.files / "x").read_bytes() == b"".join(bytes([number]) * 6000 for number in range(4))


def test_a_block_that_is_sent_once_more_by_a_client_that_heard_no_answer_changes_nothing(server: Served) -> None:
    names = [by_offset(number) for number in range(2)]
    for name in [*names, *names]:
        send_block(server, "x", name, b"1" * 6000)
    assert commit(server, "x", names).status_code == 201
    assert (server.files / "x").read_bytes() == b"1" * 12000


def test_metadata_is_kept_beside_the_datastore_and_ends_with_what_it_describes(server: Served) -> None:
    put(server, "model/a", b"1")
    url = f"{CONTAINER}/model/a"
    headers = {"x-ms-meta-upload_status": "completed", "x-ms-meta-name": "churn"}
    assert server.client.put(url, params={"comp": "metadata"}, headers=headers).status_code == 200
    assert server.client.head(url).headers["x-ms-meta-upload_status"] == "completed"
    listed = server.client.get(CONTAINER, params={"comp": "list", "prefix": "model", "include": "metadata"})
    assert "<Metadata><upload_status>completed</upload_status><name>churn</name></Metadata>" in listed.text
    assert [path.name for path in server.files.rglob("*")] == ["model", "a"]
    put(server, "model/a", b"2")
    assert "x-ms-meta-name" not in server.client.head(url).headers
    missing = server.client.put(f"{CONTAINER}/model/b", params={"comp": "metadata"}, headers=headers)
    assert missing.status_code == 404


def test_a_part_of_a_file_is_read_and_an_empty_file_has_none(server: Served) -> None:
    put(server, "a", b"0123456789")
    put(server, "empty", b"")
    part = server.client.get(f"{CONTAINER}/a", headers={"x-ms-range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    rest = server.client.get(f"{CONTAINER}/a", headers={"Range": "bytes=8-33554431"})
    assert (rest.status_code, rest.content, rest.headers["content-range"]) == (206, b"89", "bytes 8-9/10")
    whole = server.client.get(f"{CONTAINER}/a")
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    none = server.client.get(f"{CONTAINER}/empty", headers={"x-ms-range": "bytes=0-33554431"})
    assert (none.status_code, none.headers["x-ms-error-code"]) == (416, "InvalidRange")
    assert server.client.get(f"{CONTAINER}/empty").content == b""


def test_names_with_spaces_signs_and_letters_of_every_kind_come_back_as_they_were(server: Served) -> None:
    names = ["d/a b.csv", "d/a+b.csv", "d/ä&<ö>.csv", "d/100%.csv", "d/日本.csv", "d/q?x=1.csv", "d/\x01.csv"]
    for name in names:
        url = f"{CONTAINER}/{quote(name)}"
        assert server.client.put(url, content=name.encode()).status_code == 201
        assert server.client.get(url).content == name.encode()
    assert sorted(str(path.relative_to(server.files)) for path in server.files.rglob("*.csv")) == sorted(names)
    assert sorted(server.names(prefix="d/")) == sorted([*names[:-1], "d/%01.csv"])


def test_a_list_begins_with_the_prefix_folds_at_the_delimiter_and_goes_on_page_by_page(server: Served) -> None:
    for name in ("a/1", "a/2", "a/b/3", "a/b/4", "a-c", "other"):
        put(server, name, b"1")
    assert server.names(prefix="a") == ["a-c", "a/1", "a/2", "a/b/3", "a/b/4"]
    assert server.names(prefix="a/") == ["a/1", "a/2", "a/b/3", "a/b/4"]
    assert server.names(prefix="a/", delimiter="/") == ["a/1", "a/2", "a/b/"]
    assert server.names(prefix="none/") == []
    first = server.client.get(CONTAINER, params={"comp": "list", "prefix": "a/", "maxresults": "3"}).content
    marker = ET.fromstring(first).findtext("NextMarker") or ""
    assert server.names(prefix="a/", marker=marker) == ["a/b/4"]


def test_no_name_leads_out_of_the_datastore(server: Served) -> None:
    (server.files.parent / "secret").write_text("secret")
    (server.files / "link").symlink_to(server.files.parent)
    for name in ("%2e%2e/secret", "a/%2e%2e/%2e%2e/secret", "link/secret"):
        for answered in (server.client.get(f"{CONTAINER}/{name}"), put(server, name, b"x")):
            assert answered.status_code == 422, name
            assert "leads out" in answered.text
    assert server.client.get(CONTAINER, params={"comp": "list", "prefix": "../"}).status_code == 422
    assert (server.files.parent / "secret").read_text() == "secret"


def test_links_that_lead_nowhere_in_a_circle_or_out_are_left_out_of_a_list(server: Served, tmp_path: Path) -> None:
    put(server, "a/file", b"1")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    for name, target in {
        "itself": "itself",
        "nowhere": "none",
        "a/up": "..",
        "a/folder-outside": str(tmp_path / "outside"),
        "a/file-outside": str(tmp_path / "outside" / "secret"),
        "a/again": "file",
        "b": "a",
    }.items():
        (server.files / name).symlink_to(target)
    assert server.names() == ["a/again", "a/file", "b/again", "b/file"]
    assert server.names(prefix="a/") == ["a/again", "a/file"]
    for name in ("itself", "itself/x", "nowhere"):
        assert server.client.get(f"{CONTAINER}/{name}").status_code in (404, 422), name
        assert put(server, name, b"x").status_code in (201, 422), name


def test_a_folder_is_no_file(server: Served) -> None:
    put(server, "folder/a", b"1")
    assert server.client.head(f"{CONTAINER}/folder").status_code == 404
    assert server.client.head(f"{CONTAINER}/folder/").status_code == 404
    assert put(server, "folder", b"1").status_code == 422
    assert put(server, "folder/", b"1").status_code == 422
    assert put(server, "folder/a/below", b"1").status_code == 422


def test_who_may_only_read_reads_and_who_has_no_token_does_nothing(server: Served) -> None:
    put(server, "a", b"1")
    reader = server.token("reader")
    assert server.client.get(f"{CONTAINER}/a", headers=reader).status_code == 200
    refused = server.client.put(f"{CONTAINER}/b", content=b"1", headers=reader)
    assert (refused.status_code, refused.headers["x-ms-error-code"]) == (403, "AuthorizationPermissionMismatch")
    nobody = server.client.get(f"{CONTAINER}/a", headers={"Authorization": ""})
    assert (nobody.status_code, nobody.headers["x-ms-error-code"]) == (401, "AuthenticationFailed")
    assert server.client.put(f"{ACCOUNT}/none/a", content=b"1").status_code == 404


def test_code_is_uploaded_into_a_container_of_its_own_with_a_signed_address(server: Served) -> None:
    path = f"{WORKSPACE}/codes/c/versions/1/startPendingUpload"
    told = server.client.post(path, json={"pendingUploadType": "TemporaryBlobReference"}).json()
    reference = told["blobReferenceForConsumption"]
    url, query = reference["blobUri"], urlsplit(reference["credential"]["sasUri"]).query
    anonymous = {"Authorization": ""}
    answered = server.client.put(f"{url}/src/score.py?{query}", content=b"pass", headers=anonymous)
    assert answered.status_code == 201
    container = url.rpartition("/")[2]
    assert (server.files / "code-uploads" / container / "src" / "score.py").read_bytes() == b"pass"
    place = f"azureml://datastores/workspaceblobstore/paths/code-uploads/{container}/src"
    scope = Scope("s", "g", "default", str(server.client.base_url).rstrip("/"))
    assert place_of(scope, f"{url}/src") == place
    listed = server.client.get(f"{url}?{query}&comp=list&restype=container&prefix=", headers=anonymous)
    assert "<Name>src/score.py</Name>" in listed.text
    # Only that container, only as it was signed, only for its time.
    other = server.client.put(f"{CONTAINER}/a?{query}", content=b"1", headers=anonymous)
    assert other.status_code == 401
    changed = server.client.get(f"{url}/src/score.py?{query.replace('rlw', 'rlwd')}", headers=anonymous)
    assert changed.status_code == 401
    server.clock.move(25 * 3600)
    late = server.client.get(f"{url}/src/score.py?{query}", headers=anonymous)
    assert late.status_code == 401
    assert "expired" in late.text


def test_an_address_that_is_signed_for_reading_does_not_write(server: Served) -> None:
    put(server, "a", b"1")
    query = urlsplit(signed(server.context, CONTAINER, server.holder(), seconds=60)).query
    anonymous = {"Authorization": ""}
    assert server.client.get(f"{CONTAINER}/a?{query}", headers=anonymous).content == b"1"
    assert server.client.put(f"{CONTAINER}/a?{query}", content=b"2", headers=anonymous).status_code == 403


def test_an_address_for_an_upload_ends_with_the_token_that_asked_for_it(server: Served) -> None:
    path = f"{WORKSPACE}/codes/c/versions/1/startPendingUpload"
    told = server.client.post(path, headers=server.token("operator")).json()["blobReferenceForConsumption"]
    url = f"{told['blobUri']}/score.py?{urlsplit(told['credential']['sasUri']).query}"
    anonymous = {"Authorization": ""}
    assert server.client.put(url, content=b"pass", headers=anonymous).status_code == 201
    server.context.workspace.tokens.revoke("operator")
    refused = server.client.put(url, content=b"changed", headers=anonymous)
    assert (refused.status_code, refused.headers["x-ms-error-code"]) == (401, "AuthenticationFailed")
    assert "operator was revoked" in refused.text
    assert server.client.get(url, headers=anonymous).status_code == 401
    # Nor is it anybody else's: whose it is stands in what was signed.
    assert server.client.get(url.replace("skoid=operator", "skoid=t"), headers=anonymous).status_code == 401


def test_an_address_lasts_no_longer_than_the_token_that_asked_for_it(server: Served) -> None:
    put(server, "a", b"1")
    _, brief = server.context.workspace.tokens.create("brief", "reader", timedelta(minutes=5))
    query = urlsplit(signed(server.context, CONTAINER, brief, seconds=3600)).query
    anonymous = {"Authorization": ""}
    assert server.client.get(f"{CONTAINER}/a?{query}", headers=anonymous).status_code == 200
    server.clock.move(301)
    late = server.client.get(f"{CONTAINER}/a?{query}", headers=anonymous)
    assert late.status_code == 401
    assert "brief expired" in late.text


def test_what_was_signed_for_one_path_opens_no_other_whatever_its_parts_hold(server: Served) -> None:
    put(server, "a", b"1")
    later = "2999-01-01T00:00:00Z"
    parts = parse_qs(urlsplit(signed(server.context, f"{CONTAINER}\n{later}", server.holder(), seconds=60)).query)
    expiry, permission, holder, signature = (parts[name][0] for name in ("se", "sp", "skoid", "sig"))
    # Joined line by line, each of these is the text that was signed above.
    for se, sp, skoid in (
        (later, f"{expiry}\n{permission}", holder),
        (later, expiry, f"{permission}\n{holder}"),
        (f"{later}\n{expiry}", permission, holder),
    ):
        query = {"se": se, "sp": sp, "skoid": skoid, "sig": signature}
        refused = server.client.get(f"{CONTAINER}/a", params=query, headers={"Authorization": ""})
        assert refused.status_code == 401, (se, sp, skoid)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (f"https://localhost:8443{CONTAINER}/a%20b/c", "azureml://datastores/workspaceblobstore/paths/a b/c"),
        ("https://localhost:8443/azureml-blobstore/ctx/", "azureml://datastores/workspaceblobstore/paths/ctx/"),
        ("https://acct.blob.core.windows.net/data/x.csv", None),
        ("https://example.com/data/x.csv", None),
    ],
)
def test_an_address_of_a_blob_is_known_for_the_place_that_it_is(address: str, place: str | None) -> None:
    scope = Scope("s", "g", "default", "https://localhost:8443")
    assert place_of(scope, address) == (place or address)


@pytest.mark.parametrize("account", ["other", "other%20one"])
def test_an_address_of_a_blob_of_another_workspace_is_refused(account: str) -> None:
    scope = Scope("s", "g", "Default", "https://localhost:8443")
    address = f"https://localhost:8443/{account}.blob.core.windows.net/azureml-blobstore/secret/a.csv"
    with pytest.raises(InvalidEntityError, match=r"of workspace .*, not of Default"):
        place_of(scope, address)
    own = address.replace(account, "DEFAULT")
    assert place_of(scope, own) == "azureml://datastores/workspaceblobstore/paths/secret/a.csv"


def test_data_at_an_address_of_another_workspace_is_refused_in_the_dialects_own_form(server: Served) -> None:
    base = str(server.client.base_url).rstrip("/")
    body = {
        "properties": {"dataType": "uri_file", "dataUri": f"{base}/other.blob.core.windows.net/azureml-blobstore/a"}
    }
    refused = server.client.put(f"{WORKSPACE}/data/rows/versions/1", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "InvalidEntity")
    assert "of workspace other, not of default" in refused.json()["error"]["message"]


def test_a_list_without_blocks_makes_an_empty_file(server: Served) -> None:
    assert server.client.put(f"{CONTAINER}/empty?comp=blocklist", content=b"<BlockList />").status_code == 201
    assert (server.files / "empty").read_bytes() == b""


@pytest.mark.parametrize("document", [b"<Latest>a</Latest>" * 50_001, b"<Latest>\xff</Latest>"])
def test_a_list_of_blocks_that_no_file_can_have_is_refused(server: Served, document: bytes) -> None:
    server.client.put(f"{CONTAINER}/x?comp=block&blockid=a", content=b"x")
    answered = server.client.put(f"{CONTAINER}/x?comp=blocklist", content=document)
    assert (answered.status_code, answered.headers["x-ms-error-code"]) == (422, "InvalidInput")
    assert not (server.files / "x").exists()


@pytest.mark.parametrize("name", ["", "a&b", "1a", "a-b"])
def test_metadata_whose_name_would_spoil_a_list_is_refused(server: Served, name: str) -> None:
    answered = put(server, "x", b"x", **{f"x-ms-meta-{name}": "y"})
    assert (answered.status_code, answered.headers["x-ms-error-code"]) == (422, "InvalidInput")
    assert server.names() == []


def test_a_container_whose_name_is_not_for_xml_is_listed_all_the_same(server: Served) -> None:
    answered = server.client.get(f"{ACCOUNT}/{quote('code-')}%22%01?comp=list")
    assert ET.fromstring(answered.content).get("ContainerName") == 'code-"?'


def test_a_range_that_no_file_reaches_is_no_range(server: Served) -> None:
    put(server, "x", b"abc")
    answered = server.client.get(f"{CONTAINER}/x", headers={"x-ms-range": f"bytes={'9' * 5000}-"})
    assert (answered.status_code, answered.content) == (200, b"abc")


@pytest.mark.parametrize(
    "name", ["a" * 256, "a" * 256 + "/x", "x/" + "ä" * 128, "b/" * 255 + "x", ("c" * 200 + "/") * 21]
)
def test_a_name_that_no_file_system_takes_is_refused_whatever_is_asked_of_it(server: Served, name: str) -> None:
    address = f"{CONTAINER}/{name}"
    answers = [
        server.client.get(address),
        server.client.put(address, content=b"x"),
        server.client.put(f"{address}?comp=block&blockid=YQ==", content=b"x"),
        server.client.put(f"{address}?comp=blocklist", content=b"<BlockList />"),
        server.client.get(CONTAINER, params={"prefix": f"{name}/"}),
    ]
    assert {answer.status_code for answer in answers} == {422}
