"""The floors: what somebody writes by hand for one workload and nothing else. No retries, no resume, no receipt.

    python floors.py tight taxi --input trips.csv --model model/ --output predictions.csv --workers 2

``naive`` is what one writes in an afternoon with pandas; ``tight`` is what one writes after a week with a profiler.
Each forks its workers from a parent that has the model already, writes ``file,row,prediction`` (or its like) in input
order, and is timed from the start of its process to its end.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES = 2 * 2**20
READINGS = ["a", "b", "c", "d"]


@dataclass(frozen=True)
class Piece:
    """Whole lines of a csv file, or one row group of a parquet file."""

    file: Path
    first_row: int
    offset: int = 0
    length: int = 0
    row_group: int = 0


def main() -> None:
    """Read the command line and run one floor."""
    parser = argparse.ArgumentParser(description="Run one hand-written floor.")
    parser.add_argument("floor", choices=["naive", "tight"])
    parser.add_argument("kind", choices=["taxi", "readings", "sleep", "images"])
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--item-seconds", type=float, default=0.001)
    given = parser.parse_args()
    if given.kind == "taxi":
        pieces, score = taxi(given.input, given.model, tight=given.floor == "tight")
    elif given.kind == "readings":
        pieces, score = readings(given.input, given.model, tight=given.floor == "tight")
    elif given.kind == "images":
        pieces, score = images(given.input, given.model)
    else:
        pieces, score = sleep(given.input, given.item_seconds)
    fork_and_join(pieces, score, given.output, given.workers)


def fork_and_join(pieces: Sequence[Any], score: Callable[[Any], bytes], output: Path, workers: int) -> None:
    """Give each worker a contiguous share, each its own file, and put the files one after the other."""
    bounds = [len(pieces) * worker // workers for worker in range(workers + 1)]
    parts = [output.with_name(f"{output.name}.{worker}") for worker in range(workers)]
    children = []
    for worker, part in enumerate(parts):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                with part.open("wb") as file:
                    for piece in pieces[bounds[worker] : bounds[worker + 1]]:
                        file.write(score(piece))
                status = 0
            except Exception:  # noqa: BLE001  # the rim of the child: it says what happened and ends
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    if any(statuses):
        sys.exit("a worker of the floor failed")
    with parts[0].open("ab") as joined:
        for part in parts[1:]:
            with part.open("rb") as file:
                shutil.copyfileobj(file, joined, 2**20)
            part.unlink()
    parts[0].rename(output)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names."""
    return sorted(Path(entry.path) for entry in os.scandir(path)) if path.is_dir() else [path]


def taxi(path: Path, model: Path, *, tight: bool) -> tuple[list[Piece], Callable[[Piece], bytes]]:
    """The taxi model over csv or parquet."""
    pipeline = pickle.loads((model / "model.pkl").read_bytes())
    pieces = [piece for file in files_of(path) for piece in cut(file)]
    if path.suffix != ".parquet":
        with pieces[0].file.open("rb") as file:
            names = file.readline().decode().strip().split(",")
    else:
        names = []
    return pieces, (tight_taxi(pipeline, names) if tight else naive_taxi(pipeline, names))


