"""Contracts of medbook.images.headers: a row a file, whatever the file."""

import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from medbook.images import (
    DicomError,
    decoding,
    headers,
    index_folder,
    read_image,
    write_image,
)
from tests.dicom_files import CT, SHIPPED, WHEEL, fault, planted


def test_index_of_every_file_has_a_row_each(shared):
    table = index_folder([*SHIPPED, *sorted((shared / "dicom").rglob("*"))])
    table = table[table.path.map(os.path.isfile)]
    assert len(table) > 250 and (table.error != "").mean() < 0.16
    for row in table[table.error == ""].itertuples():
        dataset = pydicom.dcmread(row.path, force=True)
        assert row.patient == str(
            dataset.get("PatientID", "") or ""
        ).strip() and row.series == dataset.get("SeriesInstanceUID", "")
        assert row.instance == dataset.get("SOPInstanceUID", "") and row.modality == dataset.get(
            "Modality", ""
        )
        for column, keyword in (
            ("rows", "Rows"),
            ("columns", "Columns"),
            ("frames", "NumberOfFrames"),
            ("bits", "BitsAllocated"),
        ):
            told = dataset.get(keyword)
            assert (
                (getattr(row, column) is pd.NA)
                if told in (None, "")
                else getattr(row, column) == told
            )
        assert row.position == tuple(
            dataset.get("ImagePositionPatient") or ()
        ) and row.pixel_spacing == tuple(dataset.get("PixelSpacing") or ())
        assert row.pixels == any(
            keyword in dataset
            for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        )


def test_both_ways_through_a_header_give_the_same_row():
    """The second parser of headers is worth nothing if it reads anything else than pydicom."""
    quick = {}
    for path in SHIPPED:
        try:
            quick[path] = headers._quick_row(path)
        except Exception:
            continue                    # left to pydicom
    assert len(quick) > 100
    for path, row in quick.items():
        error = row.pop("error", "")
        with decoding.reading(path):
            try:
                assert headers._slow_row(path) == row, path
            except DicomError:
                assert error, path


def test_both_ways_to_an_image_give_the_same(shared):
    """The fast path of read_image must not read anything else than pydicom, nor lose a tag."""
    quick = 0
    for path in [*SHIPPED, *sorted((shared / "dicom").rglob("*.dcm"))]:
        with decoding.reading(path):
            try:
                few, header = headers._quick_image(path)
            except Exception:
                continue                # left to pydicom
            quick += 1
            whole = headers.read_dataset(path)
            meaning = headers._IMAGE_TAGS | headers._ODD_TAGS | {0x7FE00010}
            assert set(few.keys()) == meaning & set(whole.keys()), path
            assert all(few[tag].value == whole[tag].value for tag in few.keys()), path
            del whole.PixelData
            assert header() == whole and header().filename == whole.filename, path
    assert quick > 100


def test_the_header_of_an_image_is_read_when_looked_at_without_the_file(tmp_path):
    path = shutil.copy(CT, tmp_path / "x.dcm")
    image = read_image(path)
    os.remove(path)
    copied = pickle.loads(pickle.dumps(image))
    assert callable(vars(image)["dataset"]) and callable(vars(copied)["dataset"])
    assert image.dataset.PatientID == copied.dataset.PatientID == pydicom.dcmread(CT).PatientID
    assert image.dataset is image.dataset and "PixelData" not in image.dataset


def test_index_lists_bad_files_and_goes_on(tmp_path):
    bad = [
        path
        for path, word in planted(tmp_path).items()
        if path.stem
        in {
            "empty",
            "text",
            "png",
            "short",
            "preamble",
            "header",
            "pixels",
            "norows",
            "huge_rle",
            "nosyntax",
        }
    ]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(CT, tmp_path / "deep" / "er" / "good")
    shutil.copy(CT, tmp_path / ".hidden")
    table = index_folder(tmp_path).set_index("path")
    assert (
        table.error[str(tmp_path / "deep" / "er" / "good")] == ""
        and str(tmp_path / ".hidden") not in table.index
    )
    for path in bad:
        if path.stem not in ("header", "huge_rle"):
            assert (
                table.error[str(path)].startswith(f"{path}: ")
                and "\n" not in table.error[str(path)]
            ), path.name
    assert (
        table.rows[str(tmp_path / "pixels.dcm")] == 128
    )  # what could be read stands there all the same
    for path in (tmp_path / "missing", CT):
        fault(index_folder, path)
    assert len(index_folder([])) == 0


def test_index_by_several_processes_is_the_same():
    one = index_folder(WHEEL, workers=1)
    two = index_folder([*sorted(WHEEL.rglob("*.dcm"))] * 5, workers=2)
    assert (
        len(two) > 350
        and two.path.tolist() == [str(path) for path in sorted(WHEEL.rglob("*.dcm"))] * 5
    )
    merged = two.drop_duplicates("path").merge(one, on="path", suffixes=("", "_one"))
    assert len(merged) > 70
    for column in ("error", "instance", "rows", "position"):
        assert merged[column].equals(merged[f"{column}_one"])


def test_index_reads_names_beyond_ascii_and_implicit_files(tmp_path):
    path = write_image(
        tmp_path / "x.dcm",
        np.zeros((2, 2), np.uint8),
        PatientID="Zoë-1",
        SeriesDescription="Schädel",
        InstanceNumber=7,
    )
    assert index_folder(tmp_path).loc[0, ["patient", "description", "number"]].tolist() == [
        "Zoë-1",
        "Schädel",
        7,
    ]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    dataset.ReferencedImageSequence = Sequence([item])
    dataset["ReferencedImageSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert index_folder(tmp_path).loc[0, ["patient", "rows", "error"]].tolist() == ["Zoë-1", 2, ""]
    assert read_image(path).pixels.shape == (2, 2)
