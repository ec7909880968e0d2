"""The report as a reader sees it: one file, opened in a real browser without a network."""
import shutil

import numpy as np
import pandas as pd
import pytest

from medbook.evaluation.report import evaluate

EVIL = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium for this file's tests."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("no chromium, chromium-browser or google-chrome is installed: run `make chromium`")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["binary", "multi-class", "multi-label"])
def report(request, tmp_path_factory):
    """A report of each task with everything in it and hostile names."""
    rng = np.random.default_rng(0)
    names = [EVIL, "a class with a name that goes on and on and does not end where one would expect it", "$c_3$"] + list("defghijkl")
    if request.param == "binary":
        y = np.arange(120) % 4 // 3
        score, names = 1 / (1 + np.exp(-(rng.normal(size=120) + 2 * y - 1))), names[:2]
    elif request.param == "multi-class":
        y = rng.integers(12, size=240)
        score = np.exp(rng.normal(size=(240, 12)) + 2 * np.eye(12)[y])
        score /= score.sum(1, keepdims=True)
    else:
        y = rng.integers(2, size=(80, 5))
        score, names = 1 / (1 + np.exp(-(rng.normal(size=y.shape) + y))), names[:5]
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1, 0.5, 0.3], "valid_loss": [1, 0.6, 0.5], "valid_auc": [0.5, 0.7, 0.8]})
    return evaluate(y, score, classes=names, patients=np.arange(len(y)) // 2, resamples=50).to_html(
        tmp_path_factory.mktemp("report") / "report.html", title="Report " + EVIL, notes=[EVIL, "w" * 300],
        settings={"data": EVIL, "model": {"name": "compact", "a_setting_with_a_name_that_is_long": "/a/" + "very" * 60}},
        history=history, images=[(f"{i} {EVIL}", rng.random((28, 28))) for i in range(5)])


@pytest.fixture
def visit(chromium, report):
    """A function of the window's width that opens the report and gives (page, requests, console)."""
    contexts = []

    def open_at(width, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page, requests, console = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(report.as_uri(), wait_until="load")
        return page, requests, console
    yield open_at
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_asks_nothing_of_the_network_and_scrolls_only_down(visit, report, width):
    page, requests, console = visit(width)
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert console == []
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = "e => e.getBoundingClientRect().right > innerWidth + 1"
    assert page.evaluate(f"[...document.querySelectorAll('body *')].filter({beyond}).length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_loaded_visible_and_told_in_words(visit, width):
    page, _, _ = visit(width)
    pictures = page.evaluate("""[...document.images].map(i => ({natural: [i.naturalWidth, i.naturalHeight], alt: i.alt,
        shown: [i.getBoundingClientRect().width, i.getBoundingClientRect().height]}))""")
    assert len(pictures) == 6 + 5
    for picture in pictures:
        assert min(picture["natural"]) > 0 and picture["alt"]
    for picture in pictures[:6]:
        assert min(picture["shown"]) > 250
        ratio = picture["natural"][0] / picture["natural"][1]
        assert picture["shown"][0] / picture["shown"][1] == pytest.approx(ratio, rel=0.02)


def test_a_name_that_is_a_script_is_shown_and_does_not_run(visit):
    page, _, _ = visit(1280)
    assert page.title() == "Report " + EVIL
    assert page.evaluate("document.scripts.length") == 0 and page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator("h1").inner_text()


def test_the_checklist_opens_and_the_tables_have_headers(visit):
    page, _, _ = visit(1280)
    assert not page.locator("table.draft").is_visible()
    page.locator("summary").click()
    assert page.locator("table.draft").is_visible() and "to be completed" in page.locator("table.draft").inner_text()
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.querySelector('th[scope]'))")
    assert page.evaluate("document.documentElement.lang") == "en"
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(visit, scheme):
    """Contrast of 4.5 or more (WCAG 2, level AA) for the page's text colours on its paper and wash."""
    page, _, _ = visit(1280, color_scheme=scheme)
    colours = page.evaluate("""(names => { const style = getComputedStyle(document.documentElement);
        return names.map(name => style.getPropertyValue(name).trim()); })(['--ink', '--soft', '--blue', '--care', '--paper', '--wash'])""")

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
        rgb = np.array([int(digits[i:i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    for text in colours[:4]:
        for paper in colours[4:]:
            light, dark = sorted(map(luminance, (text, paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, paper)


def test_print_opens_the_checklist(visit):
    page, _, _ = visit(1000)
    page.emulate_media(media="print")
    assert page.locator("table.draft").evaluate("e => e.getBoundingClientRect().height") > 100
    assert len(page.pdf()) > 10_000
