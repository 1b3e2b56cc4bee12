"""Jobs of steps, from the queue to their published outputs, with real runners and workers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batchpoint import Client
from batchpoint.background.service import Background
from batchpoint.background.step_places import places_of_step
from batchpoint.entities.jobs import Input, InputType, Job, JobStatus, Output, Reason
from batchpoint.entities.pipeline_deployments import CommandJob
from batchpoint.entities.pipelines import CommandStep, ParallelStep
from batchpoint.entities.resources import Compute
from batchpoint.errors import NotFoundError
from batchpoint.operations.steps import collected_output, command_of, deployment_of, scored_input
from batchpoint.server.context import Context
from batchpoint.settings import Settings
from batchpoint.workspace import Workspace
from integration.served import eventually, served


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose jobs are carried out."""
    with Workspace.open(Settings(home=tmp_path_factory.mktemp("home"))) as opened:
        background = Background(opened)
        background.start()
        yield opened
        background.stop()


def code(workspace: Workspace, folder: Path, **files: str) -> str:
    """Registers a folder of scripts."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return f"azureml:{workspace.assets.register_code(str(folder)).reference}"


def carried_out(workspace: Workspace, job: Job) -> Job:
    workspace.registry.jobs.enqueue(job)
    workspace.job_queued.set()
    eventually(lambda: workspace.jobs.get(job.name).status.is_finished, seconds=60)
    return workspace.jobs.get(job.name)


def command_job(name: str, step: dict[str, Any], **more: Any) -> Job:
    return Job(name=name, type="command", command=command_of(CommandStep.model_validate(step)), **more)


def parallel_job(name: str, step: dict[str, Any], *, input_type: InputType | None = None, **more: Any) -> Job:
    read = ParallelStep.model_validate({"type": "parallel", **step})
    return Job(
        name=name,
        deployment=deployment_of(read, name=name, cores=1, input_type=input_type),
        input_data=scored_input(read),
        append_row_to=collected_output(read),
        **more,
    )


def test_a_command_gets_paths_and_values_and_its_outputs_lie_where_azure_has_them(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "it's data").mkdir()
    (tmp_path / "it's data" / "rows.csv").write_text("a\n1\n2\n")
    script = """
        import argparse, os, pathlib
        parser = argparse.ArgumentParser()
        for name in ("--data", "--title", "--table", "--note", "--uri"):
            parser.add_argument(name)
        given = parser.parse_args()
        rows = pathlib.Path(given.data, "rows.csv").read_text().split()[1:]
        assert given.title == 'two words, "quoted" $HOME', given.title
        assert given.uri.startswith("azureml://datastores/workspaceblobstore/paths/"), given.uri
        for row in rows:
            pathlib.Path(given.table, f"{row}.txt").write_text(row)
        pathlib.Path(given.note).write_text(os.environ["AZUREML_RUN_ID"])
    """
    step = {
        "command": 'python prepare.py --data ${{inputs.data}} --title "${{inputs.title}}" $[[--n ${{inputs.n}}]]'
        " --table '${{outputs.table}}' --note ${{ outputs.note }} --uri ${{inputs.direct}}",
        "inputs": {
            "data": {"path": str(tmp_path / "it's data")},
            "direct": {"path": "azureml://datastores/workspaceblobstore/paths/x/", "mode": "direct"},
            "title": "t",
        },
        "code": code(workspace, tmp_path / "code", prepare=script),
    }
    job = command_job(
        "prepare-1",
        step,
        inputs={
            "data": Input(path=str(tmp_path / "it's data")),
            "direct": Input(path="azureml://datastores/workspaceblobstore/paths/x/"),
        },
        literals={"title": 'two words, "quoted" $HOME'},
        outputs={"table": Output(type="uri_folder"), "note": Output(type="uri_file")},
    )
    done = carried_out(workspace, job)
    assert done.status is JobStatus.COMPLETED, done.error
    assert [path for path, _ in workspace.jobs.outputs("prepare-1", "table")] == ["1.txt", "2.txt"]
    with workspace.jobs.open_output("prepare-1", "note", "note") as file:
        assert file.read() == b"prepare-1"
    assert done.outputs["note"].uri is not None
    assert done.outputs["note"].uri.endswith("/azureml/prepare-1/note/note")
    assert "logs/user/std_log.txt" in [path for path, _ in workspace.jobs.logs("prepare-1")]
    with pytest.raises(NotFoundError, match="several outputs: name one"):
        workspace.jobs.outputs("prepare-1")


def test_a_failed_command_says_why_in_the_record_of_its_job(workspace: Workspace) -> None:
    done = carried_out(workspace, command_job("broken-1", {"command": "echo no such customer >&2; exit 3"}))
    assert (done.status, done.reason) == (JobStatus.FAILED, Reason.COMMAND_FAILED)
    assert done.error is not None
    assert done.error.message == "The command ended with exit code 3. Its last words: no such customer"


SCORE = """
    import argparse, os, sys, time
    from azureml_user.parallel_run import EntryScript

    def init():
        global given
        parser = argparse.ArgumentParser()
        for name in ("--lookup", "--factor", "--extra"):
            parser.add_argument(name)
        given, _ = parser.parse_known_args()
        assert not [word for word in sys.argv if "threshold" in word or "percent" in word], sys.argv
        EntryScript().logger.info("init() is called.")

    def run(mini_batch):
        time.sleep(0.3)  # long enough for each worker to get its part
        EntryScript().logger.info(f"run() is called with number of rows: {len(mini_batch)}")
        names = open(given.lookup).read().split()
        with open(os.path.join(given.extra, os.path.basename(mini_batch[0])), "w") as file:
            file.write(given.factor)
        import pandas
        texts = [open(path).read() for path in mini_batch]
        return pandas.DataFrame({"name": names[0], "the number": texts})
