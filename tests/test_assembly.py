"""Assembly: labels as people write them, splits that are missing, equal images."""

import numpy as np
import pytest

from medbook.images import DataError, assembly, datasets, from_arrays, load
from tests.image_sets import RNG, class_folder, own_folders, save  # noqa: F401


def test_equal_images_stay_in_one_split_whatever_their_patient():
    images = RNG.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    images[30:] = images[:30]
    for patients in (None, [f"P{row}" for row in range(60)]):
        data = from_arrays(images, np.arange(60) % 2, patients=patients)
        assert (data.splits[:30] == data.splits[30:]).all()


def test_blank_images_are_no_twins():
    data = from_arrays(np.zeros((40, 6, 6), np.uint8), np.arange(40) % 2)
    assert data.card.counts == {"train": 28, "valid": 4, "test": 8} and len(data.problems) == 0


def test_symmetry_of_own_data_is_none_unless_told(tmp_path):
    save(tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").card.symmetry == "none"
    for path in (tmp_path / "a.npz", class_folder(tmp_path / "b")):
        assert load(path, symmetry="any").card.symmetry == "any"
    with pytest.raises(DataError, match="symmetry is 'vertical'"):
        load(tmp_path / "a.npz", symmetry="vertical")


def test_missing_splits_are_taken_from_train_by_patient():
    owner = np.repeat(np.arange(40), 3).astype(str)
    given_ = np.where(owner.astype(int) < 30, "train", "test")
    data = from_arrays(
        RNG.random((120, 5, 5)), np.repeat(np.arange(40) % 2, 3), patients=owner, splits=given_
    )
    assert (data.splits[90:] == "test").all() and (data.splits == "valid").sum() in range(6, 18)
    assert (
        not datasets.shared_patients(owner, data.splits)
        and "valid made by medbook" in data.card.notes[-1]
    )


@pytest.mark.parametrize(
    "names, expected",
    [
        (("malignant", "benign"), ["benign", "malignant"]),
        (("b", "a"), ["a", "b"]),
        (("normal", "abnormal"), ["normal", "abnormal"]),
        (("10", "9", "2"), ["2", "9", "10"]),
    ],
)
def test_label_1_is_the_finding(names, expected):
    assert assembly.order_classes(names) == expected


@pytest.mark.parametrize(
    "dtype, low, high",
    [(np.uint16, 0, 4000), (np.int16, -1000, 3000), (np.int64, 0, 255), (bool, 0, 2)],
)
def test_other_number_types_come_out_in_0_to_1(dtype, low, high):
    data = from_arrays(RNG.integers(low, high, (10, 6, 6)).astype(dtype), np.arange(10) % 2)
    batch = data.batch(slice(None))
    assert (
        batch.dtype == np.float32 and batch.min() >= 0 and batch.max() <= 1 and np.ptp(batch) > 0.5
    )
