"""Error → HTTP status."""

from __future__ import annotations

from batchpoint.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BatchpointError,
    ConflictError,
    DatastoreError,
    InvalidEntityError,
    LeaseLostError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    RequestError,
    RequestTooLargeError,
    ScoringError,
    ServerUnavailableError,
    TooManyRequestsError,
)

_STATUS: dict[type[BatchpointError], int] = {
    InvalidEntityError: 422,
    NotFoundError: 404,
    AlreadyExistsError: 409,
    ConflictError: 409,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    TooManyRequestsError: 429,
    RequestTooLargeError: 413,
    RequestError: 400,
    ScoringError: 422,
    DatastoreError: 503,
    RegistryError: 503,
    ServerUnavailableError: 503,
    LeaseLostError: 409,
    BatchpointError: 500,
}


def status_of(error: BatchpointError) -> int:
    """The HTTP status that an error is answered with: that of its class, else of the nearest class above it."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
