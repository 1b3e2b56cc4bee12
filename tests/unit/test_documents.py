from __future__ import annotations

import pytest

from batchpoint.entities.documents import read_assignment, read_body, read_document
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.jobs import Overrides
from batchpoint.entities.local_paths import is_local, local_paths
from batchpoint.errors import InvalidEntityError

DEPLOYMENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/modelBatchDeployment.schema.json
name: blue
endpoint_name: churn
model: azureml:churn@latest
code_configuration:
  code: ./code
  scoring_script: score.py
settings:
  mini_batch_size: 5
  environment_variables:
    PORT: 0123
    RELEASE: 1.10
batchpoint:
  split: rows
"""


def faults_of(text: str, kind: str) -> list[dict[str, object]]:
    with pytest.raises(InvalidEntityError) as refused:
        read_document(text, name="file.yml").entity(kind)  # type: ignore[arg-type]  # kinds are literals
    return refused.value.details["problems"]


def test_a_deployment_is_read_as_azure_writes_it() -> None:
    deployment = read_document(DEPLOYMENT).entity()

    assert isinstance(deployment, BatchDeployment)
    assert deployment.settings.mini_batch_size == 5
    assert deployment.batchpoint.split == "rows"


def test_environment_variables_keep_the_text_that_was_written() -> None:
    deployment = read_document(DEPLOYMENT).entity()

    assert isinstance(deployment, BatchDeployment)
    assert deployment.settings.environment_variables == {"PORT": "0123", "RELEASE": "1.10"}


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_key() -> None:
    text = DEPLOYMENT.replace("mini_batch_size", "mini_batch_sise")

    with pytest.raises(InvalidEntityError) as refused:
        read_document(text, name="dep.yml").entity("deployment")

    wanted = "dep.yml:9: key 'settings.mini_batch_sise' is not known here. Did you mean 'mini_batch_size'?"
    assert wanted in str(refused.value)


def test_an_unknown_key_without_a_near_one_lists_what_is_known() -> None:
    (fault,) = faults_of("name: churn\nzzz: 1", "endpoint")

    assert "Known: " in str(fault["message"])
    assert "defaults" in str(fault["message"])


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "name: a b\nsettings: {mini_batch_size: ten, logging_level: inf}\nresources: 4\n"

    faults = faults_of(text, "deployment")

    assert [fault["key"] for fault in faults] == [
        "endpoint_name",
        "name",
        "settings.mini_batch_size",
        "settings.logging_level",
        "resources",
    ]
    assert "whole number" in str(faults[2]["message"])
    assert "Did you mean 'info'? Allowed: debug, info, warning." in str(faults[3]["message"])


def test_a_fault_of_the_legacy_form_is_placed_where_it_was_written() -> None:
    (fault,) = faults_of("name: blue\nendpoint_name: churn\nmini_batch_size: 0\n", "deployment")

    assert fault["place"] == "file.yml:3"


def test_a_fault_in_properties_is_placed_where_it_was_written() -> None:
    text = "name: blue\nendpoint_name: churn\nproperties:\n  batchpoint.split: rowss\n"

    (fault,) = faults_of(text, "deployment")

    assert fault["place"] == "file.yml:4"


def test_of_a_value_with_two_forms_only_the_form_that_was_tried_is_criticised() -> None:
    text = "name: blue\nendpoint_name: churn\nmodel: {name: m, path: ./m, typ: mlflow_model}\n"

    (fault,) = faults_of(text, "deployment")

    assert "Did you mean 'type'?" in str(fault["message"])


def test_a_file_of_another_kind_is_recognised() -> None:
    faults = faults_of(DEPLOYMENT, "endpoint")

    assert "declares a deployment; a endpoint was expected" in str(faults[0]["message"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "f.yml:2: this is not YAML: key 'a' is given twice"),
        ("a: [1", "f.yml:1: this is not YAML"),
        ("- 1", "keys were expected"),
        ("", "holds nothing"),
        ("a: !!python/object:os.system {}", "f.yml:1"),
        ("a: \x07", "this is not YAML"),
    ],
)
def test_text_that_is_no_document_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidEntityError, match=message.replace("(", r"\(")):
        read_document(text, name="f.yml")


def test_a_version_that_looks_like_a_number_stays_as_written() -> None:
    model = read_document("name: m\nversion: 1.10\npath: ./m\ntags: {rank: 1, ok: yes}").entity("model")

    assert model.body()["version"] == "1.10"
    assert model.tags == {"rank": "1", "ok": "yes"}


def test_set_patches_before_the_check_and_is_named_as_the_place_of_a_fault() -> None:
    document = read_document("name: churn")

    patched = document.with_settings(["defaults.deployment_name=blue", "tags.team=risk"]).entity("endpoint")

    assert isinstance(patched, BatchEndpoint)
    assert patched.defaults.deployment_name == "blue"
    with pytest.raises(InvalidEntityError, match=r"--set default: key 'default' is not known here"):
        document.with_settings(["default=blue"]).entity("endpoint")


@pytest.mark.parametrize(
    ("text", "value"), [("a.b=3", 3), ("a.b=x=y", "x=y"), ("a.b=", ""), ("a.b=[1, 2]", [1, 2]), ("a.b={", "{")]
)
def test_the_value_of_an_assignment_is_read_as_yaml(text: str, value: object) -> None:
    assert read_assignment(text)[:2] == (("a", "b"), value)


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1"])
def test_an_assignment_without_key_or_sign_is_refused(text: str) -> None:
    with pytest.raises(InvalidEntityError, match="write it as key=value"):
        read_assignment(text)


def test_an_assignment_reaches_into_a_list_and_refuses_to_go_through_a_word() -> None:
    document = read_document("a: [{b: 1}]\nname: x")

    assert document.with_settings(["a[0].b=2", "a[1]=3"]).value["a"] == [{"b": 2}, 3]
    with pytest.raises(InvalidEntityError, match="no mapping or list"):
        document.with_settings(["name.first=1"])


def test_the_local_paths_of_a_deployment_are_found_wherever_they_stand() -> None:
    text = DEPLOYMENT + "environment:\n  conda_file: conda.yml\n"
    value = {**read_document(text).value, "model": {"path": "./model"}}

    found = {".".join(map(str, local.key)): (local.path, local.holds) for local in local_paths("deployment", value)}

    assert found == {
        "model.path": ("./model", "path"),
        "code_configuration.code": ("./code", "path"),
        "environment.conda_file": ("conda.yml", "conda_file"),
    }


def test_a_reference_to_a_model_is_not_taken_for_a_path() -> None:
    for reference in ("azureml:churn:3", "churn:3", "churn@latest", "churn"):
        assert local_paths("deployment", {"model": reference}) == []
    assert [local.path for local in local_paths("deployment", {"model": "../model"})] == ["../model"]


@pytest.mark.parametrize(
    ("text", "local"),
    [("./a", True), ("/a/b.csv", True), ("file:///a", True), ("azureml://datastores/d/paths/p", False),
     ("https://x/y", False), ("azureml:a:1", False), ("data/*.csv", True)],
)  # fmt: skip
def test_a_path_of_this_machine_is_told_from_an_address(text: str, local: bool) -> None:
    assert is_local(text) is local


def test_a_json_body_gets_the_same_suggestions() -> None:
    with pytest.raises(InvalidEntityError, match="Did you mean 'description'"):
        read_body(BatchEndpoint, {"name": "churn", "descripton": "x"})
    with pytest.raises(InvalidEntityError, match="must be a JSON object, not a list"):
        read_body(BatchEndpoint, [])


def test_a_model_declared_in_place_needs_no_name() -> None:
    body = {"name": "blue", "endpoint_name": "churn", "model": {"path": "/m"}}

    deployment = read_body(BatchDeployment, body)

    assert not isinstance(deployment.model, str | None)
    assert deployment.model.name == "churn-blue"


def test_a_document_that_unfolds_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidEntityError, match="more than"):
        read_document("\n".join(lines))
    with pytest.raises(InvalidEntityError, match="nested too deeply"):
        read_document("a: " + "[" * 5000)


def test_a_size_with_a_unit_means_rows_of_about_so_many_bytes() -> None:
    text = DEPLOYMENT.replace("mini_batch_size: 5", "mini_batch_size: 10MB").replace("split: rows", "row_keys: false")
    deployment = read_document(text, name="file.yml").entity("deployment")
    assert isinstance(deployment, BatchDeployment)
    assert (deployment.batchpoint.split, deployment.batchpoint.mini_batch_bytes) == ("bytes", 10 << 20)
    assert deployment.settings.mini_batch_size == 10
    overrides = Overrides.model_validate({"mini_batch_size": "1kb"})
    assert (overrides.split, overrides.mini_batch_bytes, overrides.mini_batch_size) == ("bytes", 1024, None)
    assert "mini_batch_size" in str(faults_of(DEPLOYMENT.replace("size: 5", "size: 10XB"), "deployment"))
