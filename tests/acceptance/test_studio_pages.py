"""A person looks around in the studio and puts things right, in a real browser: grid, plans, files, tokens."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait
from sklearn.dummy import DummyRegressor

from browser import colors, eventually, press, rows_of, script, serious_faults, sign_in, state
from shipped import Shipped

DEPLOYMENT = """
name: by-store
endpoint_name: sales
batchpoint:
  partition_keys: [store]
  model_map: {folder: models, file_pattern: "sales_{store}.pkl"}
  row_keys: false
  passthrough: [store]
"""
SCHEDULE = """
name: nightly
is_enabled: false
trigger: {{type: cron, expression: "0 2 * * *"}}
create_job:
  type: invoke
  endpoint_name: sales
  inputs: {{data: {{path: "{path}"}}}}
"""
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def address(shipped: Shipped, tmp_path: Path) -> str:
    """A server with a model for each of two stores, of which one is broken; and a schedule that is disabled."""
    (tmp_path / "models").mkdir()
    for store in ("east", "west"):
        model = DummyRegressor(strategy="constant", constant=10.0).fit([[0]], [0])
        (tmp_path / "models" / f"sales_{store}.pkl").write_bytes(pickle.dumps(model) if store == "east" else b"broken")
    (tmp_path / "days.csv").write_text("store,day\neast,1\nwest,1\neast,2\n")
    (tmp_path / "by-store.yml").write_text(DEPLOYMENT)
    (tmp_path / "schedule.yml").write_text(SCHEDULE.format(path=tmp_path / "days.csv"))
    shipped.ok("endpoint", "create", "-n", "sales")
    shipped.ok("deployment", "create", "-f", tmp_path / "by-store.yml", "--set-default", cwd=tmp_path)
    shipped.ok("schedule", "create", "-f", tmp_path / "schedule.yml")
    return f"{shipped.server()['url']}/studio"


def mend(shipped: Shipped, folder: Path) -> None:
    """Declare the deployment again, with a model in place of the broken one."""
    (folder / "models" / "sales_west.pkl").write_bytes((folder / "models" / "sales_east.pkl").read_bytes())
    shipped.ok("deployment", "create", "-f", folder / "by-store.yml", "--set-default", cwd=folder)


def cells(browser: WebDriver, store: str) -> list[str]:
    browser.refresh()
    line = f"//tr[th[contains(normalize-space(), 'store {store}')]]/td"
    return [cell.text for cell in browser.find_elements(By.XPATH, line)]


def choose(browser: WebDriver, name: str, number: int) -> None:
    rows_of(browser, f"input[name={name}]")[number].click()


def backfill(browser: WebDriver) -> None:
    before = browser.find_element(By.TAG_NAME, "html")
    press(browser, "Backfill")
    WebDriverWait(browser, 60).until(staleness_of(before))


def test_a_person_backfills_a_night_and_then_only_the_store_that_failed_in_it(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    sign_in(browser, address, shipped)
    press(browser, "Schedules")
    press(browser, "nightly")
    press(browser, "Grid and backfill")
    assert cells(browser, "east")[-2:] == ["missing", "missing"]
    choose(browser, "time", -1)
    backfill(browser)
    eventually(lambda: cells(browser, "east")[-2:] == ["missing", "done"])
    assert cells(browser, "west")[-2:] == ["missing", "failed"]

    mend(shipped, tmp_path)
    choose(browser, "time", -1)
    backfill(browser)
    eventually(lambda: cells(browser, "west")[-1] == "done")
    job = rows_of(browser, "tbody tr:last-child td:last-child a")[0]
    job.click()
    eventually(lambda: "/jobs/" in browser.current_url)
    name = browser.current_url.rpartition("/")[2]
    assert shipped.output(name).joinpath("predictions.csv").read_text().splitlines()[1:] == ["west,10.0"]

    press(browser, "a model for each key")
    assert "store west" in browser.find_element(By.TAG_NAME, "main").text
    assert "store east" not in browser.find_element(By.TAG_NAME, "main").text
    press(browser, "All jobs of sales / by-store")
    east = browser.find_element(By.XPATH, "//tr[td[normalize-space()='store east']]").text
    assert "2 0" in east  # rows and failures of the first job alone
    cells_shown = "[...document.querySelectorAll('main td')].map((cell) => getComputedStyle(cell).display)"
    assert set(script(browser, f"return {cells_shown}")) == {"table-cell"}  # nothing is printed over the next cell


def test_a_person_plans_a_job_before_creating_it(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    mend(shipped, tmp_path)
    sign_in(browser, address, shipped)
    browser.get(f"{address}/endpoints/sales/invoke")
    browser.find_element(By.ID, "upload").send_keys(str(tmp_path / "days.csv"))
    rows_of(browser, "form.fields summary")[0].click()
    browser.find_element(By.ID, "error_threshold").send_keys("5")
    press(browser, "Plan it first")
    eventually(lambda: "plan=" in browser.current_url)
    told = browser.find_element(By.ID, "plan").text
    assert "3 rows" in told
    assert "0.00 %" in told
    assert shipped.json("job", "list") == []
    press(browser, "Create job")
    eventually(lambda: "/jobs/" in browser.current_url)
    eventually(lambda: state(browser) == "completed")
    job = shipped.json("job", "show", "-n", browser.current_url.rpartition("/")[2])
    assert job["overrides"]["error_threshold"] == 5


def test_an_administrator_makes_a_token_that_somebody_signs_in_with_until_it_is_revoked(
    browser: WebDriver, address: str, shipped: Shipped
) -> None:
    sign_in(browser, address, shipped)
    press(browser, "Tokens")
    browser.find_element(By.ID, "name").send_keys("night")
    press(browser, "Create token")
    secret = browser.find_element(By.ID, "secret").text
    press(browser, "Tokens")
    browser.implicitly_wait(0)
    assert rows_of(browser, "#secret") == []
    browser.implicitly_wait(20)

    press(browser, "Sign out")
    browser.find_element(By.ID, "token").send_keys(secret)
    press(browser, "Sign in")
    assert "night (operator)" in browser.find_element(By.CSS_SELECTOR, ".who").text
    press(browser, "Sign out")
    browser.find_element(By.ID, "token")  # before that, the next address would cut it short

    sign_in(browser, address, shipped)
    press(browser, "Tokens")
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Revoke night']").click()
    browser.find_element(By.XPATH, "//main[contains(., 'revoked')]")
    press(browser, "Audit")
    assert "tokens.revoke" in browser.find_element(By.TAG_NAME, "main").text
    press(browser, "Sign out")
    browser.find_element(By.ID, "token").send_keys(secret)
    press(browser, "Sign in")
    assert "was revoked" in browser.find_element(By.CSS_SELECTOR, "[role=alert]").text


def test_a_person_looks_into_a_datastore_and_what_lies_there_is_never_run(
    browser: WebDriver, address: str, shipped: Shipped
) -> None:
    folder = shipped.home / "datastores" / "workspaceblobstore" / "looked-at"
    folder.mkdir(parents=True)
    hostile = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    (folder / "rows.csv").write_text(f"id,text\n1,{hostile}\n")
    (folder / "page.html").write_text(hostile)
    (folder / "pixel.png").write_bytes(PIXEL)
    (folder / "<img src=x onerror=1>.txt").write_text(hostile)
    sign_in(browser, address, shipped)
    press(browser, "Datastores")
    press(browser, "workspaceblobstore")
    press(browser, "looked-at/")
    files = f"{address}/datastores/workspaceblobstore/files/looked-at"
    for name in ("rows.csv", "page.html", "<img src=x onerror=1>.txt"):
        browser.get(files)
        browser.find_element(By.LINK_TEXT, name).click()
        assert hostile[:20] in browser.find_element(By.TAG_NAME, "main").text
        assert browser.title == f"{name} · Batchpoint"
    browser.get(f"{files}/pixel.png")
    eventually(lambda: script(browser, "return document.querySelector('.picture').naturalWidth") == 1)


def test_no_page_for_looking_around_keeps_anybody_out_in_light_and_in_dark(
    browser: WebDriver, address: str, shipped: Shipped, tmp_path: Path
) -> None:
    job = shipped.json("endpoint", "invoke", "-n", "sales", "--input", tmp_path / "days.csv")["name"]
    shipped.wait(job)
    folder = shipped.home / "datastores" / "workspaceblobstore" / "looked-at"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text("id,text\n" + "1,one\n" * 60)
    (folder / "pixel.png").write_bytes(PIXEL)
    looked_at = "datastores/workspaceblobstore/files"
    pages = ["", "endpoints/sales/deployments/by-store/models", f"jobs/{job}/models", "schedules/nightly/grid"]
    pages += [looked_at, *(f"{looked_at}/looked-at{path}" for path in ("", "/rows.csv", "/pixel.png"))]
    pages += ["endpoints/sales", "endpoints/sales/invoke", "tokens", "audit", "computes"]
    sign_in(browser, address, shipped)
    for scheme in ("light", "dark"):
        colors(browser, scheme)
        for page in pages:
            browser.get(f"{address}/{page}".rstrip("/"))
            assert serious_faults(browser) == [], f"{page} in {scheme}"
    refused = [line["message"] for line in browser.get_log("browser") if "Content Security Policy" in line["message"]]
    assert refused == []
