"""What is measured: the data, made once from fixed seeds, the models, and how Batchpoint is asked to score them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
TAXI = HERE.parent / "examples" / "nyc-taxi-fares"
sys.path.insert(0, str(TAXI))

from simulate_trips import simulate, write_csv  # noqa: E402  # the generator of the example, which is not a package

SHARD_ROWS = 250_000
READING_COLUMNS = ["a", "b", "c", "d"]


@dataclass(frozen=True)
class Workload:
    """One thing to score, in one form."""

    name: str
    title: str
    kind: str
    """taxi, readings, sleep or images: which model, and which floors."""
    items: int
    """Rows, for taxi; files for everything else."""
    prepare: Callable[[Path], Path]
    """Makes the input below a folder, unless it is there, and answers with its path."""
    floors: tuple[str, ...]
    compared_with: str
    """The floor, or ``ideal``, that the ratio is against."""
    cold_target: float | None = None
    warm_target: float | None = None
    warm_seconds_target: float | None = None
    settings: dict[str, object] = field(default_factory=dict)
    """Of the deployment."""
    script: str | None = None
    """In ``scripts/``; none for the MLflow model."""
    item_seconds: float = 0.0
    """Of a sleeping workload."""


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Let ``make`` fill a temporary place and rename it, so that what exists is whole."""
    if not target.exists():
        unfinished = target.with_name(target.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        print(f"making {target.name}", flush=True)
        make(unfinished)
        unfinished.rename(target)
    return target


def trip_shards(rows: int) -> list[pa.Table]:
    """Trips in tables of at most ``SHARD_ROWS`` rows, each from a seed of its own."""
    starts = range(0, rows, SHARD_ROWS)
    return [simulate(min(SHARD_ROWS, rows - start), seed=100 + start // SHARD_ROWS) for start in starts]


def one_csv(rows: int) -> Callable[[Path], Path]:
    """All trips in one csv file."""

    def prepare(data: Path) -> Path:
        return make_once(data / f"trips-{rows}.csv", lambda path: write_csv(pa.concat_tables(trip_shards(rows)), path))

    return prepare


def many_csvs(rows: int, files: int) -> Callable[[Path], Path]:
    """The same trips in several csv files."""

    def make(folder: Path) -> None:
        folder.mkdir()
        table = pa.concat_tables(trip_shards(rows))
        size = -(-rows // files)
        for number in range(files):
            write_csv(table.slice(number * size, size), folder / f"trips-{number:04}.csv")

    return lambda data: make_once(data / f"trips-{rows}-in-{files}", make)


def one_parquet(rows: int) -> Callable[[Path], Path]:
    """The same trips in one parquet file of row groups of 100,000."""

    def make(path: Path) -> None:
        pq.write_table(pa.concat_tables(trip_shards(rows)), path, row_group_size=100_000)

    return lambda data: make_once(data / f"trips-{rows}.parquet", make)


def one_bad_row(rows: int) -> Callable[[Path], Path]:
    """The trips of ``one_csv``, with a word where one distance should be."""

    def make(path: Path) -> None:
        lines = one_csv(rows)(path.parent).read_bytes().split(b"\n")
        cells = lines[rows // 2].split(b",")
        cells[2] = b"oops"
        lines[rows // 2] = b",".join(cells)
        path.write_bytes(b"\n".join(lines))

    return lambda data: make_once(data / f"trips-{rows}-one-bad.csv", make)


def small_csvs(files: int) -> Callable[[Path], Path]:
    """Files of twenty rows of readings."""

    def make(folder: Path) -> None:
        folder.mkdir()
        random = np.random.default_rng(3)
        for number in range(files):
            rows = "\n".join(",".join(f"{value:.4f}" for value in row) for row in random.normal(size=(20, 4)))
            (folder / f"readings-{number:06}.csv").write_text(",".join(READING_COLUMNS) + "\n" + rows + "\n")

    return lambda data: make_once(data / f"readings-{files}", make)


def tiny_files(files: int) -> Callable[[Path], Path]:
    """Files that nobody reads."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for number in range(files):
            (folder / f"{number:06}.txt").write_text("x")

    return lambda data: make_once(data / f"tiny-{files}", make)


def images(files: int) -> Callable[[Path], Path]:
    """Grey 28 x 28 png files, made from scikit-learn's digits."""

    def make(folder: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_digits

        folder.mkdir()
        digits = load_digits().images
        for number in range(files):
            grey = Image.fromarray((digits[number % len(digits)] * 15).astype(np.uint8)).resize((28, 28))
            grey.save(folder / f"{number:06}.png")

    return lambda data: make_once(data / f"images-{files}", make)


def taxi_model(data: Path) -> Path:
    """The MLflow model of the taxi example, trained by the example's own script."""

    def make(folder: Path) -> None:
        training = folder.with_name("training.csv")
        write_csv(simulate(20_000, seed=1, with_fares=True), training)
        subprocess.run([sys.executable, TAXI / "train.py", training, folder], check=True)

    return make_once(data / "taxi-model", make)


def readings_model(data: Path) -> Path:
    """A linear regression over four readings."""

    def make(folder: Path) -> None:
        import pandas as pd
        from sklearn.linear_model import LinearRegression

        folder.mkdir()
        table = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 4)), columns=READING_COLUMNS)
        (folder / "model.pkl").write_bytes(pickle.dumps(LinearRegression().fit(table, table.sum(axis=1))))

    return make_once(data / "readings-model", make)


def images_model(data: Path) -> Path:
    """A support vector machine over 784 grey values."""

    def make(folder: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC

        folder.mkdir()
        digits = load_digits()
        pixels = [
            np.asarray(Image.fromarray((image * 15).astype(np.uint8)).resize((28, 28))).ravel() / 255.0
            for image in digits.images[:1000]
        ]
        (folder / "model.pkl").write_bytes(pickle.dumps(SVC(gamma="scale").fit(np.stack(pixels), digits.target[:1000])))

    return make_once(data / "images-model", make)


MODELS: dict[str, Callable[[Path], Path]] = {"taxi": taxi_model, "readings": readings_model, "images": images_model}


def workloads(*, quick: bool) -> list[Workload]:
    """Everything that is measured; ``quick`` leaves out the five million rows and takes a tenth of the files."""
    both = ("naive", "tight")
    few = 10 if quick else 1
    small = Workload("w1-250k", "W1: 250k rows, one csv", "taxi", 250_000, one_csv(250_000), both, "tight",
                     cold_target=1.3, warm_seconds_target=0.7)  # fmt: skip
    large = [
        Workload("w1-5m", "W1: 5M rows, one csv", "taxi", 5_000_000, one_csv(5_000_000), both, "tight",
                 cold_target=1.25),
        Workload("w1-5m-64", "W1: 5M rows, 64 csvs", "taxi", 5_000_000, many_csvs(5_000_000, 64), both, "tight"),
        Workload("w1-5m-parquet", "W1: 5M rows, parquet", "taxi", 5_000_000, one_parquet(5_000_000), both, "tight"),
    ]  # fmt: skip
    files = [
        Workload("w3", f"W3: {20_000 // few:,} small csvs, a pandas script", "readings", 20_000 // few,
                 small_csvs(20_000 // few), both, "naive", cold_target=1.2, script="readings.py",
                 settings={"mini_batch_size": 100}),
        Workload("w4a", f"W4a: {400 // few:,} mini-batches of 50 ms", "sleep", 400 // few, tiny_files(400 // few),
                 ("tight",), "ideal", warm_target=1.03, script="sleep.py", item_seconds=0.05,
                 settings={"mini_batch_size": 1}),
        Workload("w4b", f"W4b: {20_000 // few:,} mini-batches of 1 ms", "sleep", 20_000 // few,
                 tiny_files(20_000 // few), ("tight",), "tight", warm_target=1.15, script="sleep.py",
                 item_seconds=0.001, settings={"mini_batch_size": 1}),
        Workload("w5", f"W5: {10_000 // few:,} images", "images", 10_000 // few, images(10_000 // few), ("tight",),
                 "tight", cold_target=1.2, script="images.py", settings={"mini_batch_size": 200}),
    ]  # fmt: skip
    return [small, *([] if quick else large), *files]


BAD_ROW = Workload("w1-250k-bad", "W1: 250k rows, one of them bad", "taxi", 250_000, one_bad_row(250_000), (), "clean")
"""Compared with the clean job: at most 1.2 times as long."""
