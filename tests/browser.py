"""A real browser for tests: Chromium without a window. `.ci/setup browser` installs it, and axe."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from shipped import Shipped

AXE = Path(__file__).resolve().parent.parent / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = {"serious", "critical"}


@contextmanager
def browsing(*, downloads: Path) -> Iterator[WebDriver]:
    """A browser with a fresh profile; what it saves goes to a folder.

    Without Chromium the tests are skipped at home, and fail where ``CI`` is true.
    """
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None or not AXE.exists():
        reason = "Chromium, its driver or axe is not installed: .ci/setup browser does it as root."
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium has none for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.implicitly_wait(20)  # a click returns before the next page is there
    try:
        yield browser
    finally:
        browser.quit()


def colors(browser: WebDriver, scheme: str) -> None:
    """Ask pages for their ``light`` or ``dark`` form."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})  # type: ignore[no-untyped-call, attr-defined]  # Chrome's own


def serious_faults(browser: WebDriver) -> list[str]:
    """What axe finds on the page that would keep somebody from using it."""
    browser.execute_script(AXE.read_text())  # type: ignore[no-untyped-call]  # selenium's types
    found: dict[str, Any] = browser.execute_async_script(  # type: ignore[no-untyped-call]  # the same
        "const done = arguments[arguments.length - 1]; axe.run().then(done)"
    )
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'] for node in fault['nodes']]}"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]


def sign_in(browser: WebDriver, address: str, shipped: Shipped) -> None:
    """Sign in to the studio with the token of the home."""
    browser.get(address)
    browser.find_element(By.ID, "token").send_keys(shipped.server()["token"])
    press(browser, "Sign in")
    eventually(lambda: browser.current_url == address)


def press(browser: WebDriver, text: str) -> None:
    """Click the button or link of that text."""
    browser.find_element(By.XPATH, f"//button[normalize-space()='{text}'] | //a[normalize-space()='{text}']").click()


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def script(browser: WebDriver, text: str) -> Any:
    """What a line of JavaScript answers in the page."""
    return browser.execute_script(text)  # type: ignore[no-untyped-call]  # selenium's types


def state(browser: WebDriver) -> str:
    """The word for the state of the job that is shown."""
    # In one go: the page replaces the element whenever something happens.
    return str(script(browser, "return document.querySelector('.state .status').textContent"))


def rows_of(browser: WebDriver, selector: str) -> list[WebElement]:
    """The elements of a CSS selector."""
    return browser.find_elements(By.CSS_SELECTOR, selector)
