"""Pages of the studio that are open while things happen, in a real browser: they stay true, or say so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from browser import eventually, press, rows_of, script, serious_faults, sign_in, state
from shipped import Shipped

MORE_THAN_A_BROWSER_CONNECTS = 7
"""Of HTTP/1.1 a browser opens six connections to a host."""
DEPLOYMENT = """
name: slow
endpoint_name: amounts
code_configuration: {code: ./code, scoring_script: score.py}
settings: {mini_batch_size: 10}
batchpoint: {mini_batch_type: dataframe, split: rows}
"""


@pytest.fixture
def address(shipped: Shipped, tmp_path: Path) -> str:
    """A server with an endpoint that scores ten rows in half a second."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(
        "import time\n\n\ndef run(rows):\n    time.sleep(0.5)\n    return rows['amount']\n"
    )
    (tmp_path / "slow.yml").write_text(DEPLOYMENT)
    shipped.ok("endpoint", "create", "-n", "amounts")
    shipped.ok("deployment", "create", "-f", tmp_path / "slow.yml", "--set-default")
    return f"{shipped.server()['url']}/studio"


@pytest.fixture
def job(address: str, shipped: Shipped, tmp_path: Path) -> str:
    """A job that goes on for as long as a story."""
    (tmp_path / "long.csv").write_text("amount\n" + "".join(f"{row}\n" for row in range(20_000)))
    name = str(shipped.json("endpoint", "invoke", "-n", "amounts", "--input", tmp_path / "long.csv")["name"])
    eventually(lambda: shipped.json("job", "show", "-n", name)["status"].lower() == "running")
    return name


def bring_to_front(browser: WebDriver, tab: str) -> None:
    """What a click on a tab does; the others are hidden then."""
    browser.switch_to.window(tab)
    browser.execute_cdp_cmd("Page.bringToFront", {})  # type: ignore[no-untyped-call, attr-defined]  # Chrome's own


def is_told_no_longer_live(browser: WebDriver) -> bool:
    return any("No longer live, as of 20" in line.text for line in rows_of(browser, "[role=status]"))


def test_many_open_pages_of_running_jobs_leave_the_studio_usable_and_each_is_live_when_it_is_looked_at(
    browser: WebDriver, address: str, shipped: Shipped, job: str
) -> None:
    sign_in(browser, address, shipped)
    browser.set_page_load_timeout(20)
    first = browser.current_window_handle
    browser.get(f"{address}/jobs/{job}")
    for _ in range(MORE_THAN_A_BROWSER_CONNECTS):
        browser.switch_to.new_window("tab")
        browser.get(f"{address}/jobs/{job}")
    press(browser, "Cancel")
    eventually(lambda: state(browser) == "canceled")
    bring_to_front(browser, first)
    eventually(lambda: state(browser) == "canceled")


def test_what_somebody_selects_or_has_the_focus_in_is_kept_and_catches_up_afterwards(
    browser: WebDriver, address: str, shipped: Shipped, job: str
) -> None:
    sign_in(browser, address, shipped)
    browser.get(f"{address}/jobs/{job}")
    eventually(lambda: rows_of(browser, "#job_state .numbers") and rows_of(browser, "#job_plots .plot"))
    script(browser, "document.getSelection().selectAllChildren(document.querySelector('#job_state .numbers'))")
    script(browser, "document.querySelector('#job_plots .plot').focus()")
    shipped.ok("job", "cancel", "-n", job)
    shipped.wait(job)
    eventually(lambda: not script(browser, "return document.querySelector('[data-action=cancel]:not([hidden])')"))
    assert state(browser) == "running"
    assert script(browser, "return document.activeElement.matches('#job_plots .plot')")

    script(browser, "document.getSelection().removeAllRanges()")
    eventually(lambda: state(browser) == "canceled")
    assert "How it goes on" in browser.find_element(By.ID, "job_plots").text
    script(browser, "document.activeElement.blur()")
    eventually(lambda: "How it went" in browser.find_element(By.ID, "job_plots").text)


