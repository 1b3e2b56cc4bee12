"""Simulate taxi trips shaped like those of New York's green cabs, with the weather and the holidays of the day.

    python simulate_trips.py --rows 250000 --seed 7 trips.csv
    python simulate_trips.py --rows 20000 --seed 1 --with-fares training.csv

The same arguments always give the same file. A column of holiday names holds the text "None" on most rows, as the
original does: a reader that takes it for "missing" changes the predictions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

HOLIDAYS = np.array(["None", "New Year's Day", "Martin Luther King Jr. Day", "Memorial Day", "Independence Day"])
PAID = np.array([False, True, True, True, True])


def simulate(rows: int, *, seed: int, with_fares: bool = False) -> pa.Table:
    """``rows`` trips as a table of thirteen features, and ``totalAmount`` (dollars) when fares are asked for."""
    random = np.random.default_rng(seed)
    day = random.integers(0, 181, rows)
    month = day // 30.2 + 1
    hour = random.integers(0, 24, rows)
    distance = np.round(random.lognormal(0.7, 0.8, rows), 2)
    cold = random.random(rows) < 0.12
    wet = random.random(rows) < 0.2
    holiday = np.where(random.random(rows) < 0.93, 0, random.integers(1, len(HOLIDAYS), rows))
    columns = {
        "vendorID": random.integers(1, 3, rows),
        "passengerCount": random.choice(np.arange(1, 7), rows, p=[0.72, 0.14, 0.05, 0.03, 0.04, 0.02]),
        "tripDistance": distance,
        "hour_of_day": hour,
        "day_of_week": day % 7,
        "day_of_month": day % 30 + 1,
        "month_num": month.astype(np.int64),
        "snowDepth": np.where(cold, np.round(random.gamma(2.0, 6.0, rows), 1), 0.0),
        "precipTime": np.where(wet, random.choice([1.0, 6.0, 24.0], rows), 0.0),
        "precipDepth": np.where(wet, np.round(random.gamma(1.2, 9.0, rows), 1), 0.0),
        "temperature": np.round(random.normal(8.0, 9.0, rows) + month, 2),
        "normalizeHolidayName": HOLIDAYS[holiday],
        "isPaidTimeOff": PAID[holiday],
    }
    if with_fares:
        rush = np.isin(hour, [7, 8, 9, 16, 17, 18])
        fare = 3.3 + 2.9 * distance + 1.1 * rush + 0.5 * (hour >= 20) + 0.02 * columns["precipDepth"]
        fare = fare + 0.8 * (holiday > 0) + random.gamma(2.0, 0.9, rows)
        columns["totalAmount"] = np.round(fare, 2)
    return pa.table(columns)


def write_csv(table: pa.Table, path: Path) -> None:
    """Write the table as pandas would: a header, no quotes where none are needed, True and False."""
    paid = table.schema.get_field_index("isPaidTimeOff")
    if paid >= 0:
        as_text = pc.if_else(table["isPaidTimeOff"], "True", "False")
        table = table.set_column(paid, "isPaidTimeOff", as_text)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write((",".join(table.column_names) + "\n").encode())
        options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
        pa.csv.write_csv(table, file, options)
    unfinished.replace(path)


def main() -> None:
    """Read the command line, simulate, write."""
    parser = argparse.ArgumentParser(description="Simulate taxi trips.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--with-fares", action="store_true")
    given = parser.parse_args()
    given.path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(simulate(given.rows, seed=given.seed, with_fares=given.with_fares), given.path)
    print(f"{given.rows:,} trips in {given.path}")


if __name__ == "__main__":
    main()
