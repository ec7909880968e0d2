"""`CurveExplorer` in a real browser: its arithmetic, its panels, JupyterLab and Voila."""

import base64
import itertools
import re

import numpy as np
import pytest

from medbook.evaluation.interactive import CurveExplorer, curve_point, score_steps
from tests.browser import Watch, shown

FILMS = """import numpy as np
rng = np.random.default_rng(1)
ill = rng.random(400) < 0.3
marks = np.round(rng.normal(1.5 * ill), 1)
score = 1 / (1 + np.exp(-(1.5 * marks - 1.125 + np.log(3 / 7))))
"""
CELL = (
    FILMS
    + """import ipywidgets
from medbook.evaluation.interactive import CurveExplorer
names = ("clear", "tuberculosis")
explorer = CurveExplorer(ill, score, threshold=0.3, classes=names, title="films")
told, button = ipywidgets.Label("python: none"), ipywidgets.Button(description="from Python")
names = ["threshold", "prevalence", "ratio", "corrected"]

def tell(_):
    told.value = "python: " + repr([getattr(explorer, name) for name in names])

explorer.observe(tell, names)
button.on_click(lambda _: explorer.set_trait("threshold", 0.7))"""
)
COUNTS = ("tp", "fp", "fn", "tn")
RATES = ("sensitivity", "specificity", "ppv", "npv", "f1", "net_benefit")
ALONE = """async ([script, style, values, bytes]) => {
    const sheet = document.head.appendChild(document.createElement('style'));
    sheet.textContent = style;
    window.curves = await import(`data:text/javascript;base64,${script}`);
    const bytesOf = text => Uint8Array.from(atob(text), one => one.charCodeAt(0));
    const unpacked = text => new DataView(bytesOf(text).buffer);
    for (const [name, text] of Object.entries(bytes)) values[name] = unpacked(text);
    window.saved = [];
    const { saved } = window;
    const save_changes = () => {
        saved.push({ threshold: values.threshold, prevalence: values.prevalence });
    };
    const set = (name, value) => { values[name] = value; };
    const model = { get: name => values[name], set, on() {}, off() {}, save_changes };
    const el = document.body.appendChild(document.createElement('div'));
    window.end = window.curves.default.render({ model, el });
}"""
COMPUTE = """([scores, ill, healthy, trainedOn, edges, asked]) => {
    const { prepare, priorOf, shifted, point, averagePrecision, reliability } = window.curves;
    const steps = prepare({ scores: Float64Array.from(scores), ill, healthy, trainedOn, edges });
    return asked.map(state => {
        const now = shifted(steps, priorOf(steps, state)), share = state.prevalence ?? steps.own;
        const { mean, ece } = reliability(steps, now, share);
        const average_precision = averagePrecision(steps, share), auc = steps.area;
        const all = { ...point(steps, now, state), auc, average_precision, mean_score: mean, ece };
        const told = ([name, value]) => [name, Number.isNaN(value) ? null : value];
        return Object.fromEntries(Object.entries(all).map(told));
    });
}"""


def films():
    """The labels and scores that the notebook makes."""
    made = {}
    exec(FILMS, made)
    return made["ill"], made["score"]


def alone(browser, explorer, width=1080, height=800):
    """The explorer on an empty page, without a notebook: (page, `Watch`)."""
    page = browser.new_page(viewport={"width": width, "height": height})
    watch = Watch()
    watch.follow(page)
    page.set_content("<!doctype html><body style='margin: 8px'></body>")
    values = {
        name: getattr(explorer, name)
        for name in ("threshold", "prevalence", "ratio", "corrected", "_facts")
    }
    sent = {
        name: base64.b64encode(getattr(explorer, name)).decode()
        for name in ("_scores", "_ill", "_healthy")
    }
    page.evaluate(
        ALONE, [base64.b64encode(explorer._esm.encode()).decode(), explorer._css, values, sent]
    )
    return page, watch


