"""``webhook``: what any named thing has, and ``renew-secret``, ``test``, ``deliveries``, ``replay``."""

from __future__ import annotations

import click

from batchpoint.cli.entities import resource_group
from batchpoint.cli.options import State, common, limit_option, name_option, yes_option

_COLUMNS = ("id", "event", "job_name", "state", "attempts", "status_code", "message", "created_at")

webhook = resource_group(
    "webhook",
    "webhooks",
    "Addresses that are told what becomes of jobs.",
    ("name", "url", "events", "enabled", "description"),
    click.option("--url", help="Address that is called."),
    click.option(
        "--event", "events", multiple=True, callback=lambda _context, _option, value: list(value) or None,
        help="job.started, job.completed, job.failed, job.canceled or job.threshold_exceeded; may be repeated.",
    ),
    click.option("--enabled", type=click.BOOL, help="Whether it is told anything."),
    click.option("--steps", type=click.BOOL, help="Whether the steps of pipelines are told of, too."),
    absent={},
)  # fmt: skip


@webhook.command("renew-secret")
@name_option
@yes_option
@common
def renew_secret(state: State, name: str, yes: bool) -> None:
    """Give one a new secret and print it, this once. What is sent from now on is signed with it."""
    from batchpoint.cli.options import confirm

    confirm(f"the secret of webhook {name}", yes=yes, deed="Replace", in_scripts=False)
    state.show({"secret": state.client().webhooks.renew_secret(name)})


@webhook.command()
@name_option
@common
def test(state: State, name: str) -> None:
    """Send one something that is about no job; 'webhook deliveries' tells whether it arrived."""
    state.show(state.client().webhooks.test(name).model_dump(mode="json", exclude_none=True))


@webhook.command()
@name_option
@click.option("--state", "wanted", help="Only those that are pending, delivered or failed.")
@limit_option
@common
def deliveries(state: State, name: str, wanted: str | None, limit: int | None) -> None:
    """List what was sent to one or waits to be, the newest first; 50 when nothing else is said."""
    found = state.client().webhooks.deliveries(name, state=wanted, limit=limit or 50)
    state.show([delivery.model_dump(mode="json", exclude_none=True) for delivery in found], columns=_COLUMNS)


@webhook.command()
@name_option
@click.option("--id", "number", type=int, help="The delivery to send again, whatever became of it.")
@click.option("--failed", is_flag=True, help="Send all again that failed.")
@common
def replay(state: State, name: str, number: int | None, failed: bool) -> None:
    """Send deliveries again, with the same message ids."""
    if failed == (number is not None):
        message = "Say what to send again: --id of one delivery, or --failed for all that failed."
        raise click.UsageError(message)
    webhooks = state.client().webhooks
    if number is not None:
        state.show(webhooks.replay(name, number).model_dump(mode="json", exclude_none=True))
    else:
        state.note(f"{webhooks.replay_failed(name)} deliveries are sent again.")
