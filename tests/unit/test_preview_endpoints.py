from __future__ import annotations

from typing import Any

import pytest

from batchpoint.entities.documents import read_document
from batchpoint.entities.preview_endpoints import default_of, deployment_of_today, is_preview_endpoint, taken_apart
from batchpoint.errors import InvalidEntityError

LIST_FORM = """\
name: digits
type: batch
traffic: {first_one: 100}
deployments:
  - name: first_one
    model: {name: net, version: 1, local_path: ./net}
    code_configuration:
      code: {local_path: ./code}
      scoring_script: score.py
    environment: {name: e, version: 1, path: ., conda_file: "file:./conda.yml", docker: {image: plain}}
    output_configuration: {output_action: append_row, append_row_file_name: p.csv}
    mini_batch_size: 5
    retry_settings: {max_retries: 2, timeout: 40}
    compute: {target: azureml:cpu, instance_count: 2}
"""

NAMED_FORM = """\
name: digits
traffic:
  first_one: 100
deployments:
  first_one:
    model: {name: net, version: 1, path: ./net}
    code_configuration:
      code: {directory: ./code}
      scoring_script: score.py
    environment: {name: e, version: 1, conda_file: "file:./conda.yml", image: plain}
    batch_settings:
      partition_scheme: {mini_batch_size: 5}
      output_configuration: {output_action: append_row, append_row_file_name: p.csv}
      retry_settings: {maximum_retries: 2, timeout_in_seconds: 40}
    compute: {target: azureml:cpu, instance_count: 2}
"""


def parts_of(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    endpoint, (deployment,) = taken_apart(read_document(text, name="e.yml"))
    return endpoint.value, deployment_of_today(deployment).value


@pytest.mark.parametrize("text", [LIST_FORM, NAMED_FORM])
def test_both_forms_of_the_preview_say_the_same(text: str) -> None:
    endpoint, deployment = parts_of(text)

    assert endpoint == {"name": "digits", "defaults": {"deployment_name": "first_one"}}
    assert deployment == {
        "name": "first_one",
        "endpoint_name": "digits",
        "model": {"name": "net", "version": 1, "path": "./net"},
        "code_configuration": {"code": "./code", "scoring_script": "score.py"},
        "environment": {"name": "e", "version": 1, "conda_file": "file:./conda.yml", "image": "plain"},
        "output_action": "append_row",
        "output_file_name": "p.csv",
        "mini_batch_size": 5,
        "retry_settings": {"max_retries": 2, "timeout": 40},
        "instance_count": 2,
        "compute": "azureml:cpu",
    }


@pytest.mark.parametrize("text", [LIST_FORM, NAMED_FORM])
def test_a_slip_is_told_with_the_line_that_it_stands_in(text: str) -> None:
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "mini_batch_size" in each)
    _, (deployment,) = taken_apart(
        read_document(text.replace("mini_batch_size: 5", "mini_batch_size: five"), name="e.yml")
    )

    with pytest.raises(InvalidEntityError, match=rf"e\.yml:{line}: .*mini_batch_size.*whole number"):
        deployment_of_today(deployment).entity("deployment")


def test_what_has_no_place_in_todays_words_is_refused() -> None:
    for text, key in (
        ("compute: {target: cpu, nodes: 2}", "nodes"),
        ("batch_settings: {mini_batches: 2}", "mini_batches"),
    ):
        document = read_document(f"name: one\nendpoint_name: ten\nmodel: azureml:m:1\n{text}\n")
        with pytest.raises(InvalidEntityError, match=key):
            deployment_of_today(document).entity("deployment")


def test_a_deployment_of_today_stays_as_it_is() -> None:
    text = "name: one\nendpoint_name: ten\nmodel: {path: ./m}\ncompute: azureml:cpu\nretry_settings: {max_retries: 1}\n"
    document = read_document(text)

    assert deployment_of_today(document) == document
    assert not is_preview_endpoint(document.value)
    assert not is_preview_endpoint({"name": "ten", "defaults": {}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("traffic: {one: 50}\ndeployments: {one: {model: azureml:m:1}}", "100 or 0"),
        ("traffic: {two: 100}\ndeployments: {one: {model: azureml:m:1}}", "none of the deployments"),
        ("traffic: all\ndeployments: {one: {model: azureml:m:1}}", "must map"),
        ("deployments: one", "must be a list"),
        ("deployments: [one]", "a mapping of keys"),
    ],
)
def test_traffic_and_deployments_that_cannot_be_are_refused_by_line(text: str, words: str) -> None:
    with pytest.raises(InvalidEntityError, match=words) as refused:
        taken_apart(read_document(f"name: digits\n{text}\n", name="e.yml"))
    assert str(refused.value).startswith("e.yml:")


def test_no_traffic_means_no_default() -> None:
    assert default_of({"one": 0}, place="--traffic") is None
    endpoint, _ = taken_apart(read_document("name: digits\ndeployments: {one: {model: azureml:m:1}}"))
    assert "defaults" not in endpoint.value
