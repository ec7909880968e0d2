"""The report as a reader sees it: one file, opened in a real browser without a network."""

import numpy as np
import pandas as pd
import pytest

from medbook.evaluation.report import evaluate

EVIL = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"


@pytest.fixture(scope="module", params=["binary", "multi-class", "multi-label"])
def report(request, tmp_path_factory):
    """A report of each task with everything in it and hostile names."""
    rng = np.random.default_rng(0)
    names = [
        EVIL,
        "a class with a name that goes on and on and does not end where one would expect it",
        "$c_3$",
    ] + list("defghijkl")
    if request.param == "binary":
        y = np.arange(120) % 4 // 3
        score = 1 / (1 + np.exp(-(rng.normal(size=120) + 2 * y - 1)))
        names = names[:2]
    elif request.param == "multi-class":
        y = rng.integers(12, size=240)
        score = np.exp(rng.normal(size=(240, 12)) + 2 * np.eye(12)[y])
        score /= score.sum(1, keepdims=True)
    else:
        y = rng.integers(2, size=(80, 5))
        score = 1 / (1 + np.exp(-(rng.normal(size=y.shape) + y)))
        names = names[:5]
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "loss": [1, 0.5, 0.3],
            "valid_loss": [1, 0.6, 0.5],
            "valid_auc": [0.5, 0.7, 0.8],
        }
    )
    groups = {
        "sex": np.arange(len(y)) % 2,
        "site " + EVIL: np.where(
            np.arange(len(y)) % 3, "a site with a very long name indeed", EVIL
        ),
    }
    return evaluate(
        y, score, classes=names, patients=np.arange(len(y)) // 2, groups=groups, resamples=50
    ).to_html(
        tmp_path_factory.mktemp("report") / "report.html",
        title="Report " + EVIL,
        notes=[EVIL, "w" * 300],
        settings={
            "data": EVIL,
            "model": {"name": "compact", "a_setting_with_a_name_that_is_long": "/a/" + "very" * 60},
        },
        history=history,
        images=rng.random((len(y), 28, 28)),
    )


@pytest.fixture
def visit(browser, report):
    """A function of the window's width that opens the report: (page, requests, console)."""
    contexts = []

    def open_at(width, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        requests = []
        console = []
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
    pictures = page.evaluate("""[...document.images].map(i => ({
        natural: [i.naturalWidth, i.naturalHeight], alt: i.alt,
        shown: [i.getBoundingClientRect().width, i.getBoundingClientRect().height]}))""")
    figures = page.locator(".figure img").count()
    assert figures >= 7 and 6 <= len(pictures) - figures <= 12
    for picture in pictures:
        assert min(picture["natural"]) > 0 and picture["alt"]
    for picture in pictures[:figures]:
        assert min(picture["shown"]) > 250
        ratio = picture["natural"][0] / picture["natural"][1]
        assert picture["shown"][0] / picture["shown"][1] == pytest.approx(ratio, rel=0.02)


def test_a_name_that_is_a_script_is_shown_and_does_not_run(visit):
    page, _, _ = visit(1280)
    assert page.title() == "Report " + EVIL
    assert page.evaluate("document.scripts.length") == 0 and page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator("h1").inner_text()


def test_the_checklists_open_by_keyboard(visit):
    page, _, _ = visit(1280)
    drafts = page.locator("table.draft")
    assert drafts.count() == 2 and not drafts.first.is_visible()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert (
        drafts.first.is_visible() and "to be completed by the authors" in drafts.first.inner_text()
    )


def test_the_first_tab_leads_to_the_numbers(visit):
    page, _, _ = visit(1280)
    assert page.locator(".skip").bounding_box()["x"] < 0
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.activeElement.className") == "skip"
        and page.locator(".skip").bounding_box()["x"] >= 0
    )
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "numbers"


@pytest.mark.parametrize("width", [1280, 390])
def test_what_a_screen_reader_needs_is_there(visit, width):
    """Language, one main part, headings in order, named tables with captions, unique names."""
    page, _, _ = visit(width)
    assert (
        page.evaluate("document.documentElement.lang") == "en"
        and page.evaluate("document.querySelectorAll('main').length") == 1
    )
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert (
        levels[0] == 1
        and levels.count(1) == 1
        and all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    )
    tables = page.evaluate("""[...document.querySelectorAll('table')].map(t => [
        !!t.querySelector('th[scope]'),
        !!t.getAttribute('aria-labelledby') || !!t.querySelector('caption'),
        [...t.querySelectorAll('th')].every(h => h.textContent.trim())])""")
    assert len(tables) == 5 and all(all(table) for table in tables)
    labels = page.evaluate("""[...document.querySelectorAll('[aria-labelledby]')].map(
        e => !!document.getElementById(e.getAttribute('aria-labelledby')))""")
    assert labels and all(labels)
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))
    tree = page.locator("body").aria_snapshot()
    for words in (
        'heading "All numbers"',
        'heading "Results by subgroup"',
        'columnheader "Metric"',
        "rowheader",
    ):
        assert words in tree, words


def test_each_cell_of_a_subgroup_keeps_its_name_on_a_phone(visit):
    page, _, _ = visit(390)
    cell = page.locator(".subgroups td").first
    assert "AUC" in cell.evaluate("e => getComputedStyle(e, '::before').content")
    assert page.locator(".subgroups caption").bounding_box()["width"] > 300


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(visit, scheme):
    """Contrast of 4.5 or more (WCAG 2, level AA) for the text colours on paper and wash."""
    page, _, _ = visit(1280, color_scheme=scheme)
    colours = page.evaluate("""(names => { const style = getComputedStyle(document.documentElement);
        return names.map(name => style.getPropertyValue(name).trim());
    })(['--ink', '--soft', '--blue', '--care', '--paper', '--wash'])""")

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
        rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    for text in colours[:4]:
        for paper in colours[4:]:
            light, dark = sorted(map(luminance, (text, paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, paper)


def test_print_opens_the_checklist(visit):
    page, _, _ = visit(1000)
    page.emulate_media(media="print")
    assert page.locator("table.draft").first.evaluate("e => e.getBoundingClientRect().height") > 100
    assert len(page.pdf()) > 10_000
