"""``endpoint`` and ``deployment``, also under Azure's names ``batch-endpoint`` and ``batch-deployment``; invoke."""

from __future__ import annotations

import json
from typing import Any

import click

from batchpoint.cli.entities import add_named_readers, declare
from batchpoint.cli.jobs import JOB_COLUMNS, watch
from batchpoint.cli.options import (
    Command,
    Group,
    State,
    changes_of,
    common,
    confirm,
    file_option,
    limit_option,
    name_option,
    no_wait_option,
    set_option,
    tags_of,
    tags_option,
    update_options,
    yes_option,
)
from batchpoint.cli.preview import place_options, places_given, traffic_option

MODEL_COLUMNS = ("key", "model", "rows", "failed", "seconds", "last_seen_at", "last_job_name", "message")
_DEPLOYMENT_COLUMNS = ("name", "endpoint_name", "model", "compute", "provisioning_state")


class _EndpointCommand(Command):
    """Takes ``--type batch`` as well, which the preview of Azure's command line asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not any("--type" in parameter.opts for parameter in self.params):
            kind = click.Choice(["batch"], case_sensitive=False)
            self.params.append(
                click.Option(["-t", "--type"], type=kind, hidden=True, expose_value=False, callback=_keep)
            )


def _keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta["batchpoint.type"] = value


class _EndpointGroup(Group):
    command_class = _EndpointCommand


@click.group("endpoint", cls=_EndpointGroup)
def endpoint() -> None:
    """Batch endpoints: stable addresses that jobs are asked of."""


def _note_schedules(state: State, name: str) -> None:
    """Name the schedules that invoke an endpoint which is gone."""
    from batchpoint.entities.schedules import ScheduledInvoke

    plans = {one.name: one.create_job for one in state.client().schedules.list(enabled=True)}
    left = [of for of, plan in plans.items() if isinstance(plan, ScheduledInvoke) and plan.endpoint_name == name]
    if left:
        state.note(f"Schedules that still invoke endpoint {name}, and fail from now on: {', '.join(left)}.")


add_named_readers(
    endpoint,
    "endpoints",
    ("name", "description", "scoring_uri", "provisioning_state"),
    once_deleted=_note_schedules,
)


@endpoint.command("create")
@file_option()
@click.option("-n", "--name", help="Name.")
@click.option("--description", help="What it is.")
@tags_option
@set_option
@no_wait_option
@common
def create_endpoint(
    state: State, file: str | None, assignments: tuple[str, ...], tags: tuple[str, ...], **given: Any
) -> None:
    """Create an endpoint, or bring it to what the file and the options say.

    Deployments that stand in the same file, as in Azure ML's preview, are created too.
    """
    if file is not None and (changed := _with_deployments(state, file, assignments, {**given, "tags": tags_of(tags)})):
        state.show(changed)
        return
    entity = declare("endpoint", file, given, assignments, tags)
    state.show(state.client().endpoints.create_or_update(entity))


@endpoint.command("update")
@name_option
@file_option(text="YAML file that holds the whole of it.")
@click.option("--defaults", metavar="deployment_name=NAME", help="The deployment that answers by default.")
@click.option("--deployment-file", metavar="FILE", hidden=True, help="Create this deployment, as Azure's preview did.")
@traffic_option
@click.option("--description", help="What it is.")
@tags_option
@update_options
@no_wait_option
@common
def update_endpoint(
    state: State,
    name: str,
    file: str | None,
    defaults: str | None,
    deployment_file: str | None,
    traffic: dict[str, str],
    description: str | None,
    tags: tuple[str, ...],
    assignments: tuple[str, ...],
) -> None:
    """Change some keys; with a file, all of them."""
    if defaults is not None:
        key = defaults if "=" in defaults else f"deployment_name={defaults}"
        assignments = (*assignments, f"defaults.{key}")
    given = {"description": description}
    if file is not None and (changed := _with_deployments(state, file, assignments, {**given, "name": name})):
        state.show(changed)
        return
    if deployment_file is not None:
        state.client().deployments.create_or_update(declare("deployment", deployment_file, {"endpoint_name": name}, ()))
    if traffic:
        assignments = (*assignments, *_default_by_traffic(state, name, traffic))
    if (deployment_file or traffic) and not assignments and description is None:
        state.show(state.client().endpoints.get(name))
        return
    if file is not None:
        entity = declare("endpoint", file, {**given, "name": name}, assignments, tags)
        state.show(state.client().endpoints.create_or_update(entity))
        return
    changes = changes_of(assignments, {**given, "tags": tags_of(tags)})
    state.show(state.client().endpoints.update(name, changes=changes))


def _with_deployments(state: State, file: str, assignments: tuple[str, ...], given: dict[str, Any]) -> Any:
    """An endpoint whose file holds its deployments, brought about with them; None for a file that holds none."""
    from batchpoint.client.files import read_yaml
    from batchpoint.entities.preview_endpoints import is_preview_endpoint

    document = read_yaml(file)
    if not is_preview_endpoint(document.value):
        return None
    said = {**{f"tags.{key}": value for key, value in given.pop("tags", {}).items()}, **given}
    own = [f"{key}={json.dumps(value)}" for key, value in said.items() if value is not None]
    state.client().apply(file, set=[*own, *assignments])
    name = next((each.partition("=")[2] for each in reversed(assignments) if each.startswith("name=")), given["name"])
    return state.client().endpoints.get(name or str(document.value["name"]))


def _default_by_traffic(state: State, endpoint_name: str, traffic: dict[str, str]) -> list[str]:
    """What changes when a deployment is given all traffic, or none; only the default has any."""
    from batchpoint.entities.preview_endpoints import default_of

    if (wanted := default_of(traffic, place="--traffic")) is not None:
        return [f"defaults.deployment_name={wanted}"]
    present = state.client().endpoints.get(endpoint_name).defaults.deployment_name
    return ["defaults.deployment_name=null"] if present in traffic else []


_JOB_OPTIONS = [
    click.option("--challenger", metavar="NAME", help="Deployment that scores the same data, to be compared."),
    click.option("-d", "--deployment-name", help="Deployment to ask; the default one when not given."),
    click.option("--input", "input_path", help="What to score: local path or glob, URL, azureml:name:version, …"),
    click.option("--input-type", type=click.Choice(["uri_file", "uri_folder", "mltable"]), help="What lies there."),
    click.option("--input-query", metavar="SQL", help="Score the rows of this query; --input is the database."),
    click.option("--include", multiple=True, metavar="GLOB", help="Take only these files of a folder."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these files out."),
    click.option("--recursive", is_flag=True, help="Explore sub-folders."),
    click.option("-f", "--file", "--input-file", "file", metavar="FILE", help="YAML file with inputs and outputs."),
    click.option(
        "--inputs", "input_texts", multiple=True, metavar="FILE|NAME=VALUE", help="YAML file with inputs, or one."
    ),
    click.option(
        "--outputs", "output_texts", multiple=True, metavar="FILE|NAME=PATH", help="YAML file, or one output."
    ),
    click.option("--output-path", help="Where to write: local folder, azureml://datastores/…, URL."),
    click.option("-c", "--instance-count", type=click.IntRange(1), help="Instances for this job."),
    click.option("-m", "--mini-batch-size", type=click.IntRange(1), help="Items of a mini-batch for this job."),
]


def job_options(command: Any) -> Any:
    """What a job is asked with: the options that ``invoke`` and ``plan`` share."""
    command = place_options(command)
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


@endpoint.command("invoke")
@name_option
@job_options
@click.option("--job-name", help="Name of the job.")
@click.option("--experiment-name", help="Recorded with the job.")
@click.option("--idempotency-key", help="Repeating an invoke with the same key answers with the same job.")
@tags_option
@set_option
@click.option("-s", "--stream", is_flag=True, help="Wait for the end, showing progress.")
@no_wait_option
@common
def invoke(
    state: State, name: str, file: str | None, tags: tuple[str, ...], assignments: tuple[str, ...], **given: Any
) -> None:
    """Ask a deployment to score an input, or to run its pipeline. Prints the job; --stream follows it to its end."""
    request = asked_for(state, file, assignments, given)
    stream = given.pop("stream")
    job = state.client().endpoints.invoke(name, **request, tags=tags_of(tags), **given)
    if stream:
        watch(state, job)
    if not stream or state.output or state.query:
        state.show(job.entity)


@endpoint.command("promote")
@name_option
@click.option(
    *("-d", "--deployment-name", "--deployment", "deployment_name"),
    required=True,
    help="Deployment that is to answer by default.",
)
@click.option("--job", "job_name", metavar="NAME", help="Job whose comparison speaks for it.")
@click.option(
    "--if-agreement", type=click.FloatRange(0, 1), help="Share of the results that have to agree, such as 0.98."
)
@common
def promote(state: State, name: str, deployment_name: str, job_name: str | None, if_agreement: float | None) -> None:
    """Let a deployment answer by default, if the comparison of a job speaks for it."""
    endpoints = state.client().endpoints
    changed = endpoints.promote(name, deployment_name, job_name=job_name, if_agreement=if_agreement)
    state.show(changed)


@endpoint.command("latest")
@name_option
@common
def latest(state: State, name: str) -> None:
    """Show the job whose output is the endpoint's latest."""
    state.show(state.client().endpoints.latest(name).entity)


