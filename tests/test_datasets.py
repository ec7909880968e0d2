"""Data sets: splits by patient, what belongs together, the Dataset itself."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from medbook.images import DataError, datasets, from_arrays, load
from medbook.images.datasets import allocate, link, split
from tests.image_sets import RNG, class_folder, own_folders, picture  # noqa: F401


@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_shares_are_whole_and_complete(count, fractions):
    shares = allocate(count, fractions)
    assert shares.sum() == count and (shares >= 0).all()
    if count >= 3:
        assert (shares > 0).all()
    assert (np.abs(shares - count * np.array(fractions) / sum(fractions)) <= 2).all()


@given(st.integers(0, 2**20), st.integers(1, 60), st.integers(1, 6), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_no_patient_stands_in_two_splits(seed, patients, most, classes):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients)).astype(str)
    labels = rng.integers(0, classes, len(owner))
    splits = split(labels, patients=owner, seed=seed)
    assert not datasets.shared_patients(owner, splits)
    assert set(splits) <= {"train", "valid", "test"}
    assert (splits == split(labels, patients=owner, seed=seed)).all()
    many = np.stack([labels == 0, labels > 0], 1).astype(int)
    assert not datasets.shared_patients(owner, split(many, patients=owner, seed=seed))


def test_split_by_row_is_exact_in_every_class():
    labels = np.repeat([0, 1, 2], [700, 200, 30])
    splits = split(labels, seed=3)
    for value, count in enumerate((700, 200, 30)):
        assert [
            int((splits[labels == value] == name).sum()) for name in ("train", "valid", "test")
        ] == [round(0.7 * count), round(0.1 * count), round(0.2 * count)]
    assert (splits != split(labels, seed=4)).any()


def test_split_by_patient_is_as_balanced_as_scikit_learn():
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    labels = (rng.random(150) < 0.15).astype(int)[owner]
    splits = split(labels, patients=owner, fractions=(0.8, 0, 0.2))
    assert set(splits) == {"train", "test"}
    theirs = next(
        StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, owner)
    )[1]
    off = [
        abs((labels[rows] == 1).sum() / (labels == 1).sum() - 0.2)
        for rows in (splits == "test", theirs)
    ]
    assert off[0] <= max(off[1], 0.02) and abs((splits == "test").mean() - 0.2) < 0.02


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=25))
@settings(max_examples=30, deadline=None)
def test_link_joins_what_shares_a_value(pairs):
    first, second = map(np.array, zip(*pairs, strict=True))
    groups = link(first, second)
    same = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(len(pairs)):
        same = (same.astype(int) @ same.astype(int)) > 0
    assert ((groups[:, None] == groups) == same).all()


def test_digest_tells_every_change(tmp_path):
    images = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
    labels = np.arange(30) % 2
    base = from_arrays(images, labels)
    changed = images.copy()
    changed[3, 2, 1] ^= 1
    others = [
        from_arrays(changed, labels),
        from_arrays(images, 1 - labels),
        from_arrays(images, labels, seed=1),
    ]
    assert (
        len({data.digest() for data in (base, *others)}) == 4
        and base.digest() == from_arrays(images.copy(), labels).digest()
    )
    data = load(class_folder(tmp_path))
    before = data.digest()
    assert before == load(tmp_path).digest()
    picture(tmp_path / data.ids[0], seed=999)
    assert load(tmp_path).digest() != before


def test_batch_summary_and_looks():
    images = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    data = from_arrays(images, np.arange(30) % 3, classes=["a<b", "b", "c"])
    np.testing.assert_array_equal(data.batch(np.array([4, 1])), images[[4, 1]] / np.float32(255))
    table_ = data.summary()
    assert (
        isinstance(table_, pd.DataFrame)
        and table_.loc["all images", "all"] == 30
        and (table_.iloc[:3]["all"] == 10).all()
    )
    assert (
        "train 21" in repr(data)
        and "a&lt;b" in data._repr_html_()
        and len(data.subset("train")) == 21
    )
    assert len(data.show(4).axes) == 12
    with pytest.raises(DataError, match="no split is called 'val'"):
        data.subset("val")


def test_to_npz_round_trip_and_a_full_disk(tmp_path, monkeypatch):
    data = load(class_folder(tmp_path / "set"), patient="P[0-9]+")
    again = load(data.to_npz(tmp_path / "copy.npz"))
    np.testing.assert_array_equal(again.images, data.images[:])
    for name in ("labels", "splits", "ids", "patients"):
        assert (getattr(again, name) == getattr(data, name)).all()
    monkeypatch.setattr(
        "os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(DataError, match="no space left"):
        data.to_npz(tmp_path / "full.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.npz", "set"]
    with pytest.raises(DataError, match="there is no folder"):
        data.to_npz(tmp_path / "none" / "full.npz")
