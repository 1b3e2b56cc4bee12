"""A person at work in the studio, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select

from browser import colors, eventually, press, rows_of, script, serious_faults, sign_in, state
from shipped import Shipped

SCRIPT = """
import os
import time


def run(rows):
    time.sleep(0.5)
    if (rows["amount"] < 0).any() and not os.path.exists(FIXED):
        raise ValueError("<script>document.title = 'taken'</script> is below zero")
    return rows["amount"] * 2
"""
DEPLOYMENT = """
name: {name}
endpoint_name: amounts
code_configuration: {{code: ./code, scoring_script: score.py}}
settings: {{mini_batch_size: 10}}
batchpoint: {{mini_batch_type: dataframe, split: rows, key_columns: [id]}}
"""
SCHEDULE = """
name: nightly
is_enabled: false
trigger: {{type: cron, expression: "0 2 * * *"}}
create_job: {{type: invoke, endpoint_name: amounts, inputs: {{data: {{path: {path}}}}}}}
"""


PIPELINE = """
type: pipeline
jobs:
  count: {type: command, command: "echo 1 > ${{outputs.counts}}/out", outputs: {counts: {}}}
  report:
    {type: command, command: "cat ${{inputs.counts}}/out",
     inputs: {counts: "${{parent.jobs.count.outputs.counts}}"}}
