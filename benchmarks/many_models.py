"""W2: readings of many sensors that take turns in one csv, and a model for each of them.

    python many_models.py naive|fast --input readings.csv --models models/ --output predictions.csv --workers 2
    python many_models.py map|script …          # Batchpoint, over the same folder

``naive`` is what one writes in an afternoon: pandas groups, joblib loads, the pipeline predicts, pandas writes.
``fast`` reads once by columns, sorts the rows by key once, unpickles, scales by hand, calls libsvm itself and writes by
columns. Both fork their workers once all is read and grouped, and write ``file,row,Device,Sensor,prediction`` by key.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from floors import fork_and_join

ROWS_PER_KEY = 200
SENSORS = 5


def make_readings(path: Path, models: int) -> None:
    """``ROWS_PER_KEY`` readings of each sensor, in the order of time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    random = np.random.default_rng(11)
    keys = np.tile(np.arange(models), ROWS_PER_KEY)
    ticks = np.repeat(np.arange(ROWS_PER_KEY), models) * 5
    stamps = pa.array(np.datetime64("2026-01-01T00:00:00") + ticks.astype("timedelta64[s]"))
    device, sensor = pa.array(keys // SENSORS + 1), pa.array(keys % SENSORS + 1)
    values = pa.array(random.normal(size=len(keys)).round(4) + keys % 17)
    pa.csv.write_csv(pa.table({"TS": stamps, "Device": device, "Sensor": sensor, "Val": values}), path)


def make_models(folder: Path, models: int, *, burden: int = 0) -> None:
    """A scaler and a one-class support vector machine for each sensor, trained on 1,200 readings, in a pickle each.

    ``burden`` makes each so many bytes heavier: these models are of a few kilobytes, and memory is to be seen.
    """
    import numpy as np
    import pandas as pd
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM

    folder.mkdir()
    random = np.random.default_rng(12)
    for key in range(models):
        seen = pd.DataFrame({"Val": random.normal(size=1200) + key % 17})
        model = make_pipeline(StandardScaler(), OneClassSVM(nu=0.0001, kernel="rbf", gamma=0.01)).fit(seen)
        model.burden_ = np.ones(burden, np.uint8)
        (folder / f"model_{key // SENSORS + 1}_{key % SENSORS + 1}.pkl").write_bytes(pickle.dumps(model))


def naive(path: Path, models: Path) -> tuple[list[Any], Callable[[Any], bytes]]:
    """As one writes it in an afternoon."""
    import joblib
    import pandas as pd
    import sklearn.svm  # noqa: F401  # before the fork, as the models need it

    table = pd.read_csv(path)
    table["row"] = range(len(table))
    groups = list(table.groupby(["Device", "Sensor"], sort=False))

    def score(group: Any) -> bytes:
        (device, sensor), rows = group
        model = joblib.load(models / f"model_{device}_{sensor}.pkl")
        result = pd.DataFrame(
            {"file": path.name, "row": rows["row"], "Device": device, "Sensor": sensor,
             "prediction": model.predict(rows[["Val"]])}
        )  # fmt: skip
        return result.to_csv(header=False, index=False).encode()

    return groups, score


def fast(path: Path, models: Path) -> tuple[list[Any], Callable[[Any], bytes]]:
    """As one writes it after a week: nothing is done for each row, and little for each key."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import sklearn.pipeline
    import sklearn.preprocessing  # noqa: F401  # before the fork, as the models need it
    from sklearn.svm import _libsvm as libsvm

    wanted = pa.csv.ConvertOptions(include_columns=["Device", "Sensor", "Val"])
    table = pa.csv.read_csv(path, convert_options=wanted)
    device, sensor, values = (table[name].to_numpy() for name in ("Device", "Sensor", "Val"))
    codes = (device * (int(sensor.max()) + 1) + sensor).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    groups = np.split(order, cuts)
    writing = pa.csv.WriteOptions(include_header=False, quoting_style="none")

    def predict(rows: Any) -> Any:
        first = rows[0]
        scaler, svm = (step for _, step in pickle.loads(
            (models / f"model_{device[first]}_{sensor[first]}.pkl").read_bytes()
        ).steps)  # fmt: skip
        scaled = (values[rows, None] - scaler.mean_) / scaler.scale_
        answer = libsvm.predict(
            scaled, svm.support_, svm.support_vectors_, svm._n_support, svm._dual_coef_, svm._intercept_, svm._probA,  # noqa: SLF001  # a floor may do that
            svm._probB, svm_type=2, kernel="rbf", gamma=svm._gamma,  # noqa: SLF001  # the same
        )  # fmt: skip
        return answer.astype(np.int64)

    def score(together: list[Any]) -> bytes:
        answers = np.concatenate([predict(rows) for rows in together])
        rows = np.concatenate(together)
        result = pa.table(
            {"file": pa.repeat(path.name, len(rows)), "row": rows, "Device": device[rows], "Sensor": sensor[rows],
             "prediction": answers}
        )  # fmt: skip
        sink = io.BytesIO()
        pa.csv.write_csv(result, sink, writing)
        return sink.getvalue()

    return [groups[at : at + 100] for at in range(0, len(groups), 100)], score


SCRIPT = """
# What ``naive`` does for each key; file and row are added for it.
import os
import pandas as pd
import joblib


def run(mini_batch, context):
    key = context.partition_key_value
    model = joblib.load(os.path.join(os.environ["MODELS"], f"model_{key['Device']}_{key['Sensor']}.pkl"))
    return pd.DataFrame(
        {"Device": key["Device"], "Sensor": key["Sensor"], "prediction": model.predict(mini_batch[["Val"]])}
    )
"""


def product(path: Path, models: Path, output: Path, workers: int, *, by_map: bool) -> None:
    """Batchpoint: one run, from its folder to the published output, in a process of its own."""
    from batchpoint.scoring import spec as words

    run = output.with_name(f"{output.name}.run")
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    run.mkdir(parents=True)
    (run / "score.py").write_text(SCRIPT)
    with (run / "models.jsonl").open("w") as file:
        for pickled in sorted(models.iterdir()):
            device, sensor = pickled.stem.split("_")[1:]
            key = {"Device": device, "Sensor": sensor}
            line = {"key": key, "model": f"{pickled.stem}:1", "path": str(pickled), "type": "custom_model"}
            file.write(json.dumps(line) + "\n")
    script = (
        words.ScriptSpec(kind="model_map", takes="dataframe")
        if by_map
        else words.ScriptSpec(kind="script", path=str(run / "score.py"), code_dir=str(run), takes="dataframe")
    )
    words.ScoringSpec(
        job="w2",
        python=sys.executable,
        script=script,
        model_map=words.ModelMapSpec() if by_map else None,
        environment_variables={"MODELS": str(models)},
        input=words.InputSpec(locations=[words.Location(url=str(path))]),
        split=words.SplitSpec(by="bytes", partition_keys=["Device", "Sensor"]),
        output=words.OutputSpec(
            folder=words.Location(url=str(output)), passthrough=["Device", "Sensor"] if by_map else []
        ),
        retry=words.RetrySpec(timeout=600, isolate_failures=by_map),
        processes_per_instance=workers,
    ).write(run)
    command = [sys.executable, "-m", "batchpoint.scoring.runner"]
    subprocess.run(command, input=json.dumps({"folder": str(run)}).encode(), check=True)
    outcome = json.loads((run / "outcome.json").read_bytes())
    if outcome["reason"] != "completed" or not outcome["receipt"]["balanced"] or outcome["receipt"]["failed"]:
        sys.exit(f"the run did not end well: {outcome['error'] or outcome['receipt']}")


def main() -> None:
    """Read the command line and run one system."""
    parser = argparse.ArgumentParser(description="Run one system of W2.")
    parser.add_argument("system", choices=["naive", "fast", "map", "script"])
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.system in {"map", "script"}:
        product(given.input, given.models, given.output, given.workers, by_map=given.system == "map")
        return
    pieces, score = (naive if given.system == "naive" else fast)(given.input, given.models)
    fork_and_join(pieces, score, given.output, given.workers)


if __name__ == "__main__":
    main()