@endpoint.command("rollback")
@name_option
@click.option("--job", "job_name", metavar="NAME", help="Job to go back to.  [default: the one before the present]")
@common
def rollback(state: State, name: str, job_name: str | None) -> None:
    """Make an earlier output the endpoint's latest again. Prints its job; no file is touched.

    A job and its retries wrote one output: they are withdrawn together. It is refused when the earlier output
    was written over by a later job of the endpoint, or its files are gone."""
    state.show(state.client().endpoints.rollback(name, job_name=job_name).entity)


@endpoint.command("list-jobs")
@name_option
@click.option("-d", "--deployment-name", help="Only those of this deployment.")
@limit_option
@common
def list_endpoint_jobs(state: State, name: str, deployment_name: str | None, limit: int | None) -> None:
    """List the jobs of an endpoint, the newest first."""
    client = state.client()
    if deployment_name is None and click.get_current_context().meta["batchpoint.type"]:
        # The preview listed the jobs of the deployment that has the traffic, unless another one was named.
        deployment_name = client.endpoints.get(name).defaults.deployment_name
    if deployment_name is None:
        jobs = client.endpoints.list_jobs(name, limit=limit)
    else:
        jobs = client.deployments.list_jobs(deployment_name, name, limit=limit)
    state.show([job.entity for job in jobs], columns=JOB_COLUMNS)


