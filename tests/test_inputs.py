"""What `evaluate` lets in, and what it refuses in one line."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from medbook.evaluation import inputs
from medbook.evaluation.report import evaluate
from tests.studies import FAST, several_classes, two_classes


def test_a_table_with_a_row_a_patient_is_joined_by_name():
    y, score = two_classes(60)
    patients = np.array([f"P{i // 3}" for i in range(60)])
    by_row = {"age": np.arange(60) // 3 * 4, "site": np.where(np.arange(60) // 3 < 5, "A", None)}
    people = pd.DataFrame(
        {
            "patient": [f"P{i}" for i in range(20)],
            "age": np.arange(20) * 4,
            "site": ["A"] * 5 + [None] * 15,
        }
    )
    first = evaluate(y, score, patients=patients, groups=by_row, **FAST).subgroups
    second = evaluate(
        y, score, patients=patients, groups=people.sample(frac=1, random_state=0), **FAST
    ).subgroups
    pd.testing.assert_frame_equal(first, second)
    assert first.level.unique().tolist() == [
        "under 18",
        "18 to 39",
        "40 to 59",
        "60 to 79",
        "A",
        "unknown",
    ]


def test_ages_numbers_and_many_names_become_few_levels():
    assert inputs._levels("PatientAge", ["045Y", "006M", "081Y"])[1].tolist() == [
        "40 to 59",
        "under 18",
        "80 and over",
    ]
    assert inputs._levels("dose", np.arange(100.0))[0] == [
        "up to 24.75",
        "24.75 to 49.5",
        "49.5 to 74.25",
        "above 74.25",
    ]
    levels, words = inputs._levels("site", [f"site {i % 30}" for i in range(300)])
    assert len(levels) == 12 and levels[-1] == "all others" and len(words) == 300
    assert inputs._levels("grade", [1.0, 2.0, np.nan])[0] == ["1", "2", "unknown"]
    assert inputs._levels("dose", np.repeat([0.0, 1, 2, 3, 4, 5, 6, 7], [90] + [1] * 7))[
        0
    ]  # quartiles that coincide


PEOPLE = pd.DataFrame({"patient": ["A", "B"], "sex": ["F", "M"]})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"groups": {"sex": ["F"]}}, "sex has 1 values for 20 rows"),
        ({"groups": ["F"] * 20}, "a table or a dict"),
        ({"groups": PEOPLE}, "patients was not given"),
        ({"groups": PEOPLE, "patients": ["A"] * 20}, "patient B has no rows in y_true"),
        ({"groups": PEOPLE, "patients": ["A"] * 10 + ["C", "B"] * 5}, "no row for patient C"),
        ({"groups": pd.concat([PEOPLE, PEOPLE]), "patients": ["A", "B"] * 10}, "patient A twice"),
        ({"prevalence": 2}, "prevalence is 2"),
        ({"patients": ["P"] * 21}, "a patient without a row cannot be judged"),
        (
            {"y_true": ["no", "mass"] * 10, "classes": ["no", "yes"]},
            "'mass', which is none of the classes no, yes",
        ),
        ({"y_true": ["no", "yes"] * 10}, "give classes="),
    ],
)
def test_groups_and_names_that_do_not_fit_are_one_clear_line(change, words):
    y, score = two_classes(20)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        evaluate(**{"y_true": y, "y_score": score} | FAST | change)
    assert "\n" not in str(caught.value)


def test_rows_of_several_classes_must_sum_to_one():
    y, score = several_classes(30)
    score[7] *= 0.9
    with pytest.raises(ValueError, match="row 7 sums to 0.9, not to 1"):
        evaluate(y, score, **FAST)


Y, S = two_classes(20)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"y_true": []}, "at least one"),
        ({"y_true": ["a"] * 20}, "y_true holds"),
        ({"y_true": Y + 0.5}, "whole numbers"),
        ({"y_true": Y - 1}, "whole numbers"),
        ({"y_true": np.where(Y, np.nan, 0.0)}, "y_true of shape"),
        ({"y_true": Y + 1}, "label 2"),
        ({"y_score": S[:-1]}, "(20,)"),
        ({"y_score": np.where(Y, np.nan, S)}, "NaN or infinite"),
        ({"y_score": np.where(Y, np.inf, S)}, "NaN or infinite"),
        ({"y_score": S * 7}, "from 0 to 1"),
        ({"y_score": ["high"] * 20}, "y_score holds"),
        ({"y_score": np.zeros((20, 2, 2))}, "shape"),
        ({"y_score": np.stack([S, S], 1)}, "sum to"),
        ({"y_true": np.zeros((20, 3), int)}, "many labels"),
        ({"classes": ["only one"]}, "2 different names"),
        ({"classes": ["same", "same"]}, "2 different names"),
        ({"patients": ["P1"]}, "patients has 1 names for 20 rows"),
        ({"patients": [None] * 20}, "no name in 20 rows"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"confidence": 95}, "confidence"),
        ({"resamples": 0}, "resamples"),
        ({"resamples": 2.5}, "resamples is 2.5; give a whole number"),
        ({"seed": None}, "seed is None"),
        ({"seed": -1}, "seed 0 or more"),
        ({"threshold": "a"}, "threshold is 'a'"),
        ({"classes": "ab"}, "classes is the text 'ab'"),
        ({"patients": [""] + ["P"] * 19}, "no name in 1 rows"),
        ({"y_score": np.full((20, 3), 1 / 3), "threshold": 0.4}, "largest score"),
    ],
)
def test_bad_input_is_one_clear_line(change, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        evaluate(**{"y_true": Y, "y_score": S} | change)
    assert "\n" not in str(caught.value)
