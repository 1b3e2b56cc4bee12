"""One server: requests, retries, errors rebuilt from their code. The only door to httpx."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote, urlsplit

import httpx

from batchpoint import __version__
from batchpoint.errors import (
    BY_CODE,
    AuthenticationError,
    BatchpointError,
    ConflictError,
    InvalidEntityError,
    NotFoundError,
    PermissionDeniedError,
    PlatformError,
    RequestError,
    RequestTooLargeError,
    ServerUnavailableError,
    TooManyRequestsError,
)

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.2
CHUNK_BYTES = 1 << 20

Archived = Literal["exclude", "only", "include"]
"""Which things a list holds: what is not archived, only what is, or both."""

ByteProgress = Callable[[str, int, int], None]
"""Called with the file's name, bytes so far and bytes in all."""

_BY_STATUS: dict[int, type[BatchpointError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RequestTooLargeError,
    429: TooManyRequestsError,
}

_PASSING = frozenset({502, 503, 504})
"""Statuses after which the same request may succeed."""


class Connection:
    """A server's address and token, and the workspace that is meant; None leaves it to the server.

    Requests that may safely be repeated (all but a POST without an idempotency key) are tried four times when the
    server does not answer, with growing pauses. ``find_again`` names the server anew when nothing answers at its
    address, for local servers that end themselves when idle.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        workspace: str | None = None,
        find_again: Callable[[], tuple[str, str | None]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.workspace = workspace
        self._find_again = find_again
        self._sleep = sleep
        self._open(url, token)

    def close(self) -> None:
        """Give back the sockets."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at a path; parameters that are None are left out."""
        return self.send("GET", path, params=params)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """One request with a JSON body and a JSON answer (None when the answer is empty).

        Raises:
            BatchpointError: the class that the server's error code stands for.
            ServerUnavailableError: nothing answers.
        """
        content = None if body is None else json.dumps(body).encode()
        all_headers = {**({"Content-Type": "application/json"} if content else {}), **(headers or {})}
        repeatable = method != "POST" or "Idempotency-Key" in all_headers

        def once() -> httpx.Response:
            return self._http.request(
                method, path, content=content, params=_given(params), headers=all_headers, timeout=timeout or 60
            )

        response = self._with_retries(once, repeatable=repeatable)
        return _json(response) if response.content else None

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page, at most ``limit``."""
        address: str | None = path
        left = limit
        query: Mapping[str, Any] | None = {**params, "limit": None if limit is None else min(limit, 1000)}
        while address is not None:
            page = self.send("GET", address, params=query)
            for item in page["value"]:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield item
            following = page.get("next")
            address = None if following is None else _relative(following)
            query = None

    def text(self, path: str, **params: Any) -> str:
        """A text answer, whole."""
        response = self._with_retries(lambda: self._http.get(path, params=_given(params)), repeatable=True)
        return response.text

    def download(self, path: str, target: Path, *, progress: ByteProgress | None = None) -> None:
        """A file, streamed to ``target``; it appears whole or not at all.

        Raises:
            RequestError: it cannot be written there.
        """
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._download(path, target, progress)

    def _download(self, path: str, target: Path, progress: ByteProgress | None) -> None:
        partial = target.with_name(f"{target.name}.partial")

        def once() -> httpx.Response:
            with self._http.stream("GET", path, timeout=300) as response:
                if response.is_error:
                    response.read()
                    return response
                total = int(response.headers.get("Content-Length") or 0)
                with partial.open("wb") as file:
                    for chunk in response.iter_bytes(CHUNK_BYTES):
                        file.write(chunk)
                        if progress:
                            progress(target.name, file.tell(), total)
                return response

        try:
            self._with_retries(once, repeatable=True)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def upload(self, path: str, source: Path, *, progress: ByteProgress | None = None) -> None:
        """A file's bytes, streamed."""

        def once() -> httpx.Response:
            size = source.stat().st_size
            with source.open("rb") as file:
                body = _chunks(file, source.name, size, progress)
                headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
                return self._http.put(path, content=body, headers=headers, timeout=300)

        self._with_retries(once, repeatable=True)

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Server-sent events as name and data (JSON where it is JSON). Ends when the server ends the stream."""
        try:
            with self._http.stream("GET", path, timeout=httpx.Timeout(10, read=120)) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response.status_code, response.content)
                yield from _events(response.iter_lines())
        except httpx.TransportError as failure:
            raise self._unavailable(failure) from None

    def _open(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/").removesuffix("/api/v1")
        self.token = token
        headers = {"User-Agent": f"batchpoint/{__version__}", "Accept": "application/json, */*;q=0.5"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if self.workspace:
            headers["X-Batchpoint-Workspace"] = self.workspace
        # A proxy of the environment never leads to this machine itself.
        local = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        try:
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1",
                headers=headers,
                timeout=httpx.Timeout(60, connect=10),
                trust_env=not local,
                # What stays on this machine may go in clear, so a certificate that nobody signed does for it too.
                verify=not local,
                follow_redirects=False,
            )
        except (httpx.InvalidURL, ValueError) as fault:
            raise RequestError(f"{url!r} is not the address of a server: {fault}.") from None

    def _with_retries(self, once: Callable[[], httpx.Response], *, repeatable: bool) -> httpx.Response:
        """Carry out a request, again where that is safe and may help; the answer is a success."""
        looked = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                response = once()
            except httpx.ConnectError as failure:
                # Nothing was sent, so even a request that must not be repeated may go again.
                looked = self._after_no_connection(failure, looked=looked, last=last)
            except httpx.TransportError as failure:
                if last or not repeatable:
                    raise self._unavailable(failure) from None
            except httpx.InvalidURL as fault:
                raise RequestError(f"{self.url!r} is not the address of a server: {fault}.") from None
            else:
                if not response.is_error:
                    return response
                if last or not repeatable or response.status_code not in _PASSING:
                    raise error_of(response.status_code, response.content)
            self._sleep(FIRST_PAUSE_SECONDS * 2**attempt * (0.5 + random.random()))  # noqa: S311 - jitter, no secret
        raise AssertionError("the last attempt returns or raises")

    def _after_no_connection(self, failure: httpx.ConnectError, *, looked: bool, last: bool) -> bool:
        """Look for the server anew, once for each request; answers whether it has been looked for."""
        if self._find_again is not None and not looked:
            self.close()
            self._open(*self._find_again())
            return True
        if last:
            raise self._unavailable(failure) from None
        return looked

    def _unavailable(self, failure: Exception) -> ServerUnavailableError:
        reason = str(failure) or type(failure).__name__
        message = (
            f"No server answers at {self.url} ({reason}). Start one with 'batchpoint up', or set BATCHPOINT_URL "
            "to the address of a running one."
        )
        return ServerUnavailableError(message, url=self.url)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """A local file is written: what the system says against it is told as what somebody can mend.

    Raises:
        RequestError: the file cannot be written there.
    """
    try:
        yield
    except OSError as fault:
        reason = f"{fault.strerror or fault}"
        if isinstance(fault, FileExistsError | NotADirectoryError):
            reason = next((f"{above} is a file, not a folder" for above in target.parents if above.is_file()), reason)
        raise RequestError(f"{target} cannot be written: {reason}. Choose another place.") from fault


def error_of(status: int, content: bytes) -> BatchpointError:
    """The error that an answer stands for: its class by code, its message and details as the server gave them."""
    try:
        said = json.loads(content)["error"]
        code, message, details = str(said["code"]), str(said["message"]), dict(said.get("details") or {})
        request_id = said.get("request_id")
    except (ValueError, KeyError, TypeError):
        text = content[:500].decode(errors="replace").strip()
        kind = _BY_STATUS.get(status, RequestError if status < 500 else PlatformError)
        return kind(f"The server answered {status}: {text or 'nothing'}", status=status)
    kind = BY_CODE.get(code) or _BY_STATUS.get(status, RequestError if status < 500 else PlatformError)
    if request_id:
        details.setdefault("request_id", request_id)
    return kind(message, **details)


def address(*names: str, file: str | None = None) -> str:
    """A path of the interface from names, and at its end the path of a file, whose slashes stay.

    Raises:
        InvalidEntityError: a name would make it the address of something else.
    """
    for name in names:
        if name in ("", ".", "..") or "/" in name:
            raise InvalidEntityError(
                f"{name!r} is not a name: names are made of letters, digits, '-', '_' and '.', and begin with a letter "
                "or digit."
            )
    path = [] if file is None else [quote(file, safe="/@:")]
    return "/".join(["", *(quote(name, safe="@:") for name in names), *path])


def _given(params: Mapping[str, Any] | None) -> dict[str, str] | None:
    if params is None:
        return None
    words = {True: "true", False: "false"}
    return {
        key: words[value] if isinstance(value, bool) else str(value)
        for key, value in params.items()
        if value is not None
    }


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        message = f"The server at {response.url.host} answered something that is not JSON. Is it a batchpoint server?"
        raise PlatformError(message) from None


def _relative(following: str) -> str:
    """The next page's address, whole or relative, as a path of the interface."""
    parts = urlsplit(following)
    path = parts.path.split("/api/v1", 1)[-1]
    return f"{path}?{parts.query}" if parts.query else path


def _chunks(file: BinaryIO, name: str, total: int, progress: ByteProgress | None) -> Iterator[bytes]:
    sent = 0
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        sent += len(chunk)
        if progress:
            progress(name, sent, total)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name, data = "message", list[str]()
    for line in lines:
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line:
            if data:
                text = "\n".join(data)
                try:
                    yield name, json.loads(text)
                except ValueError:
                    yield name, text
            name, data = "message", []