@click.group("deployment", cls=Group)
def deployment() -> None:
    """Deployments: what answers behind an endpoint."""


def _endpoint_name(command: Any) -> Any:
    return click.option("-e", "--endpoint-name", required=True, help="Endpoint.")(command)


@deployment.command("create")
@file_option()
@click.option("-n", "--name", help="Name.")
@click.option("-e", "--endpoint-name", help="Endpoint.")
@tags_option
@set_option
@click.option("--set-default", is_flag=True, help="Let it answer invokes that name no deployment.")
@click.option("--skip-script-validation", is_flag=True, help="Store the scoring script unread.")
@no_wait_option
@common
def create_deployment(
    state: State,
    file: str | None,
    assignments: tuple[str, ...],
    tags: tuple[str, ...],
    set_default: bool,
    skip_script_validation: bool,
    **given: Any,
) -> None:
    """Create a deployment, or bring it to what the file and the options say."""
    stored = state.client().deployments.create_or_update(
        declare("deployment", file, given, assignments, tags),
        set_default=set_default,
        skip_script_validation=skip_script_validation,
    )
    state.show(stored)


@deployment.command("update")
@name_option
@click.option("-e", "--endpoint-name", help="Endpoint.")
@file_option(text="YAML file that holds the whole of it.")
@tags_option
@update_options
@no_wait_option
@common
def update_deployment(
    state: State,
    name: str,
    endpoint_name: str | None,
    file: str | None,
    tags: tuple[str, ...],
    assignments: tuple[str, ...],
) -> None:
    """Change some keys; with a file, all of them."""
    deployments = state.client().deployments
    if file is not None:
        given = {"name": name, "endpoint_name": endpoint_name}
        state.show(deployments.create_or_update(declare("deployment", file, given, assignments, tags)))
        return
    if endpoint_name is None:
        raise click.UsageError("Missing option '-e' / '--endpoint-name'.")
    changes = changes_of(assignments, {"tags": tags_of(tags)})
    state.show(deployments.update(name, endpoint_name, changes=changes))


@deployment.command("show")
@name_option
@_endpoint_name
@common
def show_deployment(state: State, name: str, endpoint_name: str) -> None:
    """Show one."""
    state.show(state.client().deployments.get(name, endpoint_name))


@deployment.command("list")
@_endpoint_name
@limit_option
@common
def list_deployments(state: State, endpoint_name: str, limit: int | None) -> None:
    """List the deployments of an endpoint."""
    found = state.client().deployments.list(endpoint_name, limit=limit)
    state.show(list(found), columns=_DEPLOYMENT_COLUMNS)


@deployment.command("delete")
@name_option
@_endpoint_name
@yes_option
@no_wait_option
@common
def delete_deployment(state: State, name: str, endpoint_name: str, yes: bool) -> None:
    """Remove one."""
    confirm(f"deployment {endpoint_name}/{name}", yes=yes)
    state.client().deployments.delete(name, endpoint_name)


@deployment.command("list-jobs")
@name_option
@_endpoint_name
@limit_option
@common
def list_deployment_jobs(state: State, name: str, endpoint_name: str, limit: int | None) -> None:
    """List the jobs of a deployment, the newest first."""
    jobs = state.client().deployments.list_jobs(name, endpoint_name, limit=limit)
    state.show([job.entity for job in jobs], columns=JOB_COLUMNS)


