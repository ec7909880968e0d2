"""The report's page: text, pictures, worst errors and checklists."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from medbook.evaluation import page
from medbook.evaluation.inputs import check_predictions
from medbook.evaluation.report import evaluate
from tests.studies import EXAMPLES, FAST, several_classes, several_labels, two_classes

Y, S = two_classes(20)


def test_mistakes_are_wrong_and_sorted_by_certainty():
    y, score = two_classes()
    rows = evaluate(y, score, classes=["no", "yes"], **FAST).mistakes(5)
    assert len(rows) == 5 and (rows.true != rows.predicted).all()
    assert (np.diff((rows.score - 0.5).abs()) <= 0).all()
    assert ((score >= 0.5) != y).sum() >= 5 and (rows.score == score[rows.row]).all()


def test_mistakes_find_missed_cases_also_at_a_low_threshold():
    y, score = two_classes(600, prevalence=0.3)
    kinds = (
        evaluate(y, score, threshold=0.3, classes=["no", "yes"], **FAST)
        .mistakes(12)
        .predicted.value_counts()
    )
    assert kinds["no"] > 1 and kinds["yes"] > 1


def test_mistakes_of_several_labels_are_wrong_and_named():
    y, score = several_labels()
    result = evaluate(y, score, classes=["a", "b", "c"], **FAST)
    for row in result.mistakes(8).itertuples():
        k = "abc".index(row.true[-1])
        assert y[row.row, k] == (not row.true.startswith("no ")) and row.score == score[row.row, k]
        assert (score[row.row, k] >= 0.5) != y[row.row, k]


@pytest.mark.parametrize("task", EXAMPLES)
def test_html_escapes_what_users_write_and_asks_nothing_of_the_network(task, tmp_path):
    y, score = EXAMPLES[task]()
    evil = "<script>alert('x')</script>"
    classes = [evil, "$x_1$ & \\frac", "third"][: 2 if task == "binary" else 3]
    html = (
        evaluate(y, score, classes=classes, **FAST)
        .to_html(
            tmp_path / "report.html",
            title=evil,
            notes=[evil],
            settings={evil: {evil: [evil]}},
            images={evil: np.zeros((4, 4))},
            history=pd.DataFrame(
                {
                    "epoch": [1, 2],
                    "loss": [1.0, math.nan],
                    "valid_loss": [1.0, 0.9],
                    evil: [1, 2],
                    "valid_" + evil: [1, 2],
                }
            ),
        )
        .read_text()
    )
    assert "<script" not in html and "&lt;script&gt;" in html
    outside = [
        link
        for link in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s]+)", html)
        if not link.startswith(("data:", "#"))
    ]
    assert not outside and "http:" not in html and "https:" not in html
    assert (
        html.startswith("<!doctype html>")
        and '<html lang="en">' in html
        and "not for diagnosis" in html
    )
    assert (
        html.count("<img") == html.count("alt=") == 7 + (task == "binary")
    )  # five figures (or six), the learning curve, one image


def test_html_shows_the_numbers_the_notes_and_what_is_left_to_the_authors(tmp_path):
    y, score = two_classes()
    result = evaluate(y, score, **FAST)
    settings = {"split": "by patient", "model": {"name": "compact"}}
    html = result.to_html(tmp_path / "r.html", notes="One sentence.", settings=settings).read_text()
    assert (
        f"{result['auc'].value:.3f}" in html
        and f"{result['auc'].low:.3f} to {result['auc'].high:.3f}" in html
    )
    assert "<li>One sentence.</li>" in html and "to be completed by the authors" in html
    assert "split: by patient" in html and "model.name: compact" in html
    assert "No patients were named" in html and "Learning curve" not in html


def test_html_of_an_undefined_number_shows_a_dash_and_the_reason(tmp_path):
    html = evaluate([0, 0, 0], [0.1, 0.2, 0.3], **FAST).to_html(tmp_path / "r.html").read_text()
    assert (
        "undefined: cases of one class only" in html
        and "nan" not in re.sub(r"data:[^\"]*", "", html).lower()
    )


def test_html_takes_odd_histories(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "figure_kinds", lambda p: [])
    result = evaluate(Y, S, **FAST)
    for columns in ({}, {"epoch": [1]}, {"loss": [0.5]}, {"epoch": [1], "val_loss": [0.3]}):
        history = pd.DataFrame(columns)
        html = result.to_html(tmp_path / "r.html", history=history).read_text()
        assert ("Learning curve" in html) == ("loss" in " ".join(history.columns))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 4), np.uint8),
        np.ones((3, 4, 1)),
        np.full((3, 4, 3), 0.5, np.float32),
        np.full((3, 4), np.nan),
    ],
)
def test_images_become_png_of_their_own_size(image):
    import base64
    import io

    from matplotlib.image import imread

    source = page._image_url(image)
    pixels = imread(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert pixels.shape[:2] == (3, 4)
    assert pixels.ravel()[0] == pytest.approx(
        np.nan_to_num(image.astype(float)).ravel()[0], abs=0.003
    )


def test_names_in_any_script_reach_the_figures_as_text(tmp_path, recwarn):
    import base64

    html = (
        evaluate(Y, S, classes=["正常", "肺炎"], **FAST)
        .to_html(tmp_path / "r.html")
        .read_text(encoding="utf-8")
    )
    figure = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([^\"]+)", html)[1]).decode()
    assert "肺炎" in figure and not [w for w in recwarn if "Glyph" in str(w.message)]


def test_the_worst_errors_are_taken_from_the_images_of_all_rows(tmp_path):
    y, score = two_classes(40)
    images = np.full((40, 6, 6), np.arange(40)[:, None, None] / 40)
    result = evaluate(y, score, **FAST)
    wrong = result.mistakes()
    for source in (images, list(images), lambda row: images[row]):
        errors, others = page._pictures(result, source)
        assert len(errors) == len(wrong) and others == []
        assert [error["source"] for error in errors] == [
            page._image_url(images[row]) for row in wrong.row
        ]
    html = result.to_html(tmp_path / "r.html", images=images).read_text()
    assert (
        "Worst errors" in html
        and f"row {wrong.row[0]}" in html
        and "worst errors are shown" in html
    )
    with pytest.raises(ValueError, match="images has 3 images for 40 rows"):
        result.to_html(tmp_path / "r.html", images=images[:3])


def test_images_beyond_zero_and_one_are_stretched_and_large_ones_made_small():
    import base64
    import io

    from matplotlib.image import imread

    def read(source):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        return imread(io.BytesIO(data))

    pixels = read(page._image_url(np.array([[-1000, 0], [500, 3000]], np.int16)))
    assert pixels[0, 0] == 0 and pixels[1, 1] == 1 and pixels[0, 1] == pytest.approx(0.25, abs=0.01)
    assert read(page._image_url(np.zeros((2000, 500)))).shape[:2] == (286, 72)


def test_the_checklists_have_their_items_and_mark_what_is_unknown(tmp_path):
    lists = page.checklists()
    numbers = [int(re.match(r"\d+", item["item"])[0]) for item in lists["TRIPOD+AI"]["items"]]
    assert numbers == sorted(numbers) and set(numbers) == set(range(1, 28))
    assert not any("item" in item for item in lists["CLAIM"]["items"])
    known = {
        fact for one in lists.values() for item in one["items"] for fact in item.get("facts", [])
    }
    result = evaluate(Y, S, groups={"sex": np.arange(20) % 2}, **FAST)
    assert known == set(page._facts_told(result, [1]))
    bare, full = (
        page._filled(result, settings, [])
        for settings in ([], page._flat({"epochs": 20, "data": {"name": "x"}}))
    )
    for one, other in zip(bare, full, strict=True):
        assert one["blank"] > other["blank"] > 0 and other["blank"] < len(other["items"])
    html = result.to_html(tmp_path / "r.html", settings={"epochs": 20}).read_text()
    left = sum(one["blank"] for one in page._filled(result, page._flat({"epochs": 20}), []))
    assert html.count("to be completed by the authors") == left


def test_no_setting_is_read_into_a_checklist_by_a_part_of_its_name():
    assert (
        page._known([("batch_size", "32"), ("data.name", "x"), ("database", "y")], ["data"])
        == "data.name: x"
    )


def test_an_image_of_impossible_shape_is_named():
    with pytest.raises(ValueError, match=r"images: an image has shape \(2, 2, 2\)"):
        page._image_url(np.zeros((2, 2, 2)))


@pytest.mark.parametrize("ill", [1, 2, 4])
def test_a_class_of_few_has_no_redrawn_interval_and_no_ratios(ill, tmp_path, recwarn):
    rng = np.random.default_rng(ill)
    y = np.repeat([0, 1], [80 - ill, ill])
    score = rng.random(80)
    result = evaluate(y, score, classes=["no", "yes"], **FAST)
    for name in [
        "balanced_accuracy",
        "mcc",
        "brier",
        "average_precision",
        "positive_likelihood_ratio",
    ]:
        row = result[name]
        assert math.isnan(row.low) and (
            math.isnan(row.value) or f"only {ill} image" in row.method
        ), name
    html = result.to_html(tmp_path / "r.html").read_text()
    assert f"no interval: only {ill} image" in html and not recwarn.list
    enough = evaluate(
        np.append(y, np.ones(5 - ill, int)), np.append(score, np.full(5 - ill, 0.4)), **FAST
    )
    assert enough["brier"].low < enough["brier"].value < enough["brier"].high


def test_half_answered_topics_count_as_blank():
    items = page._filled(
        evaluate(Y, S, **FAST),
        page._flat({"data": {"name": "x", "digest": "ab12", "shape": [1]}}),
        [],
    )
    told = [item["text"] for one in items for item in one["items"] if item["text"]]
    assert "data.name: x" in told and not any("ab12" in text for text in told)
    for one in items:
        assert one["blank"] == sum(
            not item["text"] or "____" in item["text"] for item in one["items"]
        )


def test_one_label_an_image_is_told_and_rounded_rows_are_mended():
    y, score = several_classes()
    assert "if only one can hold" in " ".join(
        page.cautions(evaluate(np.eye(3, dtype=int)[y], score, **FAST))
    )
    assert check_predictions(y, score.round(2)).y_score.sum(1) == pytest.approx(1, abs=1e-12)
