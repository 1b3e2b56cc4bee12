"""What makes a deployment sound: model, script, environment and compute are found and checked when it is declared."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from batchpoint.entities.assets import Code, Model
from batchpoint.entities.endpoints import BatchDeployment
from batchpoint.entities.resources import Compute
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.operations.model_maps import ModelMaps, check_keys
from batchpoint.operations.places import asset_reference
from batchpoint.registry import Registry

if TYPE_CHECKING:
    from batchpoint.operations.assets import Assets


class DeploymentResolver:
    """Turns a deployment as declared into one that refers to registered versions alone."""

    def __init__(self, registry: Registry, assets: Assets, model_maps: ModelMaps) -> None:
        self._registry = registry
        self._assets = assets
        self._model_maps = model_maps

    def resolve(self, deployment: BatchDeployment, *, by: str | None, read_script: bool = True) -> BatchDeployment:
        """Check everything that a job would need, registering what is declared in place.

        ``read_script`` says whether the script's syntax is looked at too; its file is looked for in any case.

        Raises:
            InvalidEntityError: something is missing or wrong; the message says what and where.
            NotFoundError: it refers to something that does not exist.
            InputError: a local path does not exist.
        """
        check_compute(self._registry, deployment)
        check_keys(deployment)
        model = self._model(deployment, by)
        changes: dict[str, object] = {"model": f"azureml:{model.reference}" if model else None}
        if deployment.code_configuration is not None:
            code = self._code(deployment, by)
            look = check_script if read_script else find_script
            look(self._assets.local_path(code), deployment.code_configuration.scoring_script)
            reference = f"azureml:{code.reference}"
            changes["code_configuration"] = deployment.code_configuration.model_copy(update={"code": reference})
        elif deployment.batchpoint.model_map is None:
            _check_needs_no_script(deployment, model)
        if deployment.environment is not None:
            environment = self._assets.declared_environment(deployment.environment, by=by)
            changes["environment"] = f"azureml:{environment.reference}"
        if deployment.batchpoint.model_map is not None:
            found = self._model_maps.declared(deployment, by=by)
            changes["batchpoint"] = deployment.batchpoint.model_copy(update={"model_map": found})
        changes |= {"compute": f"azureml:{deployment.compute_name}", "provisioning_state": "Succeeded"}
        return deployment.model_copy(update=changes)

    def _model(self, deployment: BatchDeployment, by: str | None) -> Model | None:
        if deployment.model is None:
            return None
        name = f"{deployment.endpoint_name}-{deployment.name}"
        return self._assets.declared_model(deployment.model, name=name, by=by)

    def _code(self, deployment: BatchDeployment, by: str | None) -> Code:
        assert deployment.code_configuration is not None, "asked only for deployments with a script"
        given = deployment.code_configuration.code
        reference = asset_reference(given)
        if reference is not None:
            return cast("Code", self._assets.resolve("code", reference))
        return self._assets.register_code(given, by=by)


def check_compute(registry: Registry, deployment: BatchDeployment) -> Compute:
    """The deployment's compute, which has to be large enough.

    Raises:
        NotFoundError: there is no such compute.
        InvalidEntityError: it has fewer instances than the deployment asks for.
    """
    compute = cast("Compute", registry.resources.get("compute", deployment.compute_name))
    wanted = deployment.resources.instance_count
    if wanted > compute.max_instances:
        raise InvalidEntityError(
            f"Deployment {deployment.name} asks for {wanted} instances, but compute {compute.name} has at most "
            f"{compute.max_instances}. Lower resources.instance_count, or raise max_instances of the compute."
        )
    return compute


def find_script(code: Path, scoring_script: str) -> Path:
    """The script's file.

    Raises:
        InvalidEntityError: it is missing, or not inside the code folder.
    """
    script = (code / scoring_script).resolve()
    if not script.is_relative_to(code.resolve()):
        raise InvalidEntityError(f"scoring_script {scoring_script!r} leads out of the code folder. Move it inside.")
    if not script.is_file():
        scripts = ", ".join(sorted(path.relative_to(code).as_posix() for path in code.rglob("*.py"))[:10]) or "none"
        raise InvalidEntityError(
            f"scoring_script {scoring_script!r} is not in the code folder. Python files found there: {scripts}."
        )
    return script


def check_script(code: Path, scoring_script: str) -> None:
    """Look for the script's file, its syntax and its ``run`` function, without running it.

    Raises:
        InvalidEntityError: one of them is missing or wrong, with file and line.
    """
    script = find_script(code, scoring_script)
    try:
        tree = ast.parse(script.read_bytes(), filename=scoring_script)
    except (SyntaxError, ValueError) as error:
        line, text = getattr(error, "lineno", None), (getattr(error, "text", None) or "").strip()
        message = f"{scoring_script}, line {line or '?'}: {getattr(error, 'msg', error)}: {text}"
        raise InvalidEntityError(message, file=scoring_script, line=line, text=text) from None
    if not _defines(tree.body, "run"):
        raise InvalidEntityError(
            f"{scoring_script} has no function run(mini_batch) at its top level. A scoring script needs init() and "
            "run(mini_batch).",
            file=scoring_script,
        )


def _check_needs_no_script(deployment: BatchDeployment, model: Model | None) -> None:
    if model is None:
        message = (
            f"Deployment {deployment.name} has neither a model nor a code_configuration. Give at least one of them."
        )
        raise InvalidEntityError(message)
    if model.type != "mlflow_model":
        raise InvalidEntityError(
            f"Deployment {deployment.name} has no code_configuration, which model {model.reference} of type "
            f"{model.type} needs: give code_configuration.code (a folder) and code_configuration.scoring_script (a "
            "file in it with init() and run(mini_batch)). Only an mlflow_model can be scored without a script."
        )
    if "python_function" not in (model.flavors or {}):
        raise InvalidEntityError(
            f"Model {model.reference} cannot be scored without a script: it has no python_function flavor, only "
            f"{', '.join(model.flavors or {})}. Log it with python_function, or give a code_configuration."
        )


def _defines(body: Iterable[ast.stmt], name: str) -> bool:
    """Whether these statements bind ``name``, be it by ``def``, an assignment or an import."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return True
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return True
        if isinstance(statement, ast.ImportFrom) and any((a.asname or a.name) in {name, "*"} for a in statement.names):
            return True
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            inner = [*statement.body, *getattr(statement, "orelse", []), *getattr(statement, "finalbody", [])]
            inner += [each for handler in getattr(statement, "handlers", []) for each in handler.body]
            if _defines(inner, name):
                return True
    return False


def missing_deployment(endpoint_name: str) -> NotFoundError:
    """The error of an invoke that no deployment can answer. Source: Azure ML's message."""
    return NotFoundError(
        f"No valid deployments to route to: endpoint {endpoint_name} has no default deployment. Set one "
        "(defaults.deployment_name of the endpoint), or name one.",
        kind="deployment",
        endpoint=endpoint_name,
        on_command_line=f"batchpoint endpoint update -n {endpoint_name} --set defaults.deployment_name=<deployment>",
    )
