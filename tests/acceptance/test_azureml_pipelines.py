"""The official client runs pipelines here: out of YAML and out of Python, behind endpoints and by schedules."""

from __future__ import annotations

import json
import shutil
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
    folder = out / "more" if part else out  # a parallel step looks into the folders of a folder
    folder.mkdir(exist_ok=True)
    with open(folder / f"part{part}.csv", "w") as file:
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

prep = command(name="prep", code="./prep", environment="plain@latest",
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
def doubling(raw: Input(type="uri_file"), factor: Input(type="integer")):
    prepared = prep(raw=raw)
    scored = score(files=prepared.outputs.out, factor=factor)
    return {"scored": scored.outputs.rows}
"""
RUN = """
job = ml_client.jobs.create_or_update(job)
ml_client.jobs.stream(job.name)
job = ml_client.jobs.get(job.name)
children = {child.display_name: child for child in ml_client.jobs.list(parent_job_name=job.name)}
ml_client.jobs.download(job.name, output_name="scored", download_path="whole")
ml_client.jobs.download((children.get("prep") or children["prepared"]).name, output_name="out", download_path="child")
print(json.dumps({"status": job.status, "nodes": sorted(job.jobs), "experiment": job.experiment_name,
    "modules": {name: child.properties["azureml.moduleName"] for name, child in children.items()}}))
"""
ROWS = [(row, row * 10, row * 20) for row in range(9)]


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.fixture(params=[CURRENT, OLDER])
def client(request: pytest.FixtureRequest, shipped: Shipped, tmp_path: Path) -> AzureClient:
    shipped.ok("environment", "create", "-n", "plain", "--set", "image=python")
    made = AzureClient(shipped, tmp_path / "notebook", request.param)
    for name, text in (("prep/prep.py", PREP), ("score/score.py", SCORE), ("pipeline.yml", YAML)):
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text(text)
    (made.folder / "raw.csv").write_text("id,x\n" + "".join(f"{row},{row * 10}\n" for row in range(9)))
    return made


def rows_in(folder: Path) -> list[tuple[int, ...]]:
    """The rows of the one file of predictions below a folder, as Azure ML writes them."""
    (found,) = [path for path in folder.rglob("rows*") if path.name in {"rows", "rows.txt", "rows.csv"}]
    return sorted(tuple(map(int, line.split(" "))) for line in found.read_text().splitlines())


def test_a_pipeline_of_yaml_and_the_same_of_python_give_the_same_rows(client: AzureClient) -> None:
    of_yaml = client.json('job = load_job("pipeline.yml")\n' + RUN)
    assert rows_in(client.folder / "whole") == ROWS
    parts = sorted((client.folder / "child").rglob("part*.csv"), key=lambda path: path.name)
    assert [path.read_text().splitlines()[0] for path in parts] == ["0,0", "1,10", "2,20"]
    assert of_yaml == {
        "status": "Completed", "nodes": ["prep", "score"], "experiment": "doubling",
        "modules": {"prep": "azureml_anonymous", "score": "azureml_anonymous"},
    }  # fmt: skip
    for folder in ("whole", "child"):
        shutil.rmtree(client.folder / folder)
    # As a public example has it: the step calls its one file of rows a table, and the pipeline calls it a file.
    as_table = IN_PYTHON.replace('rows=Output(type="uri_file")', 'rows=Output(type="mltable")')
    call = (
        'job = doubling(raw=Input(type="uri_file", path="./raw.csv"), factor=2)\njob.outputs.scored.type = "uri_file"\n'
    )
    of_python = client.json(as_table + call + RUN)
    assert rows_in(client.folder / "whole") == ROWS
    assert of_python == {**of_yaml, "nodes": ["prepared", "score"], "modules": {"prepared": "prep", "score": "score"}}


def test_a_pipeline_stands_behind_an_endpoint_by_its_component_and_by_a_job(client: AzureClient) -> None:
    found = client.json(
        IN_PYTHON
        + """
from azure.ai.ml.entities import BatchEndpoint, PipelineComponentBatchDeployment

raw = Input(type="uri_file", path="./raw.csv")
job = ml_client.jobs.create_or_update(doubling(raw=raw, factor=5))
component = ml_client.components.create_or_update(doubling().component)
ml_client.batch_endpoints.begin_create_or_update(BatchEndpoint(name="doubling")).result()
made = [
    PipelineComponentBatchDeployment(name="by-component", endpoint_name="doubling", component=component,
        settings={"default_compute": "local"}),
    PipelineComponentBatchDeployment(name="by-job", endpoint_name="doubling", job_definition=job.name,
        settings={"default_compute": "local"}),
]
found = {"component": [component.name, sorted(component.inputs), sorted(component.jobs)]}
for deployment in made:
    ml_client.batch_deployments.begin_create_or_update(deployment).result()
    inputs = {"raw": raw, "factor": Input(type="string", default="2")}
    started = ml_client.batch_endpoints.invoke(
        endpoint_name="doubling", deployment_name=deployment.name, inputs=inputs)
    ml_client.jobs.stream(started.name)
    ml_client.jobs.download(started.name, output_name="scored", download_path=deployment.name)
    found[deployment.name] = ml_client.jobs.get(started.name).status
print("\\n" + json.dumps(found))
"""
    )
    assert found == {
        "component": ["doubling", ["factor", "raw"], ["prepared", "score"]],
        "by-component": "Completed",
        "by-job": "Completed",
    }
    assert rows_in(client.folder / "by-component") == ROWS
    assert rows_in(client.folder / "by-job") == ROWS  # whose steps were not run: they have the outputs of the others


def test_a_component_is_read_sent_back_and_archived_and_stays_the_same(client: AzureClient, shipped: Shipped) -> None:
    made = client.json(
        IN_PYTHON
        + """
@dsl.pipeline(default_compute="local", display_name="Twice", description="Doubles.", tags={"t": "u"})
def twice(raw: Input(type="uri_file"), factor: Input(type="integer") = 2, share: Input(type="number") = 1):
    prepared = prep(raw=raw)
    prepared.compute = "local"
    return {"scored": score(files=prepared.outputs.out, factor=factor).outputs.rows}

count = command(name="cc", display_name="Count", environment="plain@latest", command="echo ${{inputs.n}}",
    is_deterministic=False, inputs={"n": Input(type="number", default=1)}).component
count.description, count.tags = "Counts.", {"a": "b"}
print(json.dumps([[each.name, each.version] for each in map(ml_client.components.create_or_update, (twice, count))]))
"""
    )
    before = [shipped.json("component", "show", "-n", name, "--version", version) for name, version in made]
    found = client.json(f"""
found = []
for name, version in {made}:
    component = ml_client.components.get(name, version)
    found.append([component.display_name, component.description, component.tags, component.is_deterministic])
    ml_client.components.create_or_update(component)
    ml_client.components.archive(name=name, version=version)
found.append([each.name for each in ml_client.components.list()])
for name, version in {made}:
    ml_client.components.restore(name=name, version=version)
found.append(sorted(each.name for each in ml_client.components.list()))
print(json.dumps(found))
""")
    assert found == [
        ["Twice", "Doubles.", {"t": "u"}, True], ["Count", "Counts.", {"a": "b"}, False], [], ["cc", "twice"],
    ]  # fmt: skip
    assert [shipped.json("component", "show", "-n", name, "--version", version) for name, version in made] == before


def test_a_schedule_is_made_disabled_triggered_and_deleted(client: AzureClient, shipped: Shipped) -> None:
    found = client.json("""
from datetime import datetime
from azure.ai.ml.constants import TimeZone
from azure.ai.ml.entities import CronTrigger, JobSchedule, RecurrencePattern, RecurrenceTrigger
from azure.core.exceptions import ResourceExistsError

job = load_job("pipeline.yml")
pattern = RecurrencePattern(hours=[4, 5], minutes=[0], week_days=["monday"])
trigger = RecurrenceTrigger(frequency="week", interval=1, schedule=pattern, start_time=datetime(2035, 1, 1),
    time_zone=TimeZone.PACIFIC_STANDARD_TIME)
made = ml_client.schedules.begin_create_or_update(
    JobSchedule(name="weekly", trigger=trigger, create_job=job, tags={"a": "b"})).result()
found = {"made": [made.is_enabled, made.provisioning_state, made.trigger.time_zone, sorted(made.create_job.jobs)]}
first = ml_client.jobs.create_or_update(job)
again = CronTrigger(expression="15 10 * * 1", start_time="2035-01-01T00:00:00", time_zone="UTC")
again = JobSchedule(name="again", trigger=again, create_job=first)
ml_client.schedules.begin_create_or_update(again).result()
found["listed"] = sorted(each.name for each in ml_client.schedules.list())
try:
    ml_client.schedules.begin_delete("weekly").result()
except ResourceExistsError as error:
    found["refused"] = error.error.message
for name in ("weekly", "again"):
    found[name] = [ml_client.schedules.begin_disable(name).result().is_enabled]
found["left"] = [each.name for each in ml_client.schedules.list()]
print("\\n" + json.dumps(found))
""")
    assert found["made"] == [True, "Succeeded", "Pacific Standard Time", ["prep", "score"]]
    assert found["listed"] == ["again", "weekly"]
    assert "Disable it first" in found["refused"]
    assert (found["weekly"], found["again"], found["left"]) == ([False], [False], [])
    assert shipped.json("schedule", "show", "-n", "weekly")["trigger"]["time_zone"] == "Pacific Standard Time"
    if client.version == CURRENT:  # the older one has no such call
        ran = client.json("""
job = ml_client.schedules.trigger("weekly").job_name
ml_client.jobs.stream(job)
ml_client.jobs.download(job, output_name="scored", download_path="scheduled")
print(json.dumps([job, ml_client.jobs.get(job).status]))
""")
        assert ran[0].startswith("weekly-")
        assert ran[1] == "Completed"
        assert rows_in(client.folder / "scheduled") == ROWS
    gone = client.json("""
for name in ("weekly", "again", "never"):
    ml_client.schedules.begin_delete(name).result()
print("\\n" + json.dumps([each.name for each in ml_client.schedules.list(list_view_type="All")]))
""")
    assert gone == []


def test_a_command_runs_as_a_job_and_what_is_wrong_with_a_pipeline_is_told_at_once(client: AzureClient) -> None:
    found = client.json(
        IN_PYTHON
        + """
from azure.core.exceptions import HttpResponseError

job = ml_client.jobs.create_or_update(command(display_name="counting", environment="plain@latest",
    compute="local", command="wc -l < ${{inputs.raw}} > ${{outputs.counted}}/lines", experiment_name="counts",
    inputs={"raw": Input(type="uri_file", path="./raw.csv")}, outputs={"counted": Output(type="uri_folder")}))
ml_client.jobs.stream(job.name)
job = ml_client.jobs.get(job.name)
ml_client.jobs.download(job.name, output_name="counted", download_path="command")
found = {"command": [type(job).__name__, job.status, job.command]}
nowhere = Input(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/nowhere.csv")

@dsl.pipeline(default_compute="local")
def wrong(raw, factor):
    score(files=prep(raw=raw).outputs.out, factor=factor)

try:
    ml_client.jobs.create_or_update(wrong(raw=nowhere, factor="several"))
except HttpResponseError as error:
    found["wrong"] = [error.status_code, error.error.message]
print("\\n" + json.dumps(found))
"""
    )
    assert found["command"] == ["Command", "Completed", "wc -l < ${{inputs.raw}} > ${{outputs.counted}}/lines"]
    (lines,) = (client.folder / "command").rglob("lines")
    assert lines.read_text().strip() == "10"
    status, message = found["wrong"]
    assert status == 422
    assert "is a literal of type string, and the input takes a literal of type integer" in message
    assert "inputs.raw" in message


def test_what_a_command_prints_is_streamed_and_downloaded_and_its_last_lines_tell_why_it_failed(
    client: AzureClient,
) -> None:
    told = client.ok("""
from contextlib import redirect_stdout
from azure.ai.ml import command
from azure.ai.ml.exceptions import JobException

class Seen:  # lets the command go on as soon as its first line was streamed
    def __init__(self, file):
        self.file, self.flush = file, sys.stdout.flush
    def write(self, text):
        if text == "hello\\n":
            self.file.touch()
        return sys.__stdout__.write(text)

def streamed(name, line):
    seen = Path(name).absolute()
    line = f"echo hello; until [ -e '{seen}' ]; do sleep 0.1; done; {line}"
    job = ml_client.jobs.create_or_update(command(command=line, environment="plain@latest", compute="local"))
    try:
        with redirect_stdout(Seen(seen)):
            ml_client.jobs.stream(job.name)
    except JobException as refused:
        print("REFUSED", refused.message)
    return job.name

ml_client.jobs.download(streamed("seen", "echo the last"), all=True, download_path="well")
ml_client.jobs.download(streamed("again", "echo there is no model >&2; exit 3"), download_path="failed")
""")
    streamed, refused = told.split("REFUSED")
    assert streamed.count("Streaming user_logs/std_log.txt\n===") == 2
    assert "\nhello\nthe last\n" in streamed
    assert "\nhello\nthere is no model\n" in streamed
    assert "exit code 3" in refused
    assert "hello\\nthere is no model" in refused
    for folder, words in (("well", "hello\nthe last\n"), ("failed", "hello\nthere is no model\n")):
        assert (client.folder / folder / "artifacts" / "user_logs" / "std_log.txt").read_text() == words


def test_schedules_of_an_invoke_that_the_client_has_no_object_for_hide_no_others(
    client: AzureClient, shipped: Shipped
) -> None:
    shipped.ok("batch-endpoint", "create", "-n", "lines")
    code = client.folder / "lines"
    code.mkdir()
    (code / "score.py").write_text("def run(paths):\n    return paths\n")
    (code / "deployment.yml").write_text(
        "name: one\nendpoint_name: lines\ncode_configuration: {code: ., scoring_script: score.py}\n"
    )
    shipped.ok("batch-deployment", "create", "-f", code / "deployment.yml", "--set-default")
    trigger = "trigger: {type: cron, expression: '0 0 * * *'}\n"
    place = "azureml://datastores/workspaceblobstore/paths/in"
    invoke = f"create_job: {{type: invoke, endpoint_name: lines, inputs: {{rows: {{path: '{place}'}}}}}}\n"
    (code / "invoked.yml").write_text(f"name: invoked\n{trigger}{invoke}")
    (code / "piped.yml").write_text(f"name: piped\n{trigger}create_job: {{jobs: {{say: {{command: echo hi}}}}}}\n")
    for name in ("invoked", "piped"):
        shipped.ok("schedule", "create", "-f", code / f"{name}.yml")
    found = client.json("""
from azure.ai.ml.exceptions import ScheduleException
found = [[each.name for each in ml_client.schedules.list()]]
try:
    ml_client.schedules.get("invoked")
except ScheduleException as refused:
    found.append(refused.message)
print("\\n" + json.dumps(found))
""")
    assert found == [["piped"], "Unsupported schedule type InvokeBatchEndpoint"]


SPLIT = """
import csv, sys
from pathlib import Path

sales, target = sys.argv[1], Path(sys.argv[2])
for row in csv.DictReader(open(sales)):
    part = target / row.pop("store") / row.pop("brand") / "part.csv"
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
(target / "MLTable").write_text('''
type: mltable
paths:
  - pattern: ./**/*.csv
transformations:
  - read_delimited: {delimiter: ",", encoding: ascii, header: all_files_same_headers, include_path_column: true}
  - extract_columns_from_partition_format: {partition_format: "{store}/{brand}/{file_name}.{extension}"}
  - drop_columns: [Path, file_name, extension]
''')
"""
"""Cuts sales by store and brand into folders, below an MLTable that reads both off their names."""
TRAIN = """
import argparse
import json
from pathlib import Path

def init():
    global args
    parser = argparse.ArgumentParser()
    for name in ("--target", "--folder"):
        parser.add_argument(name)
    args, _ = parser.parse_known_args()

def run(rows, mini_batch_context):
    key = mini_batch_context.partition_key_value
    if rows[args.target].isna().all():
        raise ValueError(f"{key['brand']} of store {key['store']} was never sold")
    found = {"columns": list(rows.columns), "rows": len(rows), "mean": rows[args.target].mean()}
    place = Path(args.folder, *map(str, key.values()))
    place.mkdir(parents=True)
    (place / "model.json").write_text(json.dumps(found))
    return []
"""
MANY_MODELS = """
type: pipeline
settings: {default_compute: azureml:local}
outputs: {models: {type: uri_folder}}
jobs:
  split:
    type: command
    component: ./split/split.yml
    inputs: {sales: {type: uri_file, path: ./sales.csv}}
    outputs: {table: {type: mltable, mode: rw_mount}}
  train:
    type: parallel
    inputs:
      table: {path: "${{parent.jobs.split.outputs.table}}", type: mltable, mode: direct}
      target: sold
    outputs: {models: "${{parent.outputs.models}}"}
    partition_keys: [store, brand]
    resources: {instance_count: 2}
    error_threshold: -1
    mini_batch_error_threshold: 1
    input_data: ${{inputs.table}}
    max_concurrency_per_instance: 2
    retry_settings: {max_retries: 1, timeout: 30}
    task:
      type: run_function
      code: ./train
      entry_script: train.py
      environment: azureml:plain@latest
      program_arguments: >-
        --target ${{inputs.target}}
        --folder ${{outputs.models}}
"""
MANY_MODELS_IN_PYTHON = """
from azure.ai.ml import dsl
from azure.ai.ml.entities import Environment
from azure.ai.ml.parallel import RunFunction, parallel_run_function

split = load_component(source="./split/split.yml")
train = parallel_run_function(name="train", input_data="${{inputs.table}}", partition_keys=["store", "brand"],
    instance_count=2, max_concurrency_per_instance=1, error_threshold=-1, mini_batch_error_threshold=0,
    retry_settings=dict(max_retries=1, timeout=30), logging_level="DEBUG",
    inputs=dict(table=Input(type="mltable", mode="direct"), target=Input(type="string")),
    outputs=dict(models=Output(type="uri_folder", mode="rw_mount")),
    task=RunFunction(code="./train", entry_script="train.py", environment=Environment(image="python"),
        program_arguments="--target ${{inputs.target}} --folder ${{outputs.models}} "))

@dsl.pipeline(default_compute="local")
def many_models(sales):
    table = split(sales=sales).outputs.table
    trained = train(table=table, target="sold")
    trained.resources.instance_count = 1
    trained.max_concurrency_per_instance = 2
    trained.mini_batch_error_threshold = 1
    return {"models": trained.outputs.models}

job = many_models(sales=Input(type="uri_file", path="./sales.csv"))
"""
TRAINED = """
job = ml_client.jobs.create_or_update(job)
ml_client.jobs.stream(job.name)
ml_client.jobs.download(job.name, output_name="models", download_path="trained")
print("\\n" + ml_client.jobs.get(job.name).status)
"""


def models_in(folder: Path) -> dict[str, object]:
    """What was trained for each store and brand."""
    found = sorted(folder.rglob("model.json"))
    return {"/".join(path.parts[-3:-1]): json.loads(path.read_text()) for path in found}


def test_models_of_keys_are_trained_from_an_mltable_that_a_step_writes(client: AzureClient, shipped: Shipped) -> None:
    for name, text in (("split/split.py", SPLIT), ("train/train.py", TRAIN), ("models.yml", MANY_MODELS)):
        (client.folder / name).parent.mkdir(exist_ok=True)
        (client.folder / name).write_text(text)
    (client.folder / "split" / "split.yml").write_text(
        "type: command\nname: split\nversion: 1\ncode: ./\nenvironment: azureml:plain@latest\n"
        "inputs: {sales: {type: uri_file}}\noutputs: {table: {type: mltable}}\n"
        "command: >-\n  python split.py\n  ${{inputs.sales}}\n  ${{outputs.table}}\n"
    )
    keys = [(store, brand) for store in (2, 5) for brand in ("dominicks", "tropicana", "unsold")]
    sales = [
        (store, brand, week, "" if brand == "unsold" else store * week)
        for week in range(1, 6)
        for store, brand in keys
        if (store, brand) != (5, "unsold")
    ]
    lines = ["store,brand,week,sold", *(",".join(map(str, row)) for row in sales)]
    (client.folder / "sales.csv").write_text("\n".join(lines) + "\n")
    expected = {
        f"{store}/{brand}": {"columns": ["week", "sold", "store", "brand"], "rows": 5, "mean": store * 3.0}
        for store, brand in keys
        if brand != "unsold"
    }

    assert client.ok('job = load_job("models.yml")\n' + TRAINED).endswith("\nCompleted\n")
    assert models_in(client.folder / "trained") == expected
    shutil.rmtree(client.folder / "trained")
    assert client.ok(MANY_MODELS_IN_PYTHON + TRAINED).endswith("\nCompleted\n")
    assert models_in(client.folder / "trained") == expected
    if client.version == CURRENT:  # the command is the same for both
        shipped.ok("job", "create", "--file", "models.yml", "--name", "by-command", "--stream", cwd=client.folder)
        shipped.ok("job", "download", "-n", "by-command", "--output-name", "models", "-p", "mine", cwd=client.folder)
        assert models_in(client.folder / "mine") == expected
