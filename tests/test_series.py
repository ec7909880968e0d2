"""Contracts of medbook.images.series: slices in order, and what is missing is told."""

import random
import shutil
import warnings

import numpy as np
import pydicom
import pytest

from medbook.images import (
    read_series,
    slice_distance,
    slice_normal,
    slice_order,
    uneven_gaps,
    write_image,
)
from tests.dicom_files import changed, fault, stack


def test_slices_in_any_order_are_sorted_by_place():
    rng = np.random.default_rng(0)
    for orientation in ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [0.6, 0.8, 0, 0, 0, -1]):
        places = rng.permutation(9) * 1.5 - 4
        sideways = rng.normal(size=(9, 2)) @ np.reshape(orientation, (2, 3))
        positions = places[:, None] * slice_normal(orientation) + sideways
        order, distances = slice_order(positions, orientation)
        np.testing.assert_array_equal(order, np.argsort(places))
        np.testing.assert_allclose(distances, np.arange(9) * 1.5 - 4, atol=1e-9)


def test_series_is_sorted_along_the_normal(tmp_path):
    stack(tmp_path, [2.5, 0, 7.5, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_series(tmp_path)
    assert volume.pixels[:, 0, 0].tolist() == [-1000, -975, -950, -925] and volume.spacing == (
        2.5,
        0.5,
        0.6,
    )
    assert (
        volume.units == "HU"
        and volume.notes == []
        and volume.positions.tolist() == [0, 2.5, 5, 7.5]
    )


def test_head_in_order_when_names_are_shuffled(shared, tmp_path):
    paths = sorted((shared / "dicom/mr_head").glob("*.dcm"))
    for number, path in zip(random.Random(0).sample(range(1000), len(paths)), paths, strict=True):
        shutil.copy(path, tmp_path / f"{number:04}.dcm")
    volume = read_series(tmp_path)
    headers = [pydicom.dcmread(path) for path in paths]
    places = [
        slice_distance(header.ImagePositionPatient, header.ImageOrientationPatient)
        for header in headers
    ]
    order = np.argsort(places)
    assert volume.shape == (32, *headers[0].pixel_array.shape)
    for page, place in zip(volume.pixels, order, strict=True):
        np.testing.assert_array_equal(page, headers[place].pixel_array)
    np.testing.assert_allclose(volume.positions, np.sort(places))
    assert np.ptp(np.diff(volume.positions)) < 0.01 and order.tolist() in (
        list(range(32)),
        list(range(31, -1, -1)),
    )


def test_uneven_gaps_are_told(tmp_path):
    stack(tmp_path, [0, 2, 4, 8, 10])
    with pytest.warns(UserWarning, match="slice may be missing"):
        volume = read_series(tmp_path)
    assert "gap behind slice 2 is 4 mm" in volume.notes[0] and volume.spacing[0] == 2
    assert uneven_gaps([1.0]) == uneven_gaps([]) == uneven_gaps(np.arange(9) * 1.25) == ""


def test_mixed_series_are_listed_and_one_can_be_chosen(tmp_path):
    stack(tmp_path / "a", [0, 1, 2])
    stack(tmp_path / "b", [0, 1], SeriesInstanceUID="1.2.3.5", SeriesDescription="lung")
    text = fault(read_series, tmp_path)
    assert (
        "2 series" in text
        and "series=" in text
        and "1.2.3.4 (3 ×" in text
        and "1.2.3.5 (2 × 'lung')" in text
    )
    assert (
        len(read_series(tmp_path, series="1.2.3.4").pixels) == 3
        and len(read_series(tmp_path, series="lung").pixels) == 2
    )
    assert "not here" in fault(read_series, tmp_path, series="9.9")


def test_what_is_no_stack_is_an_error(tmp_path):
    stack(tmp_path / "twice", [0, 1, 1])
    assert "where another one lies" in fault(read_series, tmp_path / "twice")
    stack(tmp_path / "turned", [0, 1])
    changed(
        *[sorted((tmp_path / "turned").iterdir())[0]] * 2,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    assert "orientations" in fault(read_series, tmp_path / "turned")
    stack(tmp_path / "lost", [0, 1])
    changed(*[sorted((tmp_path / "lost").iterdir())[0]] * 2, ImagePositionPatient=None)
    assert "ImagePositionPatient" in fault(read_series, tmp_path / "lost")
    files = stack(tmp_path / "sizes", [0, 1])
    write_image(
        files[0],
        np.zeros((5, 5), np.int16),
        SeriesInstanceUID="1.2.3.4",
        ImagePositionPatient=[1, 2, 9],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )
    assert "sizes" in fault(read_series, tmp_path / "sizes")
    (tmp_path / "none").mkdir()
    assert "no readable DICOM image" in fault(read_series, tmp_path / "none")


def test_bad_file_among_slices_is_left_out_and_told(tmp_path):
    stack(tmp_path, [0, 1, 2])
    (tmp_path / "README").write_text("not a slice")
    with pytest.warns(UserWarning, match="left out.*README"):
        volume = read_series(tmp_path)
    assert len(volume.pixels) == 3 and "not a DICOM file" in volume.notes[0]


def test_tilted_stack_is_told(tmp_path):
    for number in range(4):
        write_image(
            tmp_path / f"{number}.dcm",
            np.zeros((2, 2), np.int16),
            SeriesInstanceUID="1.2",
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, number, 3 * number],
        )
    with pytest.warns(UserWarning, match="sheared"):
        assert read_series(tmp_path).spacing is None
