"""`evaluate` and `Evaluation`: the same answer to the same question, files whole or not there."""

import errno
import json
import math
import os
import re

import numpy as np
import pandas as pd
import pytest

from medbook.evaluation import report
from medbook.evaluation.report import evaluate
from tests.studies import BINARY, EXAMPLES, FAST, several_labels, two_classes

Y, S = two_classes(20)


def test_one_column_and_two_columns_of_scores_mean_the_same():
    y, score = two_classes()
    one, two = (evaluate(y, s, **FAST).table for s in (score, np.stack([1 - score, score], axis=1)))
    pd.testing.assert_frame_equal(one, two)


def test_same_seed_same_table_other_seed_other_bounds():
    y, score = two_classes()
    first, again, other = (evaluate(y, score, seed=seed, **FAST).table for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    chance = first.metric == "ece_if_perfect"  # drawn from the seed altogether
    assert (first.value == other.value)[~chance].all() and not first.low.equals(other.low)


def test_an_unknown_metric_or_figure_names_the_known_ones():
    result = evaluate(Y, S, **FAST)
    with pytest.raises(ValueError, match="roc, pr, confusion, reliability, recall"):
        result.plot("sankey")
    with pytest.raises(KeyError, match="average_precision"):
        result["no such"]


def test_json_keeps_every_digit_and_turns_nan_into_null(tmp_path):
    y, score = two_classes()
    result = evaluate(y, score, patients=np.arange(len(y)) // 2, classes=["no", "yes"], **FAST)
    text = result.to_json(
        tmp_path / "report.json",
        settings={"lr": np.float32(0.5), "best": math.nan, "path": tmp_path},
    ).read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (
        read["schema"] == "medbook.evaluation/2"
        and read["task"] == "binary"
        and read["classes"] == ["no", "yes"]
    )
    assert [row["value"] for row in read["metrics"]] == result.table.value.tolist()
    assert read["settings"]["lr"] == 0.5 and read["settings"]["best"] is None
    assert np.sum(read["confusion"]) == read["images"] == len(y) and read["patients"] == len(y) // 2
    alone = json.loads(
        evaluate([0, 0], [0.1, 0.2], **FAST).to_json(tmp_path / "one.json").read_text()
    )
    assert alone["metrics"][0]["value"] is None


def test_csv_reads_back_as_the_table(tmp_path):
    result = evaluate(*two_classes(), **FAST)
    pd.testing.assert_frame_equal(
        pd.read_csv(result.to_csv(tmp_path / "report.csv"), float_precision="round_trip"),
        result.table,
    )


def test_what_the_backend_sets_at_the_first_figure_outlasts_the_style(monkeypatch):
    """In Jupyter the first figure turns interactive mode on: undone, no figure would show."""
    import matplotlib
    from matplotlib import pyplot

    first = pyplot.figure

    def starts_the_backend(*args, **options):
        matplotlib.rcParams["interactive"] = True
        return first(*args, **options)

    with matplotlib.rc_context({"interactive": False}):
        monkeypatch.setattr(pyplot, "figure", starts_the_backend)
        evaluate(Y, S, **FAST).plot("recall")
        pyplot.close()
        assert matplotlib.rcParams["interactive"] and matplotlib.rcParams["axes.spines.top"]


def test_a_missing_folder_is_named(tmp_path):
    result = evaluate(Y, S, **FAST)
    for write in (result.to_html, result.to_json, result.to_csv):
        with pytest.raises(OSError, match="there is no folder .*nowhere") as caught:
            write(tmp_path / "nowhere" / "file")
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="it is a folder"):
        result.to_csv(tmp_path)


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.csv"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match="cannot write .*report.csv: no space left on device; free some space"
    ) as caught:
        evaluate(Y, S, **FAST).to_csv(path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.csv"]


def test_import_and_evaluate_ask_for_nothing_heavy(monkeypatch):
    import importlib
    import sys

    import medbook

    monkeypatch.setattr(medbook, "evaluation", medbook.evaluation)  # put back afterwards
    for name in [name for name in sys.modules if name.startswith("medbook.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    for name in (
        "keras",
        "tensorflow",
        "matplotlib",
        "seaborn",
        "jinja2",
        "cv2",
        "skimage",
        "sklearn",
    ):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    fresh = importlib.import_module("medbook.evaluation.report")
    assert fresh is not report and len(
        fresh.evaluate([0, 1], [0.2, 0.8], resamples=5).table
    ) == len(BINARY)
    with pytest.raises(ImportError):
        fresh.evaluate([0, 1], [0.2, 0.8], resamples=5).plot("recall")


def test_labels_may_be_names():
    y, score = two_classes()
    names = np.array(["healthy", "ill"])
    plain = evaluate(y, score, classes=names, **FAST).table
    for labels in (names[y], names[y].tolist(), pd.Series(names[y]), pd.Categorical(names[y])):
        pd.testing.assert_frame_equal(evaluate(labels, score, classes=names, **FAST).table, plain)


@pytest.mark.parametrize("old, new", report._NEW_KEYS.items())
def test_keys_of_the_last_version_still_find_their_rows(old, new):
    result = evaluate(
        *(several_labels() if new in ("exact_match", "f1_micro") else two_classes()), **FAST
    )
    with pytest.warns(DeprecationWarning, match=re.escape(repr(new))):
        row = result[old]
    assert row.metric == new and str(row) == str(result[new])


def test_an_old_key_with_a_prevalence_still_finds_its_row():
    result = evaluate(Y, S, prevalence=0.01, **FAST)
    with pytest.warns(DeprecationWarning):
        assert result["npv (prevalence 0.01)"].metric == "npv_at_prevalence_0.01"


@pytest.mark.parametrize("task", EXAMPLES)
def test_no_key_has_a_sign_that_nobody_can_type(task):
    result = evaluate(*EXAMPLES[task](), **FAST)
    assert all(metric.isascii() for metric in result.table.metric)
    assert repr(result).startswith(f"<Evaluation of {len(result)} images, {task}: auc 0.")
