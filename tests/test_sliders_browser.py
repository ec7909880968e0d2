"""The sliders of part 2 in a real JupyterLab and a real browser:
every cell runs in a fresh kernel, and each slider moves its picture."""

import re
import shutil

import nbformat
import pytest

from tests.browser import READY
from tests.run_notebooks import ROOT

CHAPTERS = sorted(
    path
    for path in (ROOT / "nbs" / "2_foundations").glob("*.ipynb")
    if "widgets.interact" in path.read_text(encoding="utf-8")
)
OUTPUT = "xpath=ancestor::*[contains(@class, 'jp-OutputArea')][1]"
CHANGED = "([image, before]) => !image.isConnected || image.src !== before"


@pytest.fixture
def page(request, browser, servers):
    """A chapter, copied to the server's folder and open in JupyterLab."""
    desk, path = servers("lab"), request.param
    shutil.copy(path, desk.folder)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(desk.url(path.name))
    yield page
    page.close()


def sliders_of(path):
    """How many sliders a notebook's source makes."""
    code = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
    )
    return len(re.findall(r"widgets\.(?:Int|Float|FloatLog|Selection)Slider\(", code))


def run_all(page):
    """Run every cell; return when the last one has run."""
    page.wait_for_function(READY, timeout=120_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.jp-CodeCell').length > 5", timeout=60_000)
    page.wait_for_selector(
        ".jp-Notebook-ExecutionIndicator[data-status='busy']", timeout=60_000, state="attached"
    )
    page.wait_for_selector(
        ".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=240_000, state="attached"
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page, path",
    [(path, path) for path in CHAPTERS],
    indirect=["page"],
    ids=[path.stem for path in CHAPTERS],
)
def test_every_slider_moves_its_picture(page, path):
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page)
    for kind in ("error", "stderr"):
        assert page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']").count() == 0
    handles = page.locator(".jp-OutputArea .noUi-handle")
    assert handles.count() >= sliders_of(path) > 0
    for place in range(handles.count()):
        handle = handles.nth(place)
        picture = (
            handle.locator(OUTPUT)
            .locator(".widget-output img, .jupyter-widgets-output-area img")
            .first
        )
        handle.scroll_into_view_if_needed()
        before = picture.get_attribute("src", timeout=30_000)
        at = float(handle.get_attribute("aria-valuenow"))
        handle.press(
            "ArrowLeft" if at >= float(handle.get_attribute("aria-valuemax")) else "ArrowRight"
        )
        page.wait_for_function(CHANGED, arg=[picture.element_handle(), before], timeout=30_000)
        assert picture.get_attribute("src", timeout=30_000) != before
    assert faults == []
