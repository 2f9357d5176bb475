"""The index page in headless Chromium: pictures, links, no errors, and no sideways scrolling on a telephone."""

import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from paper_figures.__main__ import main
from tests.test_paper_figures import results as results  # the fixture

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
FLAGS += ("disable-component-update", "disable-sync", "disable-dev-shm-usage")
if os.environ.get("CI") != "true":
    pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def page(results):
    return main((), results)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def test_every_picture_loads_and_nothing_comes_from_elsewhere(browser, page):
    sizes = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    drawn = list(page.parent.glob("*.png"))
    assert len(sizes) == len(drawn) + 1  # and one of the theory
    assert all(complete and width > 0 and alt > 0 for complete, width, alt in sizes)
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert not [name for name in fetched if not name.startswith("data:")]


def test_every_link_leads_somewhere(browser):
    links = [a.get_attribute("href") for a in browser.find_elements(By.TAG_NAME, "a")]
    here = [urlparse(link) for link in links]
    assert sum(bool(link.fragment) for link in here) == 7  # a section each
    for link in here:
        assert link.scheme == "file"
        assert Path(unquote(link.path)).is_file(), link
        if link.fragment:
            assert browser.find_elements(By.ID, link.fragment), link


def test_no_errors_in_the_console(browser):
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scrolling(browser, width):
    for opened in (False, True):
        browser.execute_script(f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True},
        )
        inside = browser.execute_script("return [document.scrollingElement.scrollWidth, window.innerWidth]")
        assert inside[0] <= width + 1
        assert inside[1] == width


def test_it_says_what_was_measured_published_and_run(page):
    text = page.read_text(encoding="utf-8")
    for words in (
        "0.0123",  # a test metric
        "python -m experiments.correspondence --data heloc",
        "python -m paper_figures recovery-who-linear-w-L1",
        "0.0777",  # of what changed
        "a gap closes",  # a claim
        "undecidable here",  # of the table of claims
        "0.0231",  # published: LIME on HELOC's network A, bottom-k
        "separates all methods, whatever their neighbourhood, in ",
    ):
        assert words in text, words
