"""Multiply the registered trips and give each an id: the first step of the lab.

    python process_data.py --dataset trips/ --n 20 --seed 42 --output processed/

Reads the csv files of a folder and writes them 1 + n times, as parquet partitioned by ``partition_id``, with an MLTable
file beside them. Each row gets a ``customer_id`` of eight letters and digits that no other row has. The same arguments
always give the same bytes, so a step that is run again changes no key.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", dtype=np.uint8)
LETTERS = 8
IDS = len(ALPHABET) ** LETTERS
PARTITIONS = 10

MLTABLE = """\
type: mltable
paths:
  - pattern: ./*/*.parquet
transformations:
  - read_parquet
"""


def read_trips(folder: Path) -> pa.Table:
    """All rows of the csv files, in the order of their names. "None" is the name of an ordinary day: it stays text."""
    as_written = pa.csv.ConvertOptions(strings_can_be_null=False)
    tables = [pa.csv.read_csv(path, convert_options=as_written) for path in sorted(folder.glob("*.csv"))]
    if not tables:
        raise SystemExit(f"There is no csv file in {folder}.")
    return pa.concat_tables(tables)


def customer_ids(count: int, seed: int) -> pa.Array:
    """``count`` ids in an order that looks random, no two alike.

    ``number -> factor * number + start`` (modulo 36^8) is one-to-one for any factor without a divisor in common with
    36, so ids are unique by construction and nothing has to be remembered to make sure of it.
    """
    random = np.random.default_rng(seed)
    factor, start = int(random.integers(IDS // 3, IDS // 2)), int(random.integers(IDS))
    while math.gcd(factor, IDS) != 1:
        factor += 1
    left = np.array([(factor * number + start) % IDS for number in range(count)], dtype=np.int64)
    letters = np.empty((count, LETTERS), dtype=np.uint8)
    for place in range(LETTERS):
        left, digit = np.divmod(left, len(ALPHABET))
        letters[:, place] = ALPHABET[digit]
    return pa.array(letters.view(f"S{LETTERS}").ravel().astype(str))


def multiply(trips: pa.Table, copies: int, seed: int) -> pa.Table:
    """The trips and ``copies`` more of each, with ``customer_id`` as the first column."""
    table = pa.concat_tables([trips] * (1 + copies)).combine_chunks()
    return table.add_column(0, "customer_id", customer_ids(table.num_rows, seed))


def write_partitions(table: pa.Table, folder: Path) -> None:
    """Ten folders ``partition_id=0`` to ``partition_id=9`` of one parquet file each, and the MLTable file."""
    bounds = np.linspace(0, table.num_rows, PARTITIONS + 1).astype(int)
    for partition, (first, end) in enumerate(itertools.pairwise(bounds)):
        target = folder / f"partition_id={partition}"
        target.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(first, end - first), target / "part-0.parquet")
    (folder / "MLTable").write_text(MLTABLE)


def main() -> None:
    """Read the command line, multiply, write."""
    parser = argparse.ArgumentParser(description="Multiply taxi trips.")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of csv files")
    parser.add_argument("--n", type=int, default=20, help="copies of each row, beside the row itself")
    parser.add_argument("--seed", type=int, default=42, help="of the customer ids")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    given = parser.parse_args()
    trips = read_trips(given.dataset)
    table = multiply(trips, given.n, given.seed)
    write_partitions(table, given.output)
    print(f"{trips.num_rows:,} trips x {given.n + 1} = {table.num_rows:,} rows in {PARTITIONS} partitions")


if __name__ == "__main__":
    main()
