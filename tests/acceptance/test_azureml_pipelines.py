"""The official client runs pipelines here: out of YAML and out of Python, behind endpoints and by schedules."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from azure_client import CURRENT, OLDER, AzureClient
from shipped import Shipped

PREP = """
import csv, sys
from pathlib import Path
raw, out, parts = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
rows = list(csv.DictReader(open(raw)))
for part in range(parts):
    with open(out / f"part{part}.csv", "w") as file:
        file.write("".join(f"{row['id']},{row['x']}\\n" for row in rows[part::parts]))
"""
SCORE = """
import argparse
import pandas as pd

def init():
    global factor
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=int)
    factor = parser.parse_known_args()[0].factor

def run(mini_batch):
    frames = [pd.read_csv(path, header=None, names=["id", "x"]) for path in mini_batch]
    frame = pd.concat(frames)
    return frame.assign(y=frame["x"] * factor)
"""
YAML = """
$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
display_name: two-steps
experiment_name: doubling
settings: {default_compute: azureml:local}
inputs:
  raw: {type: uri_file, path: ./raw.csv}
  parts: 3
  factor: 2
outputs:
  scored: {type: uri_file, mode: rw_mount}
jobs:
  prep:
    type: command
    code: ./prep
    command: python prep.py ${{inputs.raw}} ${{outputs.out}} ${{inputs.parts}}
    environment: azureml:plain@latest
    inputs: {raw: "${{parent.inputs.raw}}", parts: "${{parent.inputs.parts}}"}
    outputs: {out: {type: uri_folder}}
  score:
    type: parallel
    mini_batch_size: "1"
    max_concurrency_per_instance: 2
    error_threshold: 0
    retry_settings: {max_retries: 1, timeout: 30}
    input_data: ${{inputs.files}}
    inputs: {files: "${{parent.jobs.prep.outputs.out}}", factor: "${{parent.inputs.factor}}"}
    outputs: {rows: "${{parent.outputs.scored}}"}
    task:
      type: run_function
      code: ./score
      entry_script: score.py
      environment: azureml:plain@latest
      program_arguments: --factor ${{inputs.factor}}
      append_row_to: ${{outputs.rows}}
"""
IN_PYTHON = """
from azure.ai.ml import command, dsl
from azure.ai.ml.entities import Environment
from azure.ai.ml.parallel import RunFunction, parallel_run_function

prep = command(name="prep", code="./prep", environment="azureml:plain@latest",
    command="python prep.py ${{inputs.raw}} ${{outputs.out}} ${{inputs.parts}}",
    inputs={"raw": Input(type="uri_file"), "parts": Input(type="integer", default=3)},
    outputs={"out": Output(type="uri_folder", mode="rw_mount")})
score = parallel_run_function(name="score", input_data="${{inputs.files}}", mini_batch_size="1", instance_count=1,
    max_concurrency_per_instance=2, error_threshold=0, logging_level="DEBUG",
    retry_settings=dict(max_retries=1, timeout=30),
    inputs=dict(files=Input(type="uri_folder"), factor=Input(type="integer")),
    outputs=dict(rows=Output(type="uri_file")),
    task=RunFunction(code="./score", entry_script="score.py", environment=Environment(image="python"),
        program_arguments="--factor ${{inputs.factor}}", append_row_to="${{outputs.rows}}"))

@dsl.pipeline(default_compute="local", experiment_name="doubling")
def doubling(raw, factor):
    prepared = prep(raw=raw)
    scored = score(files=prepared.outputs.out, factor=factor)
    return {"scored": scored.outputs.rows}
"""
RUN = """
job = ml_client.jobs.create_or_update(job)
ml_client.jobs.stream(job.name)
job = ml_client.jobs.get(job.name)
children = {child.display_name: child for child in ml_client.jobs.list(parent_job_name=job.name)}
modules = sorted(child.properties["azureml.moduleName"] for child in children.values())
ml_client.jobs.download(job.name, output_name="scored", download_path="whole")
ml_client.jobs.download(children["prep"].name, output_name="out", download_path="child")
files = lambda folder: sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
print(json.dumps({"name": job.name, "status": job.status, "children": sorted(children), "modules": modules,
    "nodes": sorted(job.jobs), "whole": files("whole"), "child": files("child")}))
"""


@pytest.fixture(params=[CURRENT, OLDER])
def client(request: pytest.FixtureRequest, shipped: Shipped, tmp_path: Path) -> AzureClient:
    shipped.ok("environment", "create", "-n", "plain", "--set", "image=python")
    made = AzureClient(shipped, tmp_path / "notebook", request.param)
    for name, text in (("prep/prep.py", PREP), ("score/score.py", SCORE), ("pipeline.yml", YAML)):
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text(text)
    (made.folder / "raw.csv").write_text("id,x\n" + "".join(f"{row},{row * 10}\n" for row in range(9)))
    return made


def rows_of(text: str) -> list[tuple[int, int, int]]:
    return sorted((int(row[0]), int(row[1]), int(row[2])) for row in csv.reader(io.StringIO(text), delimiter=" "))


def test_a_pipeline_of_yaml_and_the_same_of_python_give_the_same_rows(client: AzureClient) -> None:
    found = client.json('job = load_job("pipeline.yml")\n' + RUN)
    print(found)
