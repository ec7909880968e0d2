"""The audit against planted faults, and against what stands in published files."""

import shutil
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest

from medbook.images import (
    audit,
    audit_summary,
    auditing,
    findings,
    load,
    rehearse,
    show_problems,
    without_leaks,
)
from medbook.images.assembly import from_arrays
from medbook.images.image_files import DataError, ImageFiles
from medbook.images.sources import from_folder
from tests.image_sets import bars, chest_phantoms, picture_folder


@pytest.fixture
def chest():
    return chest_phantoms()


@pytest.fixture
def easy():
    return bars()


@pytest.fixture
def few_trees(monkeypatch):
    """Forests of 40 trees instead of 150 inside `audit`: enough for two kinds of bars."""
    monkeypatch.setattr(findings, "out_of_fold", partial(findings.out_of_fold, trees=40))


def rows_of(problems, *names):
    return [set(rows) for rows in problems[problems.problem.isin(names)].rows]


def test_a_clean_set_is_clean(chest):
    problems = audit(chest, checks=["pixels", "copies", "patients", "views"])
    assert list(problems.columns) == list(auditing.COLUMNS)
    assert not problems.certainty.eq("certain").any() and len(problems) <= 0.03 * len(chest)


def test_planted_faults_are_found(chest):
    found = rehearse(chest, share=0.014, seed=4, checks=["pixels", "copies", "views"]).set_index(
        "fault"
    )
    sure = [
        "exact copy",
        "brighter copy",
        "mirrored copy",
        "copy turned by half",
        "blank",
        "nearly constant",
    ]
    assert (found.loc[sure, "sensitivity"] == 1).all(), found
    odd = ["noisy copy (2 %)", "re-encoded copy", "inverted", "upside down", "axes swapped"]
    assert found.loc[odd, "found"].sum() >= 8, found
    assert (
        (found.alarms <= 0.03).all()
        and (found.low <= found.sensitivity).all()
        and (found.sensitivity <= found.high).all()
    )


def test_kinds_of_copies_are_named(chest):
    images = chest.images.copy()
    free = np.flatnonzero((chest.splits == "train") & (chest.labels == 0))
    a, b, c, d, e, f = free[:6]
    images[b] = images[a]
    images[d] = images[c][:, ::-1]
    images[f] = np.swapaxes(images[e], 0, 1)[::-1]
    problems = audit(replace(chest, images=images), checks=["copies"])
    kinds = {
        frozenset(one.rows): (one.kind, one.certainty, one.detail) for one in problems.itertuples()
    }
    assert kinds[frozenset({a, b})][:2] == ("exact copy", "certain")
    assert (
        kinds[frozenset({c, d})][:2] == ("turned copy", "suspected")
        and "mirrored left to right" in kinds[frozenset({c, d})][2]
    )
    assert "turned a quarter to the left" in kinds[frozenset({e, f})][2]


def test_leaks_and_conflicts(chest):
    train = np.flatnonzero(chest.splits == "train")
    test = np.flatnonzero(chest.splits == "test")
    images = chest.images.copy()
    labels = chest.labels.copy()
    patients = chest.patients.copy()
    images[train[0]] = images[test[0]]
    images[train[1]] = np.clip(images[test[1]] * 0.9 + 0.03, 0, 1)
    labels[train[0]] = 1 - labels[test[0]]
    labels[train[1]] = labels[test[1]]
    patients[train[2]] = patients[test[2]]
    leaky = replace(chest, images=images, labels=labels, patients=patients)
    problems = audit(leaky, checks=["copies", "patients"])
    assert {train[0], test[0]} in rows_of(problems, "leak by copy") and {
        train[0],
        test[0],
    } in rows_of(problems, "label conflict")
    assert {train[1], test[1]} in rows_of(problems, "leak by copy") and {
        train[1],
        test[1],
    } not in rows_of(problems, "label conflict")
    patient = problems[problems.problem == "leak by patient"]
    assert (
        len(patient) == 1
        and set(patient.splits[0]) == {"train", "test"}
        and patients[test[2]] in patient.detail[0]
    )
    after = without_leaks(leaky, problems)
    assert len(leaky) - len(after) == 3 and (after.splits == "test").sum() == len(test)
    assert len(without_leaks(leaky, problems, suspected=False)) == len(leaky) - 2
    assert audit(after, checks=["patients"]).empty and "leak by copy" not in set(
        audit(after, checks=["copies"]).problem
    )


def test_odd_images_each_once(chest):
    images = chest.images.copy()
    images[1] = 0.3
    images[2] = 0.5 + 0.005 * images[2]
    images[3] = images[3] * 255
    images[4, 5, 5] = np.inf
    problems = audit(replace(chest, images=images), checks=["pixels", "copies", "views"])
    want = {"blank image": 1, "nearly constant": 2, "out of range": 3, "not a number": 4}
    assert {
        one.problem: one.rows[0] for one in problems.itertuples() if one.problem in want
    } == want
    assert not any(
        set(one.rows) & {1, 2, 3, 4} for one in problems.itertuples() if one.problem not in want
    )


def test_swapped_neighbours_are_one_finding(easy, few_trees):
    labels = easy.labels.copy()
    labels[[40, 41]] = labels[[41, 40]]
    problems = audit(replace(easy, labels=labels), checks=["labels"])
    assert {40, 41} in rows_of(problems, "labels perhaps swapped") and {40} not in rows_of(
        problems, "doubtful label"
    )
    own = np.eye(2)[easy.labels] * 0.9 + 0.05
    given_scores = audit(replace(easy, labels=labels), checks=["labels"], scores=own)
    assert given_scores.problem.tolist() == ["labels perhaps swapped"]


