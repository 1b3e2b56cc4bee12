"""Make sure that nothing was lost on the way through the pipeline.

    python check_lab.py trips.csv 21 nyc-taxi-fares.csv LOGS

Counts the trips, the predictions, the customer ids, and the rows that the workers say in their logs that they scored.
LOGS is the folder ``logs`` of the step's job, with a folder for each node and a file for each process.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd

ROWS = re.compile(r"run\(\) is called with number of rows: (\d+)")


def check(trips: Path, times: int, fares: Path, logs: Path) -> list[str]:
    """What was found to be in order, line by line.

    Raises:
        SystemExit: something is missing, or there twice.
    """
    source = sum(1 for _ in trips.open()) - 1
    table = pd.read_csv(fares)
    files = sorted((logs / "user" / "entry_script_log").glob("*/process*.log.txt"))
    logged = [(path, [int(rows) for rows in ROWS.findall(path.read_text())]) for path in files]
    scored = sum(sum(rows) for _, rows in logged)
    expected = source * times
    if len(table) != expected:
        raise SystemExit(f"{len(table):,} predictions for {expected:,} rows in {fares}")
    if table["customer_id"].nunique() != expected or not table["customer_id"].str.fullmatch("[A-Z0-9]{8}").all():
        raise SystemExit(f"the customer ids in {fares} are not unique, or no ids")
    if table["taxi_fare"].isna().any():
        raise SystemExit(f"there are predictions without a value in {fares}")
    if scored != expected:
        raise SystemExit(f"the logs in {logs} tell of {scored:,} rows; there are {expected:,}")
    found = [f"{source:,} trips x {times} = {expected:,} predictions, each with a customer id of its own"]
    found += [
        f"  {path.parent.name}/{path.name}: {len(rows)} mini-batches, {sum(rows):,} rows" for path, rows in logged
    ]
    return [*found, f"  together {scored:,} rows: the logs add up"]


if __name__ == "__main__":
    print("\n".join(check(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))))
