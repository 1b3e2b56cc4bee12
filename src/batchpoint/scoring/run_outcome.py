"""How a run ended, in words: reason, code and error of the outcome (pure)."""

from __future__ import annotations

import errno

from batchpoint.entities.jobs import JobError, Reason, Receipt
from batchpoint.errors import (
    BatchpointError,
    DatastoreError,
    EnvironmentBuildError,
    InputError,
    OutputError,
    ScoringScriptError,
)
from batchpoint.scoring.events import Finish
from batchpoint.scoring.ledger import FailedItem

CODES: dict[Reason, str] = {
    Reason.ERROR_THRESHOLD_EXCEEDED: "error_threshold_exceeded",
    Reason.ALL_ITEMS_FAILED: "mini_batch_failed",
    Reason.SCORING_SCRIPT_FAILED: "scoring_script_failed",
    Reason.INPUT_UNAVAILABLE: "input_unavailable",
    Reason.OUTPUT_FAILED: "output_failed",
    Reason.RECEIPT_UNBALANCED: "output_failed",
    Reason.COMMAND_FAILED: "command_failed",
    Reason.NO_PROGRESS: "mini_batch_timed_out",
    Reason.WORKERS_LOST: "worker_lost",
    Reason.ENVIRONMENT_FAILED: "environment_failed",
}
"""Code of the job's error for each reason; every other one is ``platform_error``."""


def error_of_run(finish: Finish) -> JobError:
    """The error of a run that the state machine ended: the script's own, or the first failed item's."""
    code = CODES.get(finish.reason, "platform_error")
    if finish.error is not None:
        error = finish.error
        log = "logs/user/error"
        return JobError(
            code=code, message=finish.message, exception=error.type, traceback=error.traceback or None, log=log
        )
    failure = finish.failure
    if failure is None:
        return JobError(code=code, message=finish.message)
    return JobError(
        code=code,
        message=f"{finish.message} The first: {_failure_in_words(failure)}",
        file=failure.file,
        row=failure.row,
        exception=failure.error.type,
        traceback=failure.error.traceback or None,
        log="logs/user/error",
    )


def error_of_exception(error: Exception, trace: str) -> tuple[Reason, JobError]:
    """Reason and error of a run that an exception ended; its traceback only where the exception is not one of ours."""
    reason = _reason_of(error)
    code, kind = CODES.get(reason, "platform_error"), type(error).__name__
    if isinstance(error, BatchpointError):
        return reason, JobError(code=code, message=error.message, exception=kind)
    return reason, JobError(code=code, message=f"{kind}: {error}", exception=kind, traceback=trace)


def error_of_receipt(receipt: Receipt) -> JobError:
    """The error of a run whose receipt does not add up."""
    message = (
        f"The receipt does not add up: {receipt.items} items planned, {receipt.ok} ok, {receipt.failed} "
        f"failed, {receipt.skipped} skipped, {receipt.output_rows} rows written. Do not use this output."
    )
    return JobError(code=CODES[Reason.RECEIPT_UNBALANCED], message=message)


def shutdown_notices(cut_short: int, grace: float) -> list[str]:
    """What is to be said of workers whose ``shutdown()`` did not end within the grace."""
    if not cut_short:
        return []
    what = "the shutdown() of one worker was" if cut_short == 1 else f"the shutdown() of {cut_short} workers was"
    return [f"After {grace:g} seconds {what} cut short. The predictions are whole; files that it writes may not be."]


def _failure_in_words(failure: FailedItem) -> str:
    place = failure.file or "an item that is not known"
    if failure.row is not None:
        place += f", row {failure.row}"
    return f"{place}: {failure.error.type}: {failure.error.message}"


def _reason_of(error: Exception) -> Reason:
    kinds: tuple[tuple[type[Exception], Reason], ...] = (
        (InputError, Reason.INPUT_UNAVAILABLE),
        (DatastoreError, Reason.INPUT_UNAVAILABLE),
        (OutputError, Reason.OUTPUT_FAILED),
        (EnvironmentBuildError, Reason.ENVIRONMENT_FAILED),
        (ScoringScriptError, Reason.SCORING_SCRIPT_FAILED),
    )
    for kind, reason in kinds:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Reason.OUTPUT_FAILED
    return Reason.INTERNAL_ERROR
