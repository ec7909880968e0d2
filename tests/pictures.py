"""Take the README's pictures in headless Chromium:
`python -m tests.pictures REPORT.html` writes them to nbs/pictures."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "nbs" / "pictures"


@contextlib.contextmanager
def chromium():
    """A headless Chromium, the one that the system has."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def lab():
    """JupyterLab on the book, as `medbook lab` starts it; yields its address with the token."""
    command = [sys.executable, "-m", "medbook", "lab", "--no-browser", "--port=0", "--allow-root"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = next(
            found[0]
            for line in process.stdout
            if (found := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", line))
        )
        yield address
    finally:
        process.terminate()
        process.wait()


def open_notebook(browser, address, path, *, width=1280, height=900):
    """The page of JupyterLab with the notebook at `path` open and shown alone."""
    base, token = address.split("/lab?")
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(f"{base}/doc/tree/{path}?{token}")
    page.wait_for_selector(".jp-Notebook .jp-RenderedMarkdown h1", timeout=60_000)
    page.wait_for_function(
        "document.querySelectorAll('.jp-RenderedImage img').length > 0", timeout=60_000
    )
    return page


EXPLORER = [
    """from medbook.images.phantoms import chest_radiograph
from medbook.images.preprocess import normalise
from medbook.inspection import FeatureExplorer, example_network

phantom = chest_radiograph(1003, nodules=1, seed=1003)
image = normalise(phantom.image, (0.5, 99.5))""",
    """FeatureExplorer(example_network(), image, classes=["normal", "nodule"])""",
]


def explorer(browser):
    """The explorer in JupyterLab with the second convolution chosen,
    the pointer on a pixel of its fourth map."""
    from tests.browser import desk, shown

    with (
        desk("lab") as server,
        shown(browser, server, EXPLORER, width=1280, height=900) as (page, _),
    ):
        page.locator(".mbx-layer", has_text="conv2d_1").first.click()
        page.wait_for_timeout(500)
        page.locator(".mbx-maps canvas").hover(position={"x": 252, "y": 45})
        page.wait_for_timeout(2500)
        page.locator(".medbook-explorer").screenshot(path=PICTURES / "explorer.png")


CURVES = [
    """import numpy as np

from medbook.evaluation import CurveExplorer

rng = np.random.default_rng(0)
ill = (rng.random(800) < 0.3).astype(int)""",
    """CurveExplorer(ill, 1 / (1 + np.exp(-rng.normal(2 * ill - 1.5))), threshold=0.3)""",
]


def curves(browser):
    """The curves that follow threshold, prevalence and class ratio, in JupyterLab."""
    from tests.browser import desk, shown

    with desk("lab") as server, shown(browser, server, CURVES, width=1280, height=900) as (page, _):
        page.wait_for_timeout(1500)
        page.locator(".mbc-root").screenshot(path=PICTURES / "curves.png")


def main(report):
    PICTURES.mkdir(exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 820})
        page.goto(Path(report).resolve().as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURES / "report.png")
        explorer(browser)
        curves(browser)
        with lab() as address:
            page = open_notebook(
                browser, address, "1_images/19_phantoms.ipynb", width=1100, height=820
            )
            page.locator(".jp-RenderedImage img").nth(1).scroll_into_view_if_needed()
            page.wait_for_timeout(3000)
            page.screenshot(path=PICTURES / "notebook.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