def test_pages_whose_reader_was_locked_out_say_that_they_are_no_longer_live_and_ask_no_more(
    browser: WebDriver, address: str, shipped: Shipped, job: str
) -> None:
    secret = shipped.json("token", "create", "-n", "guest", "--role", "reader")["secret"]
    log = Path(shipped.json("job", "show", "-n", job)["folder"]) / "logs" / "user" / "printed.txt"
    log.write_text("one line\n")
    browser.get(f"{address}/jobs/{job}")
    browser.find_element(By.ID, "token").send_keys(secret)
    press(browser, "Sign in")
    browser.find_element(By.CSS_SELECTOR, ".state .running")
    shown = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(f"{address}/jobs/{job}/logs/logs/user/printed.txt")
    log.write_text("one line\nanother line\n")
    eventually(lambda: "another line" in browser.find_element(By.CSS_SELECTOR, "pre.log").text)
    assert not is_told_no_longer_live(browser)

    shipped.ok("token", "revoke", "-n", "guest", "--yes")
    eventually(lambda: is_told_no_longer_live(browser))
    asked = "return performance.getEntriesByType('resource').filter(one => /tail|sign-in/.test(one.name)).length"
    time.sleep(3)  # once more it asks, as after any broken connection
    before = script(browser, asked)
    time.sleep(3)
    assert script(browser, asked) == before
    bring_to_front(browser, shown)
    eventually(lambda: is_told_no_longer_live(browser))
    assert serious_faults(browser) == []
    press(browser, "Reload")
    browser.find_element(By.ID, "token")


def test_a_log_that_is_followed_from_further_up_holds_a_bounded_part_of_it(
    browser: WebDriver, address: str, shipped: Shipped, job: str
) -> None:
    log = Path(shipped.json("job", "show", "-n", job)["folder"]) / "logs" / "user" / "printed.txt"
    log.write_text("".join(f"line {at}\n" for at in range(5_000)))
    sign_in(browser, address, shipped)
    browser.get(f"{address}/jobs/{job}/logs/logs/user/printed.txt")
    script(browser, "const log = document.querySelector('pre.log'); log.scrollTop = log.scrollHeight / 2")
    shown = "return document.querySelector('pre.log').textContent"
    with log.open("a") as file:
        for part in range(40):  # 4 MB
            file.write("".join(f"part {part} {'x' * 90}\n" for _ in range(1_000)))
    offered = "return document.querySelector('[data-to-end]:not([hidden])') !== null"
    eventually(lambda: script(browser, offered))
    assert "line 2500\n" in script(browser, shown)  # where its reader is
    assert len(script(browser, shown)) < 2_000_000

    bottom = "const log = document.querySelector('pre.log'); log.scrollTop = log.scrollHeight"
    eventually(lambda: script(browser, bottom) or script(browser, shown).rstrip("x\n").endswith("part 39 "))
    # What was fetched or sent meanwhile lies below again, until he is there too.
    eventually(lambda: script(browser, bottom) or not script(browser, offered))
    with log.open("a") as file:
        file.write("written now\n")
    eventually(lambda: "written now" in script(browser, shown))  # it is followed again, by itself
    assert len(script(browser, shown)) < 2_000_000


def test_home_shows_what_begins_while_it_is_open(browser: WebDriver, address: str, shipped: Shipped, job: str) -> None:
    sign_in(browser, address, shipped)
    script(browser, "window.isTheSame = true")
    assert job in browser.find_element(By.ID, "home_at_work").text
    shipped.ok("job", "cancel", "-n", job)
    eventually(lambda: "No job is queued or running." in browser.find_element(By.ID, "home_at_work").text)
    assert job in browser.find_element(By.ID, "home_ended").text
    assert script(browser, "return window.isTheSame") is True