def markers():
    """A measured marker, in 32 bits: the labels and the scores."""
    rng = np.random.default_rng(1)
    ill = rng.random(400) < 0.3
    return ill, np.round(rng.normal(4 + 2.5 * ill, 1.5), 1).astype("float32")


def settings_of(steps, rng):
    """Many settings: round ones, random ones, and thresholds exactly at scores."""
    ties = steps.scores[:: max(1, len(steps.scores) // 5)].tolist()
    asked = itertools.product(
        [0.0, 0.5, 1.0, rng.random()],
        [None, 0.001, 0.3, 0.999],
        [None, 1.0, 0.02, 400.0],
        [False, True],
    )
    chosen = rng.choice(np.array([*asked], object), 40, replace=False).tolist()
    asked = [
        *chosen,
        *((t, None, None, False) for t in ties),
        (1.0, 0.999, 400.0, False),
        (0.0, 0.001, 0.02, True),
    ]
    return [
        dict(zip(("threshold", "prevalence", "ratio", "corrected"), each, strict=True))
        for each in asked
    ]


def the_same(page, truth, score, rng, trained_on=None):
    """The browser's numbers at many settings are Python's."""
    steps = score_steps(truth, score)
    asked = settings_of(steps, rng)
    given = [
        steps.scores.tolist(),
        steps.ill.tolist(),
        steps.healthy.tolist(),
        trained_on,
        np.linspace(0, 1, 11).tolist(),
        asked,
    ]
    for setting, found in zip(asked, page.evaluate(COMPUTE, given), strict=True):
        expected = curve_point(steps, **setting, trained_on=trained_on)
        for name, value in found.items():
            if value is None:
                assert np.isnan(expected[name]), (name, setting)
            else:
                assert value == pytest.approx(expected[name], abs=1e-10, rel=1e-9), (name, setting)


def test_the_browsers_arithmetic_is_pythons(browser):
    page, watch = alone(browser, CurveExplorer([0, 1], [0.2, 0.7]))
    rng = np.random.default_rng(4)
    the_same(page, *films(), rng)
    the_same(page, *films(), rng, trained_on=0.5)
    the_same(page, [0, 1], [0.2, 0.7], rng)
    the_same(page, [0, 1, 1], [0.5, 0.5, 0.5], rng)
    the_same(page, [1, 0, 0, 0], [0.0, 1.0, 0.9, 0.1], rng)
    the_same(page, rng.random(60) < 0.5, rng.integers(0, 11, 60) / 10, rng)
    watch.check()
    page.close()


def numbers(page):
    """The numbers on the page, by name."""
    return {
        name: page.locator(f"[data-number={name}]").inner_text().replace("−", "-")
        for name in COUNTS + RATES
    }


def agree(page, **setting):
    """The page shows what Python finds for the films."""
    expected = curve_point(score_steps(*films()), **setting)
    shown_ = numbers(page)
    assert {name: int(shown_[name]) for name in COUNTS} == {name: expected[name] for name in COUNTS}
    for name in RATES:
        assert (
            shown_[name] == "–"
            if np.isnan(expected[name])
            else abs(float(shown_[name]) - expected[name]) < 0.00051
        ), (name, setting)
    gain = expected["net_benefit"] / expected["prevalence"]
    head = page.locator(".mbc-benefit .value").text_content()
    shown_gain = head.replace("here ", "").replace(" ↓", "").replace("−", "-").replace("–", "nan")
    assert float(shown_gain) == pytest.approx(gain, rel=0.006, abs=0.0006, nan_ok=True)
    assert (
        page.locator(".mbc-benefit .below").is_visible() == head.endswith("↓") == bool(gain < -0.26)
    )


def heads(page):
    """The numbers beside the panels' titles."""
    return page.locator(".mbc-panel .value").all_text_contents()


def slide(page, steps):
    """Move the threshold's slider by `steps` thousandths, faster than a rest."""
    page.get_by_role("slider", name="threshold").evaluate(
        """(slider, steps) => {
        for (let step = 0; step < steps; step++) {
            slider.stepUp();
            slider.dispatchEvent(new Event('input'));
        }
    }""",
        steps,
    )


def paths(page):
    """The curves of the panels, by panel."""
    drawn = "all => all.map(one => one.getAttribute('d')).join('|')"
    names = ("scores", "roc", "pr", "values", "benefit", "reliability")
    return {
        name: page.locator(f".mbc-{name} path:is(.curve, .area)").evaluate_all(drawn)
        for name in names
    }


def changed(page, before):
    """Names of the panels whose curves are no longer as `before`."""
    page.wait_for_timeout(60)
    return {name for name, path in paths(page).items() if path != before[name]}


def test_what_moves_and_what_stays_on_the_page(browser):
    page, watch = alone(browser, CurveExplorer(*films(), threshold=0.3))
    agree(page, threshold=0.3)
    before = paths(page)
    page.get_by_role("slider", name="threshold").press("PageUp")
    assert changed(page, before) == {"values"}
    agree(page, threshold=0.4)
    before = paths(page)
    prevalence = page.get_by_role("slider", name="prevalence", exact=True)
    prevalence.press("Home")
    assert changed(page, before) == {"pr", "benefit", "reliability"}
    agree(page, threshold=0.4, prevalence=0.00101)
    assert not page.locator(
        ".mbc-benefit circle"
    ).is_visible()  # off the scale: a triangle at the edge instead
    page.get_by_role("button", name="prevalence of these cases").press("Space")
    assert changed(page, before) == set() and prevalence.evaluate(
        "slider => slider === document.activeElement"
    )
    page.get_by_role("slider", name="training ratio").press("End")
    assert changed(page, before) == {"scores", "values", "benefit", "reliability"}
    agree(page, threshold=0.4, ratio=0.00101)
    page.get_by_role("checkbox", name="correct for the prevalence").check()
    assert changed(page, before) == set()
    before = heads(page)
    page.get_by_role("slider", name="training ratio").press("ArrowLeft")
    page.wait_for_timeout(60)
    assert heads(page) == before and page.get_by_role(
        "slider", name="training ratio"
    ).get_attribute("aria-valuetext").endswith("corrected")
    watch.check()
    page.close()


def test_a_typed_threshold_the_panels_and_rest(browser):
    page, watch = alone(browser, CurveExplorer(*films(), threshold=0.3))
    exact = page.get_by_role("spinbutton", name="threshold, exactly")
    tie = float(np.unique(films()[1])[20])
    for typed, expected, said in (
        (repr(tie), tie, ""),
        ("1.7", 1.0, "1.7 was taken as 1"),
        ("0.4", 0.4, ""),
        ("", 0.4, "stays at 0.4"),
        ("-3", 0.0, "was taken as 0"),
    ):
        exact.fill(typed)
        exact.press("Enter")
        page.wait_for_timeout(60)
        agree(page, threshold=expected)
        assert exact.input_value() == repr(expected).removesuffix(".0") and said in (
            told := page.locator(".mbc-note").inner_text()
        )
        assert bool(said) == bool(told)
    page.wait_for_timeout(300)
    told = page.evaluate("window.saved.length")
    slide(page, 12)
    page.wait_for_function("told => window.saved.length > told", arg=told)
    assert (
        page.evaluate("window.saved.slice(-1)[0].threshold") == 0.012
        and page.evaluate("window.saved.length") == told + 1
    )
    page.locator(".mbc-scores svg").click(position={"x": 200, "y": 80})
    page.locator(".mbc-values svg").click(position={"x": 80, "y": 80})
    page.wait_for_timeout(300)
    state = page.evaluate("window.saved.slice(-1)[0]")
    assert 0.4 < state["threshold"] < 0.7 and 0.0005 < state["prevalence"] < 0.05
    agree(page, threshold=state["threshold"], prevalence=state["prevalence"])
    words = page.locator(".mbc-words").inner_text()
    assert "treating" in words and page.locator(".mbc-words").get_attribute("aria-live") == "polite"
    page.evaluate("window.end()")
    watch.check()
    page.close()


@pytest.mark.parametrize("width", [1080, 680, 374])
def test_the_page_fits_and_is_told_to_those_who_do_not_see_it(browser, width):
    page, watch = alone(
        browser,
        CurveExplorer(*films(), classes=("clear", "tuberculosis"), title="films"),
        width=width,
    )
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    columns = page.locator(".mbc-body").evaluate(
        "body => getComputedStyle(body).gridTemplateColumns.split(' ').length"
    )
    assert columns == {1080: 3, 680: 2, 374: 1}[width]
    for panel in page.locator(".mbc-panel svg").all():
        box = panel.bounding_box()
        assert (
            box["width"] > 250
            and panel.get_attribute("role") == "img"
            and re.search(r"\d", panel.get_attribute("aria-label"))
        )
    for name in ("threshold", "prevalence", "training ratio"):
        slider = page.get_by_role("slider", name=name, exact=True)
        assert slider.get_attribute("aria-valuetext") and slider.bounding_box()["width"] > 150
    assert page.get_by_role("group", name="films").count() == 1
    page.locator(".mbc-reliability").scroll_into_view_if_needed()
    controls, last = (
        page.locator(name).bounding_box() for name in (".mbc-controls", ".mbc-reliability")
    )
    if width < 820:  # the sliders stay over the last panel
        assert (
            0 <= controls["y"]
            and controls["y"] + controls["height"] <= last["y"] + 1
            and last["y"] + last["height"] <= 800
        )
    watch.check()
    page.close()


def same_as_python(page, threshold, prevalence=None):
    """The page shows what Python finds for the markers."""
    expected = curve_point(score_steps(*markers()), threshold=threshold, prevalence=prevalence)
    found = {
        name: page.locator(f"[data-number={name}]").inner_text() for name in COUNTS + RATES[:5]
    }
    assert {name: int(found[name]) for name in COUNTS} == {name: expected[name] for name in COUNTS}
    for name in RATES[:5]:
        value = expected[name]
        assert found[name] == "–" if np.isnan(value) else abs(float(found[name]) - value) < 0.00051


@pytest.mark.timeout(300)
def test_scores_that_are_no_probabilities_have_their_own_range_and_four_panels(browser):
    explorer = CurveExplorer(*markers(), threshold=5.0, title="marker", classes=("no", "yes"))
    page, watch = alone(browser, explorer)
    assert page.locator(".mbc-panel").count() == 4
    for name in ("benefit", "reliability"):
        assert page.locator(f".mbc-{name}").count() == 0
    assert page.get_by_role("slider").count() == 2 and page.get_by_role("checkbox").count() == 0
    assert "no probabilities" in page.locator(".mbc-why").inner_text()
    same_as_python(page, 5.0)
    exact = page.get_by_role("spinbutton", name="threshold, exactly")
    ties = np.unique(markers()[1])[[20, 60]].tolist()
    short = [float(str(each)) for each in np.unique(markers()[1])[[20, 60]]]
    for threshold in (0, *ties, *short, np.nextafter(ties[1], 99).item(), -3.5, 99, 4.123456789):
        exact.fill(repr(threshold))
        exact.press("Enter")
        page.wait_for_timeout(60)
        same_as_python(page, threshold)
        assert float(exact.input_value()) == threshold
    slider = page.get_by_role("slider", name="threshold", exact=True)
    slider.press("End")
    page.wait_for_timeout(60)
    assert page.locator("[data-number=tp]").inner_text() == "0"
    slider.press("Home")
    page.wait_for_timeout(60)
    assert page.locator("[data-number=fn]").inner_text() == "0"
    slider.press("ArrowRight")
    page.wait_for_timeout(60)
    same_as_python(page, float(slider.input_value()))
    page.get_by_role("slider", name="prevalence", exact=True).press("Home")
    page.wait_for_timeout(300)
    same_as_python(
        page, float(exact.input_value()), page.evaluate("window.saved.at(-1).prevalence")
    )
    for panel in page.locator(".mbc-panel svg").all():
        assert re.search(r"\d", panel.get_attribute("aria-label"))
    assert "are predicted positive" in page.locator(".mbc-words").inner_text()
    assert "treating" not in page.locator(".mbc-words").inner_text()
    watch.check()
    page.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cases", [films, markers])
def test_a_click_on_the_roc_curve_takes_the_threshold_of_the_nearest_point(browser, cases):
    page, watch = alone(browser, CurveExplorer(*cases()))
    dot = page.locator(".mbc-roc .point")
    before = dot.get_attribute("cx"), dot.get_attribute("cy")
    box = page.locator(".mbc-roc svg").bounding_box()
    position = {"x": 0.3 * box["width"], "y": 0.3 * box["height"]}
    page.locator(".mbc-roc svg").click(position=position)
    page.wait_for_timeout(300)
    assert (dot.get_attribute("cx"), dot.get_attribute("cy")) != before
    threshold = page.evaluate("window.saved.at(-1).threshold")
    assert threshold in cases()[1].astype(float)
    wanted = curve_point(score_steps(*cases()), threshold=threshold)
    assert int(page.locator("[data-number=tp]").inner_text()) == wanted["tp"]
    watch.check()
    page.close()


@pytest.mark.timeout(300)
def test_a_hundred_thousand_cases_follow_at_once(browser):
    rng = np.random.default_rng(5)
    truth = rng.random(100_000) < 0.1
    page, watch = alone(
        browser, CurveExplorer(truth, np.clip(rng.normal(0.3 + 0.2 * truth, 0.1), 0, 1))
    )
    longest = max(
        page.locator(".mbc-panel path").evaluate_all(
            "all => all.map(one => one.getAttribute('d')?.length ?? 0)"
        )
    )
    assert 1_000 < longest < 40_000  # thinned for drawing, not for counting
    expected = curve_point(score_steps(truth, np.ones(100_000)), threshold=0.0)
    page.get_by_role("slider", name="threshold").press("Home")
    page.wait_for_timeout(100)
    assert int(numbers(page)["tp"]) == expected["tp"] == truth.sum()
    watch.check()
    page.close()


@pytest.mark.timeout(300)
def test_the_widget_in_jupyterlab(browser, servers):
    cells = [CELL + "\ndisplay(told, button, explorer)"]
    with shown(browser, servers("lab"), cells) as (page, watch):
        page.locator(".mbc-words").filter(has_text="people").wait_for(timeout=60_000)
        agree(page, threshold=0.3)
        asked = watch.asked
        slide(page, 10)
        page.get_by_text("python: [0.31, None, None, False]").wait_for(timeout=10_000)
        assert watch.asked == asked + 1  # told once, after a rest
        agree(page, threshold=0.31)
        page.get_by_role("checkbox", name="correct for the prevalence").check()
        page.get_by_text("python: [0.31, None, None, True]").wait_for(timeout=10_000)
        page.get_by_role("button", name="from Python").click()
        page.wait_for_function(
            "document.querySelector('[aria-label=\"threshold, exactly\"]').value === '0.7'",
            timeout=10_000,
        )
        agree(page, threshold=0.7, corrected=True)
        assert page.locator(".mbc-panel svg").count() == 6
        assert (
            page.locator(".mbc-numbers").bounding_box()["height"] < 60
        )  # in rows, whatever the front end's own style
        watch.check()


@pytest.mark.timeout(300)
def test_the_widget_in_voila(browser, servers):
    cells = [CELL + "\ndisplay(told, explorer)"]
    with shown(browser, servers("voila"), cells) as (page, watch):
        page.locator(".mbc-words").filter(has_text="people").wait_for(timeout=60_000)
        slide(page, 10)
        page.get_by_text("python: [0.31, None, None, False]").wait_for(timeout=10_000)
        agree(page, threshold=0.31)
        watch.check()
