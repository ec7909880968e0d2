"""The predictions table: reading with care, the threshold from valid, the right rows evaluated."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.evaluation.decision import choose_threshold
from medbook.evaluation.predictions import (
    TableError,
    check_table,
    evaluate_table,
    read_predictions,
    table_parts,
    threshold_from,
)


def youden(y_true, y_score, cut):
    return ((y_score >= cut) & (y_true == 1)).sum() / (y_true == 1).sum() - (
        (y_score >= cut) & (y_true == 0)
    ).sum() / (y_true == 0).sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=60))
def test_no_threshold_is_better_on_valid(cases):
    y_true = np.array([case[0] for case in cases])
    y_score = np.array([case[1] for case in cases]) / 20
    rows = pd.DataFrame({"y_true": y_true, "score": y_score})
    cut, _ = threshold_from(rows)
    assert 0 <= cut <= 1
    if len(np.unique(y_true)) == 2:
        best = max(youden(y_true, y_score, other) for other in np.unique(y_score))
        assert np.isclose(youden(y_true, y_score, cut), best)


def test_a_useless_score_still_gives_a_finite_threshold_and_is_told():
    threshold, notes = threshold_from(
        pd.DataFrame({"y_true": [1, 0, 0, 1], "score": [0.1, 0.9, 0.8, 0.2]})
    )
    assert 0 <= threshold <= 1 and "no threshold does better than chance" in " ".join(notes)
    threshold, notes = threshold_from(pd.DataFrame({"y_true": [0, 0], "score": [0.1, 0.9]}))
    assert threshold == 0.5 and "one class only" in notes[0]


def test_a_rule_for_the_threshold_keeps_its_promise_on_valid():
    rows = table(200)
    found, notes = evaluate_table(
        rows, resamples=20, rule="sensitivity", rule_options={"target": 0.9}
    )
    valid = rows[rows.split == "valid"]
    assert (
        (valid.score_yes >= found.threshold) & (valid.y_true == 1)
    ).sum() >= 0.9 * valid.y_true.sum()
    assert "'sensitivity', target 0.9" in " ".join(notes)


def test_columns_that_are_known_become_subgroups_of_the_rows_evaluated():
    rows = table(200).assign(Sex=["F", "M"] * 100, patient_age=np.arange(200) % 90, weight=1.5)
    found, _ = evaluate_table(rows, resamples=20)
    assert set(found.subgroups.group) == {"Sex", "patient_age"}
    test = rows[rows.split == "test"]
    women = found.subgroups.query("group == 'Sex' and level == 'F' and metric == 'auc'").iloc[0]
    assert (
        women.images == (test.Sex == "F").sum()
        and women.cases == test[test.Sex == "F"].y_true.sum()
    )
    assert "18 to 39" in set(found.subgroups.level)
    assert evaluate_table(rows, resamples=20, groups=[])[0].subgroups is None
    assert set(evaluate_table(rows, resamples=20, groups=["weight"])[0].subgroups.level) == {"1.5"}
    with pytest.raises(TableError, match="no column 'height'"):
        evaluate_table(rows, groups=["height"])


def test_a_patient_without_a_name_is_refused_not_made_a_patient_called_nan():
    rows = table().assign(patient=["P1"] * 59 + [None])
    with pytest.raises(TableError, match="patient is empty in line 61 of the file"):
        check_table(rows)
    assert "patient" not in check_table(rows.assign(patient=None))


def table(rows=60, seed=0):
    rng = np.random.default_rng(seed)
    sick = rng.integers(0, 2, rows)
    score = 1 / (1 + np.exp(-rng.normal(2 * sick - 1)))
    return pd.DataFrame(
        {
            "split": np.repeat(["valid", "test"], rows // 2),
            "y_true": sick,
            "score_no": 1 - score,
            "score_yes": score,
        }
    )


def test_the_threshold_comes_from_valid_and_the_figures_from_test():
    rows = table()
    found, notes = evaluate_table(rows, resamples=50)
    valid = rows[rows.split == "valid"]
    test = rows[rows.split == "test"]
    assert found.threshold == choose_threshold(valid.y_true, valid.score_yes).threshold
    assert found.y_true.tolist() == test.y_true.tolist() and "test" in notes[0]
    assert evaluate_table(rows, split="valid", resamples=50)[0].threshold == 0.5
    assert evaluate_table(rows, threshold=0.2, resamples=50)[0].threshold == 0.2
    with pytest.raises(TableError, match="train"):
        evaluate_table(rows, split="train")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_names_and_a_byte_order_mark(tmp_path, separator):
    rows = table().assign(y_true=lambda frame: np.where(frame.y_true == 1, "yes", "no"))
    rows.to_csv(tmp_path / "table.csv", index=False, sep=separator, encoding="utf-8-sig")
    assert read_predictions(tmp_path / "table.csv").y_true.tolist() == table().y_true.tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    table().rename(columns={"score_yes": "score_Ödem"}).to_csv(
        tmp_path / "table.csv", index=False, encoding=encoding
    )
    assert "score_Ödem" in read_predictions(tmp_path / "table.csv")


def test_classes_called_by_numbers_are_not_guessed():
    scores = {"score_1": [0.9, 0.2], "score_0": [0.1, 0.8]}
    with pytest.raises(TableError, match="names or their numbers"):
        check_table(pd.DataFrame({"y_true": [1, 0], **scores}))
    grades = pd.DataFrame(
        {"y_true": [1, 2, 3], "score_1": [1, 0, 0], "score_2": [0, 1, 0], "score_3": [0, 0, 1]}
    )
    assert check_table(grades).y_true.tolist() == [0, 1, 2]


def test_a_patient_in_two_splits_is_told():
    rows = table().assign(patient=[f"P{i % 20}" for i in range(60)])
    assert "more than one split" in " ".join(evaluate_table(rows, resamples=20)[1])


def test_findings_are_matched_by_name_not_by_place():
    rows = pd.DataFrame(
        {
            "y_true_b": [1, 0, 1],
            "y_true_a": [0, 0, 1],
            "score_a": [0.1, 0.2, 0.9],
            "score_b": [0.8, 0.3, 0.7],
        }
    )
    y_true, y_score, _ = table_parts(check_table(rows))
    assert y_true.tolist() == [[0, 1], [0, 0], [1, 1]] and y_score[0].tolist() == [0.1, 0.8]
    with pytest.raises(TableError, match="y_true_b"):
        check_table(rows.drop(columns="y_true_b"))


def test_patients_that_repeat_the_id_are_no_patients():
    rows = table().assign(id=[str(i) for i in range(60)], patient=[str(i) for i in range(60)])
    assert table_parts(rows)[2] is None
    assert len(table_parts(rows.assign(patient=[f"P{i // 2}" for i in range(60)]))[2]) == 60


def test_a_table_as_a_european_spreadsheet_writes_it(tmp_path):
    rows = table()
    rows.assign(y_true=rows.y_true == 1).to_csv(
        tmp_path / "table.csv", index=False, sep=";", decimal=","
    )
    read = read_predictions(tmp_path / "table.csv")
    assert (
        np.allclose(read.score_yes, rows.score_yes) and read.y_true.tolist() == rows.y_true.tolist()
    )


def test_a_single_named_score_is_the_positive_class():
    rows = pd.DataFrame({"y_true": [1, 0, 1, 0], "score_ill": [0.9, 0.2, 0.6, 0.7]})
    found, _ = evaluate_table(check_table(rows), resamples=10)
    assert found.classes == ["not ill", "ill"] and found["sensitivity"].value == 1
    assert check_table(rows.assign(y_true=["ill", "not ill"] * 2)).y_true.tolist() == [1, 0, 1, 0]


def test_a_note_taken_for_a_score_is_explained_and_repeated_ids_are_counted():
    with pytest.raises(
        TableError,
        match="score_note is 'blurred', not a number, in line 2 of the file.*rename the column",
    ):
        check_table(table().assign(score_note="blurred"))
    notes = evaluate_table(table().assign(id=[str(i // 2) for i in range(60)]), resamples=10)[1]
    assert any("15 rows repeat an id, such as 15" in note for note in notes)
    assert not any(
        "repeat" in note for note in evaluate_table(table().assign(id=range(60)), resamples=10)[1]
    )