def test_many_labels(easy, few_trees):
    many = np.stack([easy.labels, 1 - easy.labels], 1)
    many[10] = 1 - many[10]
    dataset = from_arrays(easy.images, many, classes=["upright", "level"])
    problems = audit(dataset, checks=["labels", "copies"], false_alarms=0.1)
    assert {10} in rows_of(problems, "doubtful label") and problems.detail.str.contains(
        "labelled"
    ).all()


def test_a_forest_that_knows_nothing_keeps_silent(easy, few_trees):
    rng = np.random.default_rng(1)
    chance = replace(easy, labels=rng.permutation(easy.labels))
    problems = audit(chance, checks=["labels"])
    assert problems.empty and "no better than chance" in problems.attrs["unchecked"]["labels"]
    many = from_arrays(easy.images, rng.integers(0, 2, (300, 2)), classes=["upright", "level"])
    assert "no better than chance" in audit(many, checks=["labels"]).attrs["unchecked"]["labels"]


def test_a_negative_in_another_split_is_a_leak(chest):
    train = np.flatnonzero(chest.splits == "train")
    test = np.flatnonzero(chest.splits == "test")
    images = chest.images.copy()
    images[train[0]] = 1 - images[test[0]]
    problems = audit(replace(chest, images=images), checks=["copies"])
    leak = problems[problems.problem == "leak by copy"]
    assert {train[0], test[0]} in rows_of(problems, "leak by copy") and "negative copy" in set(
        leak.kind
    )


@pytest.mark.parametrize("count", [2, 3, 12])
def test_tiny_sets(count):
    images = np.random.default_rng(0).uniform(size=(12, 9, 7, 3)).astype("float32")
    dataset = from_arrays(images, np.arange(12) % 2).take(np.arange(count))
    problems = audit(dataset)
    assert set(problems.attrs["unchecked"]) == {"patients", "views", "labels"}
    assert audit_summary(problems).problem.str.startswith("not checked").sum() == 3


def test_all_blank_does_not_fail():
    dataset = from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 2)
    problems = audit(dataset)
    assert (problems.problem == "blank image").sum() == 60 and len(problems) == 60


def test_bad_arguments(chest):
    for call, message in [
        (lambda: audit("breastmnist"), "takes a Dataset"),
        (lambda: audit(chest, checks=["pixel"]), "checks"),
        (lambda: audit(chest, near=2), "near"),
        (lambda: audit(chest, scores=np.zeros((3, 2))), "scores of shape"),
        (lambda: show_problems(chest, audit(chest, checks=["patients"])), "no problem"),
    ]:
        with pytest.raises(DataError, match=message):
            call()


def test_files_in_batches_and_broken_ones(tmp_path, monkeypatch):
    root = picture_folder(tmp_path / "set")
    image = cv2.imread(str(root / "sick" / "P001.png"))
    cv2.imwrite(str(root / "sick" / "P059.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    shutil.copy(root / "healthy" / "P000.png", root / "healthy" / "P098.png")
    (root / "healthy" / "P099.png").write_bytes(b"no picture")
    files = from_folder(root, size=24)
    (root / "healthy" / "P010.png").write_bytes(b"gone bad since")
    broken = int(np.flatnonzero(files.ids == "healthy/P010.png")[0])
    monkeypatch.setattr(
        ImageFiles, "__array__", lambda *args, **options: pytest.fail("all images at once")
    )
    problems = audit(files, checks=["pixels", "copies"])
    assert (broken,) in problems.rows[problems.problem == "unreadable image"].tolist()
    assert ("healthy/P099.png",) in problems.ids[problems.problem == "unreadable image"].tolist()
    pairs = [set(ids) for ids in problems.ids[problems.kind == "exact copy"]]
    assert {"healthy/P000.png", "healthy/P098.png"} in pairs and {
        "sick/P001.png",
        "sick/P059.png",
    } in pairs


def test_audit_changes_nothing_and_repeats(easy, few_trees):
    easy = easy.take(np.arange(120))
    before = easy.digest()
    first = audit(easy)
    second = audit(easy)
    pd.testing.assert_frame_equal(first, second)
    assert easy.digest() == before and set(first.problem) <= set(auditing.ORDER) == set(
        auditing.ADVICE
    )


def test_pictures_of_problems(easy):
    images = easy.images.copy()
    images[7] = images[3]
    images[8] = images[5] * 255
    images[9] = np.nan
    dataset = replace(easy, images=images)
    problems = audit(dataset, checks=["pixels", "copies"])
    figure = show_problems(dataset, problems)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == sum(map(len, problems.rows.head(6)))
    figure.clear()


def test_breastmnist(shared):
    dataset = load("breastmnist")
    problems = audit(dataset, checks=["pixels", "copies"])
    certain = problems[problems.certainty == "certain"]
    assert certain.problem.tolist() == ["leak by copy", "label conflict"] and set(
        certain.splits.iloc[0]
    ) == {"train", "test"}
    near = problems[(problems.problem == "leak by copy") & (problems.kind == "near copy")]
    in_test = {row for rows in near.rows for row in rows if dataset.splits[row] == "test"}
    assert 55 <= len(in_test) <= 65
    after = without_leaks(dataset, problems)
    assert (after.splits == "test").sum() == 156