@deployment.command("models")
@name_option
@_endpoint_name
@click.option("--failed", "failing", is_flag=True, help="Those of which something failed or was skipped the last time.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["key", "failed", "rows", "seconds", "last_seen"]),
    default="key",
    help="What comes first: the greatest number, or the latest time.  [default: key]",
)
@limit_option
@common
def list_models(state: State, name: str, endpoint_name: str, failing: bool, order: Any, limit: int | None) -> None:
    """List what each key's model did, over all jobs of a deployment with a model map."""
    found = state.client().deployments.models(name, endpoint_name, failing=failing, order=order, limit=limit)
    state.show([model.model_dump(mode="json", exclude_none=True) for model in found], columns=MODEL_COLUMNS)


def asked_for(state: State, file: str | None, assignments: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """What the options of ``job_options`` mean to the client; they are taken out of ``given``."""
    given.update(places_given(state, given))
    inputs, outputs = _declared_in(file, "inputs", whole=True), _declared_in(file, "outputs", whole=True)
    inputs |= _files_or_pairs(given.pop("input_texts"), "inputs")
    outputs |= _files_or_pairs(given.pop("output_texts"), "outputs")
    own = tuple(each for each in assignments if each.strip().startswith(("inputs.", "outputs.")))
    assignments = tuple(each for each in assignments if each not in own)
    inputs, outputs = _set_within(own, inputs=inputs, outputs=outputs)
    told = {key: given.pop(key) for key in ("input_type", "include", "exclude", "recursive", "input_query")}
    if (input_path := given.pop("input_path")) is not None:
        inputs = {"input": _input(input_path, **told)}
    overrides = _assigned(assignments)
    for key in ("instance_count", "mini_batch_size"):
        if (number := given.pop(key)) is not None:
            overrides[key] = number
    kept = {key: given.pop(key) for key in ("deployment_name", "challenger", "output_path")}
    return {"inputs": inputs, "outputs": outputs, "params_override": [overrides], **kept}


def _set_within(assignments: tuple[str, ...], **declared: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--set inputs.data.path=…`` on top of what files and other options say."""
    from batchpoint.entities.documents import Document

    value = Document(value=declared, name="--set").with_settings(assignments).value
    return value["inputs"], value["outputs"]


def _input(
    path: str, *, input_type: str | None, include: Any, exclude: Any, recursive: bool, input_query: str | None
) -> dict[str, Any]:
    told = {"type": input_type, "include": list(include), "exclude": list(exclude), "recursive": recursive}
    return {"path": path, **{key: value for key, value in {**told, "query": input_query}.items() if value}}


def _files_or_pairs(texts: tuple[str, ...], key: str) -> dict[str, Any]:
    """Each text is a YAML file, or ``name=value``."""
    from pathlib import Path

    found: dict[str, Any] = {}
    for text in texts:
        name, is_pair, value = text.partition("=")
        if is_pair and not Path(text).exists():
            found[name] = value
        else:
            found |= _declared_in(text, key)
    return found


def _declared_in(path: str | None, key: str, *, whole: bool = False) -> dict[str, Any]:
    """Inputs or outputs of a YAML file; local paths in it are relative to it.

    A ``whole`` file has the keys ``inputs`` and ``outputs``; one that was given for ``key`` alone may leave it out.
    """
    if path is None:
        return {}
    from pathlib import Path

    from batchpoint.client.files import absolute, read_yaml
    from batchpoint.entities.documents import suggestion
    from batchpoint.entities.local_paths import is_local, looks_like_a_path
    from batchpoint.errors import InvalidEntityError

    document, known = read_yaml(path), {"inputs", "outputs"}
    value = document.value
    if whole or known & set(value):
        if unknown := [name for name in value if name not in known]:
            place = document.places[(unknown[0],)]
            message = f"{place}: key {unknown[0]!r} is not known here. {suggestion(unknown[0], known)}"
            raise InvalidEntityError(message)
    else:
        value = {key: value}
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise InvalidEntityError(f"{path}: under '{key}' each name must hold a mapping with 'path', or a value.")
    folder = Path(path).parent.absolute()

    def placed(text: Any) -> Any:
        return absolute(text, folder) if isinstance(text, str) and is_local(text) else text

    return {
        name: {**item, "path": placed(item["path"])}
        if isinstance(item, dict) and "path" in item
        else placed(item)
        if isinstance(item, str) and looks_like_a_path(item)
        else item
        for name, item in found.items()
    }


def _assigned(assignments: tuple[str, ...]) -> dict[str, Any]:
    """``--set`` of an invoke, keys still dotted."""
    from batchpoint.entities.documents import read_assignment

    read = [read_assignment(text) for text in assignments]
    return {".".join(map(str, key)): value for key, value, _ in read}
