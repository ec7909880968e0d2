"""The report's figures draw what they say."""

import numpy as np
import pytest
from sklearn import metrics as reference

from medbook.evaluation import figures, intervals
from medbook.evaluation.one_pass import curve_counts
from medbook.evaluation.report import evaluate
from tests.studies import EXAMPLES, FAST, several_classes, several_labels, two_classes

Y, S = two_classes(20)


@pytest.mark.parametrize("task", EXAMPLES)
def test_every_figure_of_every_task_draws_on_the_axes_it_is_given(task):
    from matplotlib.figure import Figure

    y, score = EXAMPLES[task]()
    result = evaluate(y, score, groups={"sex": np.arange(len(y)) % 2}, **FAST)
    assert "subgroups" in figures.figure_kinds(result) and (
        "decision" in figures.figure_kinds(result)
    ) == (task == "binary")
    for kind in figures.figure_kinds(result):
        ax = Figure().subplots()
        assert result.plot(kind, ax) is ax
        assert ax.lines or ax.images or ax.collections


def test_a_figure_that_cannot_be_says_why():
    with pytest.raises(ValueError, match="no subgroups were asked for"):
        evaluate(Y, S, **FAST).plot("subgroups")
    with pytest.raises(ValueError, match="for two classes"):
        evaluate(*several_classes(), **FAST).plot("decision")


def test_roc_curve_and_its_area_are_scikit_learns():
    y, score = two_classes()
    score = score.round(1)
    from matplotlib.figure import Figure

    result = evaluate(y, score, **FAST)
    line = next(
        line
        for line in result.plot("roc", Figure().subplots()).lines
        if line.get_label().startswith("1 ")
    )
    fpr, tpr, _ = reference.roc_curve(y, score, drop_intermediate=False)
    assert line.get_xdata() == pytest.approx(fpr) and line.get_ydata() == pytest.approx(tpr)
    tp, fp = curve_counts(y, score)
    assert tp / y.sum() == pytest.approx(tpr[1:]) and fp / (1 - y).sum() == pytest.approx(fpr[1:])


def test_bands_hold_their_curves():
    from matplotlib.figure import Figure

    result = evaluate(*two_classes(), **FAST)
    for kind in ("roc", "pr"):
        ax = result.plot(kind, Figure().subplots())
        band = ax.collections[0].get_paths()[0].vertices
        assert np.isfinite(band).all() and band.min() >= 0 and band.max() <= 1
        assert np.ptp(band[:, 1]) > 0.3


def test_confusion_counts_rows_true_columns_predicted():
    y, score = several_classes()
    result = evaluate(y, score, **FAST)
    assert (
        figures.confusion_counts(result) == reference.confusion_matrix(y, score.argmax(1))
    ).all()
    y, score = several_labels()
    counts = figures.confusion_counts(evaluate(y, score, **FAST)).reshape(-1, 2, 2)
    expected = reference.multilabel_confusion_matrix(y, score >= 0.5)[
        :, ::-1, ::-1
    ]  # ours: found, missed / false alarm, left alone
    assert (counts == expected).all()


def test_reliability_counts_every_score_once_and_wilsons_bars():
    y, score = two_classes()
    score[:2] = [0, 1]
    table = figures.reliability(evaluate(y, score, **FAST))
    assert table.n.sum() == len(y) and (table.n * table.share).sum() == pytest.approx(y.sum())
    inside = score >= 0.9
    assert table.iloc[-1].n == inside.sum() and table.iloc[-1].share == pytest.approx(
        y[inside].mean()
    )
    assert table.iloc[-1][["low", "high"]].tolist() == pytest.approx(
        list(intervals.wilson(int(y[inside].sum()), int(inside.sum()))[1:])
    )
