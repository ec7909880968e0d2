"""DICOM files for the tests of part 1: those that pydicom ships, changed ones, planted bad ones."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medbook.images import (
    DicomError,
    write_image,
)

WHEEL = Path(pydicom.__file__).parent / "data" / "test_files"


SHIPPED = sorted(path for path in WHEEL.rglob("*") if path.is_file())


CT = WHEEL / "CT_small.dcm"
MR = WHEEL / "MR_small.dcm"


COMPRESSED = [
    WHEEL / name
    for name in (
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
    )
]


def fault(call, path, *args, **options):
    """The message of the DicomError that a call raises: one line with file and fix."""
    with pytest.raises(DicomError) as caught:
        call(path, *args, **options)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and "; " in text
    assert len(text) < 500 + len(str(path))
    return text


def changed(source, target, **tags):
    """A copy of a file with some tags changed; None deletes a tag."""
    dataset = pydicom.dcmread(source)
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


def planted(folder):
    """Bad files by name, each with a word that its message has to contain."""
    raw = CT.read_bytes()
    dataset = pydicom.dcmread(CT)
    for name, (data, _) in (
        cases := {
            "empty": (b"", "empty"),
            "text": (b"Dear colleague, " * 40, "not a DICOM file"),
            "png": (b"\x89PNG\r\n" + bytes(900), "not a DICOM file"),
            "short": (raw[:100], "not a DICOM file"),
            "preamble": (raw[:132], "no transfer syntax"),
            "header": (raw[:2000], "no pixel data"),
            "pixels": (raw[:-5000], "cut off"),
            "rle": (COMPRESSED[0].read_bytes()[:-3000], "cut off"),
            "j2k": (COMPRESSED[1].read_bytes()[:-300], "cut off"),
        }
    ).items():
        (folder / f"{name}.dcm").write_bytes(data)
    for name, tags, word in [
        ("norows", {"Rows": 0}, "impossible"),
        ("huge", {"Rows": 65535, "Columns": 65535}, "65535 × 65535"),
        ("slope", {"RescaleSlope": 0}, "RescaleSlope"),
        ("frames", {"NumberOfFrames": 2_000_000_000}, "2000000000"),
        ("bits", {"BitsAllocated": 12}, "12 bits"),
        ("stored", {"BitsStored": 24}, "BitsStored"),
        ("samples", {"SamplesPerPixel": 4}, "4 values a pixel"),
        ("photo", {"PhotometricInterpretation": "CMYK"}, "CMYK"),
        ("nophoto", {"PhotometricInterpretation": None}, "PhotometricInterpretation"),
        ("nodata", {"PixelData": None}, "no pixel data"),
        ("void", {"PixelData": b""}, "holds 0"),
    ]:
        changed(CT, folder / f"{name}.dcm", **tags)
        cases[name] = (b"", word)
    for name, source in (
        ("huge_rle", COMPRESSED[0]),
        ("huge_j2k", COMPRESSED[1]),
        ("huge_jls", COMPRESSED[2]),
        ("huge_jpeg", COMPRESSED[3]),
    ):
        changed(source, folder / f"{name}.dcm", Rows=65535, Columns=65535)
        cases[name] = (b"", "65535 × 65535")
    dataset.save_as(folder / "nosyntax.dcm")
    data = (folder / "nosyntax.dcm").read_bytes()
    place = data.index(b"\x02\x00\x10\x00UI")
    (folder / "nosyntax.dcm").write_bytes(data[: place + 2] + b"\x11" + data[place + 3 :])
    (folder / "unknown.dcm").write_bytes(
        data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"[:20])
    )
    cases |= {"nosyntax": (b"", "no transfer syntax"), "unknown": (b"", "no installed decoder")}
    return {folder / f"{name}.dcm": word for name, (_, word) in cases.items()}


def stack(folder, places, **tags):
    """Small slices at places along the head axis, with file names in another order."""
    folder.mkdir(exist_ok=True)
    names = random.Random(1).sample(range(100), len(places))
    tags = {
        "SeriesInstanceUID": "1.2.3.4",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "spacing": (0.5, 0.6),
        "modality": "CT",
        "RescaleIntercept": -1000,
    } | tags
    return [
        write_image(
            folder / f"{name:02}.dcm",
            np.full((3, 4), int(place * 10), np.int16),
            ImagePositionPatient=[1, 2, place],
            InstanceNumber=name,
            **tags,
        )
        for name, place in zip(names, places, strict=True)
    ]
