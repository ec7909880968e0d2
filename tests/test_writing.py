"""Contracts of medbook.images.writing: valid files, whole or not at all."""

import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from medbook.images import writing
from medbook.images import (
    read_image,
    write_image,
)
from tests.dicom_files import fault


@given(
    st.sampled_from([("u1", 2), ("u2", 2), ("i2", 2), ("u1", 3)]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_written_pixels_come_back(tmp_path_factory, kind, rows, columns, seed):
    dtype = np.dtype(kind[0])
    limits = np.iinfo(kind[0])
    shape = (rows, columns) if kind[1] == 2 else (rows, columns, 3)
    pixels = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)
    path = write_image(tmp_path_factory.mktemp("w") / "x.dcm", pixels)
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, pixels)
    assert path.stat().st_size % 2 == 0


def test_written_file_is_valid(tmp_path):
    path = write_image(
        tmp_path / "x.dcm",
        np.zeros((4, 5), np.uint16),
        modality="CT",
        spacing=(0.1234567890123, 0.7),
        PatientID="P1",
        PatientAge="061Y",
        PatientSex="F",
        PatientName="Zoë^Test",
        RescaleIntercept=-1024,
        StudyDate="20240131",
    )
    dataset = pydicom.dcmread(path)
    assert (
        path.read_bytes()[128:132] == b"DICM"
        and dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    )
    assert (
        dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        and dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    )
    for keyword in (
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "Modality",
        "ConversionType",
        "Rows",
        "Columns",
        "BitsStored",
    ):
        assert dataset.get(keyword) not in (None, ""), keyword  # type 1: there and filled
    for keyword in writing._EMPTY:
        assert keyword in dataset  # type 2: there, may be empty
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType) == (
        1,
        -1024,
        "HU",
    ) and dataset.PatientName == "Zoë^Test"
    assert (
        all(len(value) <= 16 for value in map(str, dataset.PixelSpacing))
        and read_image(path).units == "HU"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        str(pydicom.dcmread(path))  # every value is valid


def test_fresh_or_seeded_identifiers(tmp_path):
    pixels = np.zeros((2, 2), np.uint8)
    a, b, c, d, e = (
        write_image(tmp_path / f"{i}.dcm", pixels, seed=seed).read_bytes()
        for i, seed in enumerate([None, None, 1, 1, 2])
    )
    assert a != b and c == d != e
    assert len({pydicom.dcmread(tmp_path / f"{i}.dcm").SOPInstanceUID for i in range(5)}) == 4


def test_spacing_tag_follows_the_modality(tmp_path):
    for modality, keyword in (
        ("DX", "ImagerPixelSpacing"),
        ("CR", "ImagerPixelSpacing"),
        ("MR", "PixelSpacing"),
    ):
        path = write_image(
            tmp_path / "x.dcm", np.zeros((2, 2), np.uint8), modality=modality, spacing=(0.2, 0.1)
        )
        assert pydicom.dcmread(path)[keyword].value == [0.2, 0.1] and read_image(path).spacing == (
            0.2,
            0.1,
        )


@pytest.mark.parametrize(
    "pixels, options, word",
    [
        (np.zeros((2, 2)), {}, "RescaleSlope"),
        (np.zeros((2, 2), np.int32), {}, "int32"),
        (np.zeros((2, 2, 3), np.uint16), {}, "uint16"),
        (np.zeros((2, 2, 2), np.uint8), {}, "shape"),
        (np.zeros((0, 2), np.uint8), {}, "shape"),
        (np.zeros(4, np.uint8), {}, "shape"),
        (np.zeros((1, 70_000), np.uint8), {}, "65535"),
        (np.zeros((2, 2), np.uint8), {"photometric": "RGB"}, "photometric"),
        (np.zeros((2, 2), np.uint8), {"PatientsName": "x"}, "PatientsName"),
        (np.zeros((2, 2), np.uint8), {"PatientAge": "61"}, "PatientAge"),
        (np.zeros((2, 2), np.uint8), {"StudyInstanceUID": "a.b"}, "StudyInstanceUID"),
        (np.zeros((2, 2), np.uint8), {"Rows": 5}, "Rows"),
        (np.zeros((2, 2), np.uint8), {"RescaleSlope": "steep"}, "RescaleSlope"),
        (np.zeros((2, 2), np.uint8), {"modality": "lower case"}, "Modality"),
        (np.zeros((2, 2), np.uint8), {"spacing": (0, 1)}, "spacing"),
        (np.zeros((2, 2), np.uint8), {"spacing": (1,)}, "spacing"),
    ],
)
def test_what_cannot_be_written(tmp_path, pixels, options, word):
    assert word in fault(write_image, tmp_path / "x.dcm", pixels, **options)
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_image(tmp_path / "x.dcm", np.zeros((2, 2), np.uint8))
    before = path.read_bytes()

    def full(dataset, target, **options):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Dataset, "save_as", full)
    assert "No space left" in fault(write_image, path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    fault(write_image, tmp_path / "no" / "folder.dcm", np.zeros((2, 2), np.uint8))