"""


def test_a_command_by_itself_shows_what_it_printed(workspace: Workspace) -> None:
    alone = CommandJob.model_validate({"name": "alone", "command": "echo said by the command"})
    workspace.pipelines.submit(alone.as_pipeline())
    eventually(lambda: workspace.jobs.get("alone").status.is_finished, seconds=60)
    sizes = dict(workspace.jobs.logs("alone"))
    assert {"logs/pipeline.log", "logs/user/std_log.txt"} <= sizes.keys()
    said = workspace.jobs.read_log("alone", "logs/user/std_log.txt")
    assert b"said by the command" in said
    assert sizes["logs/user/std_log.txt"] == len(said)
    assert b"completed" in workspace.jobs.read_log("alone", "logs/pipeline.log")
    with pytest.raises(NotFoundError, match=r"Job alone has no log logs/nothing\.txt"):
        workspace.jobs.read_log("alone", "logs/nothing.txt")


def test_a_parallel_step_has_a_side_input_a_literal_and_several_outputs(workspace: Workspace, tmp_path: Path) -> None:
    workspace.resources.create_or_update("compute", Compute(name="cluster", max_instances=2))
    for folder in ("cut", "side"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        (tmp_path / "cut" / f"{number}.txt").write_text(str(number))
    (tmp_path / "side" / "names.txt").write_text("Ada Bob")
    data, lookup = ({"path": str(tmp_path / path)} for path in ("cut", "side/names.txt"))
    step = {
        "inputs": {"lookup": lookup, "data": data, "factor": "two words"},
        "outputs": {"scored": {"type": "uri_file"}, "extra": {"type": "uri_folder"}},
        "input_data": "${{inputs.data}}",
        "mini_batch_size": "2",
        "compute": "azureml:cluster",
        "resources": {"instance_count": 2},
        "max_concurrency_per_instance": 2,
        "task": {
            "code": code(workspace, tmp_path / "code", score=SCORE),
            "entry_script": "score.py",
            "append_row_to": "${{outputs.scored}}",
            "program_arguments": "--lookup ${{inputs.lookup}} --factor ${{inputs.factor}} --error_threshold 5"
            " --allowed_failed_percent=10 --append_row_dataframe_header true --extra ${{outputs.extra}}",
        },
        "batchpoint": {"output_format": "azureml"},
    }
    job = parallel_job(
        "score-1",
        step,
        inputs={"lookup": Input(**lookup), "data": Input(**data)},
        literals={"factor": "two words"},
        outputs={"scored": Output(type="uri_file"), "extra": Output(type="uri_folder")},
    )
    done = carried_out(workspace, job)
    assert done.status is JobStatus.COMPLETED, done.error
    assert done.receipt is not None
    assert done.receipt.items == 8, "the side input is not cut"
    lines = Path(done.outputs["scored"].uri or "").read_text().splitlines()
    assert lines == ['name "the number"', *(f"Ada {number}" for number in range(8))]
    assert sorted(path for path, _ in workspace.jobs.outputs("score-1", "extra")) == [
        "0.txt",
        "2.txt",
        "4.txt",
        "6.txt",
    ]
    with workspace.jobs.open_output("score-1", "0.txt", "extra") as file:
        assert file.read() == b"two words"
    logs = Path(done.folder or "", "logs/user/entry_script_log")
    texts = [path.read_text() for path in logs.glob("node-*/process*.log.txt")]
    assert len(texts) == 4, "2 instances with 2 processes each"
    assert all(text.count("init() is called.") == 1 for text in texts)
    assert sum(text.count("run() is called with number of rows: 2") for text in texts) == 4


@pytest.mark.parametrize("named", ["folder: ./images", "pattern: ./images/*.png", "file: ./images/0.png"])
def test_an_mltable_without_a_reader_lists_files_which_a_script_takes_by_number(
    workspace: Workspace, tmp_path: Path, named: str
) -> None:
    (tmp_path / "table" / "images").mkdir(parents=True)
    (tmp_path / "table" / "MLTable").write_text(f"paths:\n  - {named}\n")
    for number in range(5):
        (tmp_path / "table" / "images" / f"{number}.png").write_bytes(b"\x89PNG")
    script = """
        import os
        def run(mini_batch):
            return [f"{os.path.basename(path)} of {len(mini_batch)}" for path in mini_batch]
    """
    data = {"path": str(tmp_path / "table"), "type": "mltable"}
    step = {
        "inputs": {"data": {**data, "mode": "eval_mount"}},
        "outputs": {"rows": {"type": "uri_file"}},
        "mini_batch_size": "2",
        "task": {
            "code": code(workspace, tmp_path / "code", score=script),
            "entry_script": "score.py",
            "append_row_to": "${{outputs.rows}}",
        },
        "batchpoint": {"output_format": "azureml"},
    }
    name = f"images-{named.partition(':')[0]}"
    rows = {"rows": Output(type="uri_file")}
    job = parallel_job(name, step, input_type="mltable", inputs={"data": Input.model_validate(data)}, outputs=rows)
    done = carried_out(workspace, job)
    assert done.status is JobStatus.COMPLETED, done.error
    lines = Path(done.outputs["rows"].uri or "").read_text().splitlines()
    expected = ["0.png of 2", "1.png of 2", "2.png of 2", "3.png of 2", "4.png of 1"]
    assert lines == (["0.png of 1"] if named.startswith("file") else expected)


def test_a_parallel_step_that_collects_nothing_publishes_what_its_script_wrote(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    script = """
        import os, sys
        def run(mini_batch):
            for path in mini_batch:
                with open(os.path.join(sys.argv[1], os.path.basename(path)), "w") as file:
                    file.write("done")
            return mini_batch
    """
    step = {
        "inputs": {"data": {"path": str(tmp_path / "a.txt")}},
        "outputs": {"kept": {"type": "uri_folder"}},
        "task": {
            "code": code(workspace, tmp_path / "code", score=script),
            "entry_script": "score.py",
            "program_arguments": "${{outputs.kept}}",
        },
    }
    job = parallel_job(
        "keep-1",
        step,
        inputs={"data": Input(path=str(tmp_path / "a.txt"))},
        outputs={"kept": Output(type="uri_folder", path=str(tmp_path / "final"))},
    )
    done = carried_out(workspace, job)
    assert done.status is JobStatus.COMPLETED, done.error
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["a.txt"], "no errors file, no receipt"
    assert sorted(done.outputs["score"].files) == ["errors.jsonl", "receipt.json"]


def test_the_client_downloads_each_output_into_a_folder_of_its_name(workspace: Workspace, tmp_path: Path) -> None:
    command = "echo 1 > ${{outputs.table}}/a.txt; mkdir ${{outputs.table}}/k; echo 2 > ${{outputs.table}}/k/b.txt"
    outputs = {"table": Output(type="uri_folder"), "note": Output(type="uri_file")}
    job = command_job("two-outputs", {"command": f"{command}; echo 3 > ${{{{outputs.note}}}}"}, outputs=outputs)
    assert carried_out(workspace, job).status is JobStatus.COMPLETED
    secret, _ = workspace.tokens.create("t", "admin")
    context = Context(workspace, Background(workspace), server_id="s", shares_files=True)
    with served(context, secret) as http, ExitStack() as closing:
        client = closing.enter_context(Client(str(http.base_url), secret))
        found = client.jobs.get("two-outputs")
        everything = found.download(tmp_path / "all")
        one = found.download(tmp_path / "one", output_name="table")
        with pytest.raises(NotFoundError, match="has no output nothing"):
            found.download(tmp_path / "none", output_name="nothing")
    context.background.dispatcher.stop()

    def files(folder: Path) -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    assert files(everything) == ["note/note", "table/a.txt", "table/k/b.txt"]
    assert files(one) == ["a.txt", "k/b.txt"]


def test_what_is_cut_into_mini_batches_is_not_fetched_a_second_time(workspace: Workspace, tmp_path: Path) -> None:
    invoked = Job(
        name="invoked", inputs={"data": Input(path="memory://readings/"), "side": Input(path="memory://side.csv")}
    )
    assert [each.location.url for each in places_of_step(invoked, tmp_path, workspace).fetched] == ["memory://side.csv"]
    named = invoked.model_copy(update={"input_data": "side"})
    assert [each.location.url for each in places_of_step(named, tmp_path, workspace).fetched] == ["memory://readings/"]
