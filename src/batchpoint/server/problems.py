"""Errors, answered in the shape of the interface that was asked: one for programs, the dialect's, and a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from batchpoint.errors import BatchpointError, InvalidEntityError, NotFoundError, RequestError
from batchpoint.server.azureml import blob_wire
from batchpoint.server.azureml import wire as azureml
from batchpoint.server.statuses import status_of
from batchpoint.server.studio import rendering

log = logging.getLogger(__name__)


def problem(
    code: str, message: str, *, status: int, request_id: str | None, details: Mapping[str, Any] | None = None
) -> JSONResponse:
    """The one shape."""
    body = {"code": code, "message": message, "details": dict(details or {}), "request_id": request_id}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}.get(status)
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def problem_at(path: str, error: BatchpointError, request_id: str | None) -> Response:
    """An error of batchpoint, in the shape of the interface that ``path`` belongs to."""
    if blob_wire.ADDRESS.match(path):
        return blob_wire.error(error, status_of(error))
    if path.startswith(azureml.PREFIXES):
        return JSONResponse(azureml.error_body(error.code, error.message), status_code=status_of(error))
    return problem_of(error, request_id)


def problem_of(error: BatchpointError, request_id: str | None) -> JSONResponse:
    """An error of batchpoint in the one shape."""
    details = {key: value if _is_plain(value) else str(value) for key, value in error.details.items()}
    return problem(error.code, error.message, status=status_of(error), request_id=request_id, details=details)


def install(app: FastAPI) -> None:
    """Answer every error that a route or the framework raises in the one shape."""
    app.add_exception_handler(BatchpointError, _batchpoint_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


def _batchpoint_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BatchpointError)
    if status_of(error) >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error.message, exc_info=error)
    return answer_to(request, error)


def answer_to(request: Request, error: BatchpointError) -> Response:
    """An error of batchpoint, in the shape of the interface that was asked; to a person, a page."""
    if rendering.is_shown(request):
        return rendering.error_page(request, error, status_of(error))
    return problem_at(request.url.path, error, request.scope.get("request_id"))


def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"place": ".".join(str(step) for step in fault["loc"]), "message": fault["msg"]} for fault in error.errors()
    ]
    message = "The request is not valid: " + "; ".join(f"{fault['place']}: {fault['message']}" for fault in problems)
    return answer_to(request, InvalidEntityError(message, problems=problems))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == 404:
        code, message = NotFoundError.code, f"There is nothing at {path}. GET /openapi.json lists what there is."
    elif error.status_code == 405:
        code, message = RequestError.code, f"{path} does not take {method}."
    else:
        code, message = RequestError.code, f"{HTTPStatus(error.status_code).phrase}: {error.detail}"
    if blob_wire.ADDRESS.match(path):
        return blob_wire.error(RequestError(message), error.status_code)
    if path.startswith(azureml.PREFIXES):
        return JSONResponse(azureml.error_body(code, message), status_code=error.status_code)
    if rendering.is_shown(request):
        return rendering.error_page(request, RequestError(message), error.status_code)
    return problem(code, message, status=error.status_code, request_id=request.scope.get("request_id"))


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)