"""


@pytest.fixture
def address(shipped: Shipped, tmp_path: Path) -> str:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(f"FIXED = {str(tmp_path / 'fixed')!r}\n" + SCRIPT)
    shipped.ok("endpoint", "create", "-n", "amounts")
    for name in ("blue", "green"):
        (tmp_path / f"{name}.yml").write_text(DEPLOYMENT.format(name=name))
        shipped.ok(
            "deployment", "create", "-f", tmp_path / f"{name}.yml", *(["--set-default"] if name == "blue" else [])
        )
    return f"{shipped.server()['url']}/studio"


def test_a_person_creates_a_job_watches_it_reads_the_fault_retries_and_takes_the_predictions(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    amounts = tmp_path / "amounts.csv"
    amounts.write_text("id,amount\n" + "".join(f"k{row},{-1 if row == 42 else row}\n" for row in range(60)))
    sign_in(browser, address, shipped)
    press(browser, "Endpoints")
    press(browser, "amounts")
    press(browser, "Create job")
    browser.find_element(By.ID, "upload").send_keys(str(amounts))
    press(browser, "Create job")
    eventually(lambda: "/jobs/" in browser.current_url)
    job = browser.current_url

    script(browser, "window.isTheSame = true")
    eventually(lambda: state(browser) == "running")
    eventually(lambda: state(browser) == "completed")
    assert script(browser, "return window.isTheSame") is True  # it was never loaded anew

    assert "ValueError 1" in browser.find_element(By.TAG_NAME, "main").text
    assert "amounts.csv, row 42" in browser.find_element(By.TAG_NAME, "main").text
    eventually(lambda: rows_of(browser, "#job_errors details details summary"))
    eventually(lambda: not script(browser, "return document.querySelector('[data-action=cancel]:not([hidden])')"))
    rows_of(browser, "#job_errors details details summary")[0].click()
    assert "score.py" in browser.find_element(By.CSS_SELECTOR, "#job_errors details details pre").text
    assert browser.title != "taken"

    (tmp_path / "fixed").touch()
    press(browser, "Retry what failed")
    eventually(lambda: browser.current_url != job)
    eventually(lambda: state(browser) == "completed")
    press(browser, "predictions.csv")
    saved = tmp_path / "downloads" / "predictions.csv"
    eventually(saved.exists)
    lines = saved.read_text().splitlines()
    assert lines[0] == "id,amount"
    assert [line.split(",")[1] for line in lines[1:]] == [str(-2 if row == 42 else row * 2) for row in range(60)]


def test_a_person_switches_the_default_deployment_and_cancels_a_job(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    (tmp_path / "long.csv").write_text("id,amount\n" + "".join(f"k{row},{row}\n" for row in range(10_000)))
    sign_in(browser, address, shipped)
    browser.get(f"{address}/endpoints/amounts")
    press(browser, "Make default")
    eventually(lambda: shipped.json("endpoint", "show", "-n", "amounts")["defaults"]["deployment_name"] == "green")
    press(browser, "Create job")
    assert "green" in Select(browser.find_element(By.ID, "deployment")).first_selected_option.text
    browser.find_element(By.ID, "path").send_keys(str(tmp_path / "long.csv"))
    press(browser, "Create job")
    eventually(lambda: state(browser) == "running")
    press(browser, "Cancel")
    eventually(lambda: state(browser) == "canceled")


def test_a_person_enables_and_triggers_a_schedule(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    (tmp_path / "few.csv").write_text("id,amount\n1,1\n2,2\n")
    (tmp_path / "schedule.yml").write_text(SCHEDULE.format(path=tmp_path / "few.csv"))
    shipped.ok("schedule", "create", "-f", tmp_path / "schedule.yml")
    sign_in(browser, address, shipped)
    press(browser, "Schedules")
    press(browser, "nightly")
    press(browser, "Enable")
    eventually(lambda: shipped.json("schedule", "show", "-n", "nightly")["is_enabled"])
    press(browser, "Trigger now")
    eventually(lambda: "/jobs/" in browser.current_url)
    eventually(lambda: state(browser) == "completed")
    press(browser, "nightly")
    assert "started" in browser.find_element(By.TAG_NAME, "main").text


def test_a_long_log_is_scrolled_through_and_followed_and_runs_nothing(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    (tmp_path / "long.csv").write_text("id,amount\n" + "".join(f"k{row},{row}\n" for row in range(10_000)))
    job = shipped.json("endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "long.csv")["name"]
    sign_in(browser, address, shipped)
    browser.get(f"{address}/jobs/{job}")
    eventually(lambda: state(browser) == "running")
    eventually(lambda: rows_of(browser, "#job_plots svg"))  # they come while it goes on
    log = Path(shipped.json("job", "show", "-n", job)["folder"]) / "logs" / "user" / "printed.txt"
    log.write_text("".join(f"line {at} <script>document.title = 'taken'</script>\n" for at in range(60_000)))

    browser.get(f"{address}/jobs/{job}/logs/logs/user/printed.txt")
    shown = "return document.querySelector('pre.log').textContent"
    assert "line 59999 " in script(browser, shown)
    assert "line 0 " not in script(browser, shown)
    eventually(
        lambda: (
            script(browser, "document.querySelector('pre.log').scrollTop = 0") or "line 0 " in script(browser, shown)
        )
    )
    assert len(script(browser, shown)) < 2_000_000  # what is far away was let go of
    bottom = "const log = document.querySelector('pre.log'); log.scrollTop = log.scrollHeight"
    eventually(lambda: script(browser, bottom) or "line 59999 " in script(browser, shown))
    with log.open("a") as file:
        file.write("written now <img src=x onerror=\"document.title='taken'\">\n")
    eventually(lambda: "written now" in script(browser, shown))
    assert browser.title != "taken"
    assert not script(browser, "return document.querySelector('pre.log').children.length")

    browser.find_element(By.ID, "search").send_keys("line 31415")
    press(browser, "Search")
    eventually(lambda: rows_of(browser, ".hits li"))
    rows_of(browser, ".hits a")[0].click()
    eventually(lambda: script(browser, shown).startswith("line 31415 "))
    browser.get(f"{address}/jobs/{job}")
    press(browser, "Cancel")
    eventually(lambda: state(browser) == "canceled")
    press(browser, "Run again")
    eventually(lambda: browser.current_url.startswith(f"{address}/jobs/") and job not in browser.current_url)
    press(browser, "Cancel")


def test_no_page_keeps_anybody_out_in_light_and_in_dark(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    (tmp_path / "few.csv").write_text("id,amount\n1,-1\n2,2\n")
    job = shipped.json("endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "few.csv")["name"]
    shipped.wait(job)
    browser.get(address)
    pages = ["sign-in", "", "endpoints", "endpoints/amounts", "endpoints/amounts/invoke", "jobs", f"jobs/{job}", "none"]
    (tmp_path / "schedule.yml").write_text(SCHEDULE.format(path=tmp_path / "few.csv"))
    shipped.ok("schedule", "create", "-f", tmp_path / "schedule.yml")
    pages += ["schedules", "schedules/nightly", "assets/code", "assets/model", "datastores", "computes"]
    log = f"jobs/{job}/logs/logs/user/job_error.txt"
    pages += [log, f"{log}?search=below", f"jobs/{job}/errors", "jobs?search=none&sort=name"]
    (tmp_path / "pipeline.yml").write_text(PIPELINE)
    steps = shipped.json("job", "create", "-f", tmp_path / "pipeline.yml")["name"]
    shipped.wait(steps)
    pages.append(f"jobs/{steps}")
    for scheme in ("light", "dark"):
        colors(browser, scheme)
        for page in pages:
            browser.get(f"{address}/{page}".rstrip("/"))
            if page == "" and scheme == "light":
                sign_in(browser, address, shipped)
            assert serious_faults(browser) == [], f"{page} in {scheme}"
    browser.set_window_size(420, 900)  # a phone
    for page in ("jobs", f"jobs/{job}", f"jobs/{steps}"):
        browser.get(f"{address}/{page}")
        assert serious_faults(browser) == [], f"{page} on a phone"
        assert script(browser, "return document.documentElement.scrollWidth <= innerWidth"), page
    refused = [line["message"] for line in browser.get_log("browser") if "Content Security Policy" in line["message"]]
    assert refused == []