def cut(path: Path) -> list[Piece]:
    """Row groups of a parquet file; blocks of whole lines of a csv file, whose line breaks are counted once."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        metadata, row, pieces = pq.read_metadata(path), 0, []
        for group in range(metadata.num_row_groups):
            pieces.append(Piece(path, row, row_group=group))
            row += metadata.row_group(group).num_rows
        return pieces
    pieces, row = [], 0
    with path.open("rb") as file:
        offset = len(file.readline())
        while block := file.read(BLOCK_BYTES):
            block += file.readline()
            pieces.append(Piece(path, row, offset, len(block)))
            row += block.count(b"\n")
            offset += len(block)
    return pieces


def lines_of(piece: Piece) -> bytes:
    """The bytes of a piece of a csv file."""
    with piece.file.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def naive_taxi(pipeline: Any, names: list[str]) -> Callable[[Piece], bytes]:
    """pandas reads, the pipeline predicts, pandas writes."""
    import pandas as pd
    import pyarrow.parquet as pq

    def score(piece: Piece) -> bytes:
        if names:
            table = pd.read_csv(io.BytesIO(lines_of(piece)), names=names, keep_default_na=False)
        else:
            table = pq.ParquetFile(piece.file).read_row_group(piece.row_group).to_pandas()
        rows = range(piece.first_row, piece.first_row + len(table))
        result = pd.DataFrame({"file": piece.file.name, "row": rows, "prediction": pipeline.predict(table)})
        return result.to_csv(header=False, index=False).encode()

    return score


def tight_taxi(pipeline: Any, names: list[str]) -> Callable[[Piece], bytes]:
    """Arrow reads and writes; the features go straight into one array; only the trees are scikit-learn's."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet as pq

    encode, estimator = pipeline.named_steps["encode"], pipeline.named_steps["predict"]
    encoder = encode.named_transformers_["categories"]
    categories = dict(zip(encoder.feature_names_in_, encoder.categories_, strict=True))
    others = [name for name in encode.feature_names_in_ if name not in categories]
    types = dict.fromkeys(names, pa.float64()) | {"normalizeHolidayName": pa.string(), "isPaidTimeOff": pa.bool_()}
    reading = pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=2 * BLOCK_BYTES)
    converting = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    writing = pa.csv.WriteOptions(include_header=False, quoting_style="none")

    def featurise(table: pa.Table) -> np.ndarray:
        width = sum(map(len, categories.values())) + len(others)
        features, column = np.empty((table.num_rows, width), np.float32), 0
        for name, values in categories.items():
            for value in values.tolist():
                features[:, column] = pc.equal(table[name], value).to_numpy()
                column += 1
        for name in others:
            features[:, column] = table[name].to_numpy()
            column += 1
        return features

    def score(piece: Piece) -> bytes:
        if names:
            table = pa.csv.read_csv(pa.BufferReader(lines_of(piece)), read_options=reading, convert_options=converting)
        else:
            table = pq.ParquetFile(piece.file).read_row_group(piece.row_group, use_threads=False)
        rows = pa.array(np.arange(piece.first_row, piece.first_row + table.num_rows))
        file = pa.repeat(piece.file.name, table.num_rows)
        result = pa.table({"file": file, "row": rows, "prediction": estimator.predict(featurise(table))})
        sink = io.BytesIO()
        pa.csv.write_csv(result, sink, writing)
        return sink.getvalue()

    return score


def readings(path: Path, model: Path, *, tight: bool) -> tuple[list[list[Path]], Callable[[list[Path]], bytes]]:
    """A linear model over many small files, a hundred at a time."""
    import numpy as np
    import pandas as pd

    estimator = pickle.loads((model / "model.pkl").read_bytes())

    def naive(files: list[Path]) -> bytes:
        table = pd.concat([pd.read_csv(file).assign(source=file.name) for file in files], ignore_index=True)
        result = pd.DataFrame({"source": table["source"], "value": estimator.predict(table[READINGS])})
        return result.to_csv(header=False, index=False).encode()

    def by_hand(files: list[Path]) -> bytes:
        tables = [np.loadtxt(io.StringIO(file.read_text()), delimiter=",", skiprows=1, ndmin=2) for file in files]
        values = np.concatenate(tables) @ estimator.coef_ + estimator.intercept_
        sources = (file.name for file, table in zip(files, tables, strict=True) for _ in table)
        return "".join(f"{source},{value}\n" for source, value in zip(sources, values.tolist(), strict=True)).encode()

    return groups(files_of(path), 100), (by_hand if tight else naive)


def images(path: Path, model: Path) -> tuple[list[list[Path]], Callable[[list[Path]], bytes]]:
    """A classifier over images, two hundred at a time."""
    import numpy as np
    from PIL import Image

    classifier = pickle.loads((model / "model.pkl").read_bytes())

    def score(files: list[Path]) -> bytes:
        pixels = np.stack([np.asarray(Image.open(file)).ravel() / 255.0 for file in files])
        digits = classifier.predict(pixels).tolist()
        return "".join(f"{file.name},{digit}\n" for file, digit in zip(files, digits, strict=True)).encode()

    return groups(files_of(path), 200), score


def sleep(path: Path, seconds: float) -> tuple[list[Path], Callable[[Path], bytes]]:
    """Work of a known length, one file at a time."""

    def score(file: Path) -> bytes:
        time.sleep(seconds)
        return f"{file.name},{file}\n".encode()

    return files_of(path), score


def groups(files: list[Path], size: int) -> list[list[Path]]:
    """The files in mini-batches of ``size``."""
    return [files[start : start + size] for start in range(0, len(files), size)]


if __name__ == "__main__":
    main()
