"""Takes the README's pictures of the studio: a server with example data, and Chromium without a window.

make pictures
"""

from __future__ import annotations

import base64
import os
import pickle
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from sklearn.dummy import DummyRegressor

from browser import browsing, colors
from shipped import Shipped

FOLDER = Path(__file__).resolve().parent / "pictures"
PICTURES = {
    "home": ("light", ""),
    "job": ("light", "jobs/{job}"),
    "grid": ("light", "schedules/nightly/grid"),
    "plan": ("light", "endpoints/sales/invoke"),
    "board-dark": ("dark", "endpoints/sales/deployments/by-store/models"),
}
"""Name of each picture → light or dark, and the page that it shows."""
WIDTH, TALLEST = 1180, 900
STORES = ("airport", "bridge", "center", "east", "harbor", "market", "north", "south", "station", "west")
NIGHTS = 12
DEPLOYMENT = """
name: by-store
endpoint_name: sales
batchpoint:
  partition_keys: [store]
  model_map: {folder: models, file_pattern: "sales_{store}.pkl"}
  row_keys: false
  passthrough: [store, customer]
"""
SCHEDULE = """
name: nightly
trigger: {type: cron, expression: "0 2 * * *"}
create_job:
  type: invoke
  endpoint_name: sales
  inputs: {data: {path: "azureml://datastores/workspaceblobstore/paths/sales/{{fire_time:%m-%d}}.csv"}}
"""


def take(folder: Path) -> None:
    """Start a server in a folder, let it work on example data, and take all pictures."""
    shipped = Shipped(folder / "home")
    (folder / "downloads").mkdir()
    try:
        job = prepare(shipped, folder)
        server = shipped.server()
        with browsing(downloads=folder / "downloads") as browser:
            browser.get(f"{server['url']}/studio/sign-in")
            browser.find_element(By.ID, "token").send_keys(server["token"])
            browser.find_element(By.CSS_SELECTOR, "main button").click()
            browser.find_element(By.CSS_SELECTOR, ".who")
            for name, (scheme, page) in PICTURES.items():
                colors(browser, scheme)
                browser.get(f"{server['url']}/studio/{page.format(job=job)}".rstrip("/"))
                if name == "plan":
                    plan(browser, f"azureml://datastores/workspaceblobstore/paths/sales/{night(0):%m-%d}.csv")
                photograph(browser, FOLDER / f"{name}.png")
    finally:
        shipped.stop()


def prepare(shipped: Shipped, folder: Path) -> str:
    """Nights of sales of stores, of which some lack their model or their rows; answers with the last night's job."""
    data, models = shipped.home / "datastores" / "workspaceblobstore" / "sales", folder / "models"
    data.mkdir(parents=True)
    models.mkdir()
    for number, store in enumerate(STORES):
        model = DummyRegressor(strategy="constant", constant=100.0 + number).fit([[0]], [0])
        if store != "harbor":
            (models / f"sales_{store}.pkl").write_bytes(pickle.dumps(model))
    for ago in range(NIGHTS):
        open_ones = [store for at, store in enumerate(STORES) if (ago * 7 + at * 3) % 17]
        rows = [f"{store},{customer}" for store in open_ones for customer in range(400)]
        (data / f"{night(ago):%m-%d}.csv").write_text("\n".join(["store,customer", *rows, ""]))
    (folder / "by-store.yml").write_text(DEPLOYMENT)
    (folder / "nightly.yml").write_text(SCHEDULE)
    shipped.ok("endpoint", "create", "-n", "sales", "--description", "Sales of each store, by its own model.")
    shipped.ok("deployment", "create", "-f", folder / "by-store.yml", "--set-default", cwd=folder)
    shipped.ok("schedule", "create", "-f", folder / "nightly.yml")
    first, last = f"{night(NIGHTS - 1):%Y-%m-%d}", f"{night(3):%Y-%m-%d}"
    finished(shipped, shipped.json("schedule", "backfill", "-n", "nightly", "--from", first, "--until", last))
    mended = DummyRegressor(strategy="constant", constant=1.0).fit([[0]], [0])
    (models / "sales_harbor.pkl").write_bytes(pickle.dumps(mended))
    shipped.ok("deployment", "create", "-f", folder / "by-store.yml", "--set-default", cwd=folder)
    harbor = ("--key", "store=harbor", "--from", f"{night(6):%Y-%m-%d}", "--until", last)
    finished(shipped, shipped.json("schedule", "backfill", "-n", "nightly", *harbor))
    (models / "sales_harbor.pkl").unlink()
    shipped.ok("deployment", "create", "-f", folder / "by-store.yml", "--set-default", cwd=folder)
    last = f"{night(0):%Y-%m-%d}"
    runs = shipped.json("schedule", "backfill", "-n", "nightly", "--from", last, "--until", last)
    finished(shipped, runs)
    return str(runs[-1]["job_name"])


def night(ago: int) -> datetime:
    """The time of the schedule so many nights ago."""
    now = datetime.now(UTC)
    last = now.replace(hour=2, minute=0, second=0, microsecond=0)
    return (last if last <= now else last - timedelta(days=1)) - timedelta(days=ago)


def finished(shipped: Shipped, runs: list[dict[str, str]]) -> None:
    """Wait for the jobs of some runs."""
    for run in runs:
        shipped.wait(run["job_name"])


def plan(browser: WebDriver, path: str) -> None:
    """Fill in the form of a job, and ask for a plan."""
    browser.find_element(By.ID, "path").send_keys(path)
    browser.find_element(By.XPATH, "//button[normalize-space()='Plan it first']").click()
    browser.find_element(By.ID, "plan")


def photograph(browser: WebDriver, path: Path) -> None:
    """A picture of the page, as tall as it is, within bounds."""
    browser.set_window_size(WIDTH, TALLEST)
    time.sleep(0.3)  # what is live draws itself
    tall = int(browser.find_element(By.TAG_NAME, "html").size["height"])
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(tall, TALLEST), "scale": 1}
    given = {"clip": clip, "captureBeyondViewport": True}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", given)  # type: ignore[no-untyped-call, attr-defined]  # Chrome's own
    path.write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    os.environ["CI"] = "true"  # without Chromium there is nothing to be done
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="batchpoint-pictures-") as made:
        take(Path(made))
    sys.stdout.write(f"{len(PICTURES)} pictures are in {FOLDER}.\n")
