"""Scoring scripts in the shapes of Azure's own samples run unchanged and write the bytes that Azure writes.

Each script below was written here, in the shape that public samples have; sources: Azure ML documentation of batch
scoring scripts, and the parallel run tutorials of SDK v1.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shipped import Shipped


@dataclass
class Shape:
    """One script, the files it scores, and what lies in the output afterwards."""

    script: str
    options: str
    files: dict[str, str]
    expected: str | None
    others: dict[str, str] = field(default_factory=dict)


TABLE = "sepal,petal\n5.1,1.4\n6.3,4.9\n"

SHAPES = {
    "v1 tabular script with EntryScript and argparse, DataFrame out": Shape(
        script="""
            import argparse
            from azureml_user.parallel_run import EntryScript

            def init():
                global kind
                parser = argparse.ArgumentParser()
                parser.add_argument("--model_name", dest="model_name", required=True)
                args, _ = parser.parse_known_args()
                kind = args.model_name
                EntryScript().logger.info("init() is called.")

            def run(input_data):
                EntryScript().logger.info(f"run() is called with number of rows: {len(input_data)}")
                result = input_data.copy()
                result["variety"] = kind + " kind"
                return result
        """,
        options=(
            "{mini_batch_type: dataframe, output_format: azureml, program_arguments: [--model_name, iris, --x, '1']}"
        ),
        files={"iris.csv": TABLE},
        expected='5.1 1.4 "iris kind"\n6.3 4.9 "iris kind"\n',
    ),
    "per-file script, one text for each image": Shape(
        script="""
            import os

            def init():
                global model
                model = os.listdir(os.environ["AZUREML_MODEL_DIR"])[0]

            def run(mini_batch):
                print(f"run method start: {__file__}, run({mini_batch})")
                results = []
                for image in mini_batch:
                    with open(image) as opened:
                        results.append("{}: {}".format(os.path.basename(image), len(opened.read())))
                return results
        """,
        options="{output_format: azureml}",
        files={"b.png": "12", "a.png": "1"},
        expected="a.png: 1\nb.png: 2\n",
    ),
    "per-file script, frames joined with their file name": Shape(
        script="""
            import os
            import pandas as pd

            def init():
                assert os.path.exists(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.txt"))

            def run(mini_batch):
                results = pd.DataFrame()
                for path in mini_batch:
                    data = pd.read_csv(path)
                    predictions = pd.DataFrame({"predictions": data["petal"] > 2})
                    predictions["file"] = os.path.basename(path)
                    results = pd.concat([results, predictions]) if len(results) else predictions
                return results
        """,
        options="{output_format: azureml}",
        files={"one file.csv": TABLE, "two.csv": TABLE},
        expected='False "one file.csv"\nTrue "one file.csv"\nFalse two.csv\nTrue two.csv\n',
    ),
    "summary_only script that writes its own files": Shape(
        script="""
            import os
            from pathlib import Path

            def init():
                global output_path
                output_path = os.environ["AZUREML_BI_OUTPUT_PATH"]

            def run(mini_batch):
                for file_path in mini_batch:
                    name = Path(file_path).stem
                    with open(os.path.join(output_path, name + ".out"), "w") as out:
                        out.write(name.upper())
                return mini_batch
        """,
        options="{}",
        files={"one.csv": TABLE, "two.csv": TABLE},
        expected=None,
        others={"one.out": "ONE", "two.out": "TWO"},
    ),
    "script that forecasts one store and brand at a time": Shape(
        script="""
            def run(input_data, mini_batch_context):
                key = mini_batch_context.partition_key_value
                assert set(input_data["Store"]) == {key["Store"]} and set(input_data["Brand"]) == {key["Brand"]}
                result = input_data[["Store", "Brand"]].copy()
                result["of"] = len(input_data)
                return result
        """,
        options="{mini_batch_type: dataframe, output_format: azureml, partition_keys: [Store, Brand]}",
        files={
            "a.csv": "Store,Brand,Quantity\n2,dominicks,1\n2,tropicana,5\n2,dominicks,3\n",
            "b.csv": "Store,Brand,Quantity\n5,dominicks,4\n2,tropicana,2\n2,tropicana,8\n",
        },
        expected="2 dominicks 2\n" * 2 + "2 tropicana 3\n" * 3 + "5 dominicks 1\n",
    ),
    "script with a context and rows of lists": Shape(
        script="""
            def init():
                pass

            def run(mini_batch, mini_batch_context):
                return [["f.csv", str(mini_batch_context.minibatch_index)] for _ in mini_batch]

            def shutdown():
                print("bye")
        """,
        options="{output_format: azureml}",
        files={"one.csv": TABLE, "two.csv": TABLE},
        expected="['f.csv', '0']\n['f.csv', '1']\n",
    ),
}


@pytest.fixture
def shipped(shared: Shipped) -> Shipped:
    return shared


@pytest.mark.parametrize("name", SHAPES)
def test_a_script_of_this_shape_runs_unchanged(shipped: Shipped, tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    for folder, contents in {"code": {"score.py": textwrap.dedent(shape.script)}, "data": shape.files}.items():
        (tmp_path / folder).mkdir()
        for file, text in contents.items():
            (tmp_path / folder / file).write_text(text)
    (tmp_path / "model.txt").write_text("a model")
    action = "append_row" if shape.expected is not None else "summary_only"
    (tmp_path / "deployment.yml").write_text(
        "name: blue\nendpoint_name: shapes\nmodel: {path: ./model.txt}\nmini_batch_size: 1\n"
        f"code_configuration: {{code: ./code, scoring_script: score.py}}\noutput_action: {action}\n"
        f"batchpoint: {shape.options}\n"
    )
    shipped.ok("batch-endpoint", "create", "-n", "shapes")
    shipped.ok("batch-deployment", "create", "-f", tmp_path / "deployment.yml", "--set-default")
    shipped.ok("batch-endpoint", "invoke", "-n", "shapes", "--input", tmp_path / "data", "--job-name", "j", "--stream")
    folder = shipped.output("j")
    if shape.expected is None:
        assert not (folder / "predictions.csv").exists()
    else:
        assert (folder / "predictions.csv").read_text() == shape.expected
    for file, text in shape.others.items():
        assert (folder / file).read_text() == text
    logs = shipped.place / "jobs" / "j" / "logs"
    for log in ("job_progress_overview.txt", "job_error.txt", "job_result.txt"):
        assert (logs / "user" / log).is_file()
    if "EntryScript" in shape.script:
        entry_logs = "".join(path.read_text() for path in (logs / "user" / "entry_script_log").rglob("*.log.txt"))
        assert "init() is called." in entry_logs
        assert "run() is called with number of rows: 2" in entry_logs
