"""Every error of batchpoint: its stable code, and whether trying again can help.

The domain knows ``code``; only ``server/statuses.py`` knows HTTP statuses, only ``cli/main.py`` knows exit codes; the
client rebuilds the same class from the code, so ``except NotFoundError`` works in-process and over the wire alike. A
message says what happened, to what, and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BatchpointError(Exception):
    """Something went wrong in batchpoint."""

    # The message is for everybody: whoever sends requests, calls the client or looks at a page. Where the command line
    # has words of its own for what it advises, they are ``details['on_command_line']``, which that alone shows.

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details = details
        super().__init__(self.message)


class RequestError(BatchpointError):
    """The request cannot be carried out as it was made."""

    code = "bad_request"


class InvalidEntityError(RequestError):
    """What was declared is not valid. ``details['problems']`` lists each fault with its place and what is allowed."""

    code = "invalid_entity"


class NotFoundError(RequestError):
    """There is nothing by that name."""

    code = "not_found"


class AlreadyExistsError(RequestError):
    """Something by that name exists already, and it cannot be changed."""

    code = "already_exists"


class ConflictError(RequestError):
    """The thing is in use, or in a state that does not allow this."""

    code = "conflict"


class ChangedMeanwhileError(ConflictError):
    """The thing was changed at the same time from elsewhere."""

    code = "changed_meanwhile"
    retryable = True


class AuthenticationError(RequestError):
    """The token is missing, unknown, expired or revoked."""

    code = "unauthenticated"


class PermissionDeniedError(RequestError):
    """The token's role does not allow this."""

    code = "permission_denied"


class TooManyRequestsError(RequestError):
    """Too many failed attempts came from this address."""

    code = "too_many_requests"
    retryable = True


class RequestTooLargeError(RequestError):
    """The request is larger than the server accepts."""

    code = "request_too_large"


class ScoringError(BatchpointError):
    """The scoring script or the data made the job fail."""

    code = "scoring_failed"


class ScoringScriptError(ScoringError):
    """The scoring script could not be imported, or its ``init()`` failed."""

    code = "scoring_script_failed"


class InputError(ScoringError):
    """The input could not be read, or holds nothing to score."""

    code = "input_unavailable"


class MiniBatchError(ScoringError):
    """``run()`` raised for a mini-batch."""

    code = "mini_batch_failed"


class MiniBatchTimeoutError(ScoringError):
    """``run()`` took longer than the retry settings allow."""

    code = "mini_batch_timed_out"


class ErrorThresholdExceededError(ScoringError):
    """More items or mini-batches failed than the job allows."""

    code = "error_threshold_exceeded"


class CommandFailedError(ScoringError):
    """The command of a step ended with an exit code other than 0, or took too long."""

    code = "command_failed"


class StepFailedError(ScoringError):
    """A step of the pipeline failed or was canceled."""

    code = "step_failed"


class OutputError(ScoringError):
    """The output could not be written, or something already lies where it should go."""

    code = "output_failed"


class PlatformError(BatchpointError):
    """Something outside the script and the data failed."""

    code = "platform_error"


class DatastoreError(PlatformError):
    """A datastore did not answer, or refused access."""

    code = "datastore_unavailable"
    retryable = True


class RegistryError(PlatformError):
    """The registry database cannot be used."""

    code = "registry_unavailable"
    retryable = True


class ServerUnavailableError(PlatformError):
    """No server answers at this address."""

    code = "server_unavailable"
    retryable = True


class EnvironmentBuildError(PlatformError):
    """The environment of the deployment could not be built."""

    code = "environment_failed"


class WorkerLostError(PlatformError):
    """A worker process ended without saying why."""

    code = "worker_lost"
    retryable = True


class LeaseLostError(PlatformError):
    """Another owner has taken over this job. Never shown to a user."""

    code = "lease_lost"


def _all_subclasses(root: type[BatchpointError]) -> list[type[BatchpointError]]:
    return [root, *(found for child in root.__subclasses__() for found in _all_subclasses(child))]


BY_CODE: dict[str, type[BatchpointError]] = {error.code: error for error in _all_subclasses(BatchpointError)}
