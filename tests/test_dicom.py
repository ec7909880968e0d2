"""Contracts of medbook.images.dicom: every file equals pydicom's pixels or is one clear error."""

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medbook.images import dicom
from medbook.images.dicom import (
    WINDOWS,
    DicomError,
    index_folder,
    read_image,
    read_series,
    read_waveform,
    rescale,
    slice_distance,
    slice_normal,
    uneven_gaps,
    window,
    write_image,
)

WHEEL = Path(pydicom.__file__).parent / "data" / "test_files"
SHIPPED = sorted(path for path in WHEEL.rglob("*") if path.is_file())
CT, MR = WHEEL / "CT_small.dcm", WHEEL / "MR_small.dcm"
COMPRESSED = [
    WHEEL / name for name in ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm")
]


def fault(call, path, *args, **options):
    """The message of the DicomError that a call raises: one line that begins with the file and offers a mend."""
    with pytest.raises(DicomError) as caught:
        call(path, *args, **options)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and "; " in text and len(text) < 500 + len(str(path))
    return text


# ---- every file: equal to an independent path, or an error


def palette(stored, dataset):
    """Red, green, blue through the three look-up tables, by NumPy alone (segmented ones by pydicom).

    In the big-endian files here only the upper bytes are used; read as little-endian, as pydicom does, they are 0 to 255.
    """
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        return pydicom.pixels.apply_color_lut(stored, dataset)
    order, colours = "<", []
    for name in ("Red", "Green", "Blue"):
        entries, first, bits = dataset[f"{name}PaletteColorLookupTableDescriptor"].value
        data = dataset[f"{name}PaletteColorLookupTableData"].value
        table = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (entries or 65536) else "u1")
        colours.append(table[np.clip(stored.astype(int) - first, 0, (entries or 65536) - 1)])
    return np.stack(colours, -1)


def independent(path):
    """Pixels by pydicom's own decoding, then colour, MONOCHROME1 and rescale written out; None if pydicom cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            stored = dataset.pixel_array
        except Exception:
            return None
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette(stored, dataset)
        if dataset.SamplesPerPixel == 3 if "SamplesPerPixel" in dataset else False:
            return stored
        values, tags = stored.astype(float), dataset
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = 2**dataset.BitsStored - 1 - values
        for group in dataset.get("SharedFunctionalGroupsSequence", []):
            tags = group.get("PixelValueTransformationSequence", [tags])[0]
        return values * float(tags.get("RescaleSlope", 1)) + float(tags.get("RescaleIntercept", 0))


def assert_equal_or_error(path):
    theirs = independent(path)
    if theirs is None:
        return fault(read_image, path)
    image = read_image(path)
    assert image.pixels.dtype == np.float32 and image.pixels.shape == theirs.shape
    np.testing.assert_array_equal(image.pixels, theirs.astype(np.float32))
    assert image.units in ("HU", "a.u.") and "PixelData" not in image.dataset
    return ""


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if "TINY_ALPHA" not in path.parts], ids=lambda path: str(path.relative_to(WHEEL))
)
def test_shipped_file_equals_pydicom_or_is_an_error(path):
    assert_equal_or_error(path)


def test_most_shipped_files_are_read():
    """Guards the test above against a reader that only raises."""
    assert sum(independent(path) is not None for path in SHIPPED) > 80


def test_shared_files_equal_pydicom_or_are_errors(shared):
    paths = sorted((shared / "dicom").rglob("*.dcm"))
    errors = {path.name: text for path in paths if (text := assert_equal_or_error(path))}
    assert len(paths) >= 75 and len(errors) < 8
    assert "1.2.840.10008.1.2.8.1" in errors["liver_deflate.dcm"]
    assert "cut off" in errors["emri_small_jpeg_2k_lossless_too_short.dcm"]


def test_true_16_bit_palette_of_a_big_endian_file(tmp_path):
    path = write_image(tmp_path / "x.dcm", np.uint8([[0, 1], [2, 3]]))
    tables = np.array([[1, 500, 60000, 7], [2, 3, 4, 5], [65535, 256, 255, 0]], "u2")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for order, syntax in (("<", ExplicitVRLittleEndian), (">", ExplicitVRBigEndian)):
        for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
            dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
            dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", table.astype(f"{order}u2").tobytes())
        dataset.file_meta.TransferSyntaxUID = syntax
        fresh = Dataset()
        fresh.update(dataset)
        fresh.file_meta = dataset.file_meta
        fresh.save_as(path, implicit_vr=False, little_endian=order == "<", enforce_file_format=True)
        np.testing.assert_array_equal(read_image(path).pixels, tables.T.reshape(2, 2, 3))


def test_ybr_to_rgb_by_the_formula():
    dataset = pydicom.dcmread(WHEEL / "SC_ybr_full_422_uncompressed.dcm")
    y, cb, cr = np.moveaxis(get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, raw=True)[0].astype(float), -1, 0)
    rgb = np.stack([y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], -1)
    pixels = read_image(WHEEL / "SC_ybr_full_422_uncompressed.dcm").pixels
    assert np.abs(np.clip(rgb, 0, 255) - pixels).max() <= 1 and np.ptp(pixels) > 100


def test_nothing_is_printed_warned_or_logged(shared, capfd, caplog):
    filters, logger = list(warnings.filters), logging.getLogger("pydicom")
    before = logger.propagate, pydicom.config.settings.reading_validation_mode
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for path in [*WHEEL.glob("*.dcm"), *(shared / "dicom" / "pydicom-data").iterdir()]:
            try:
                read_image(path)
            except DicomError:
                pass
    assert not seen and capfd.readouterr() == ("", "") and not [record for record in caplog.records if "pydicom" in record.name]
    assert warnings.filters == filters and (logger.propagate, pydicom.config.settings.reading_validation_mode) == before


def test_threads_leave_the_warnings_as_they_were():
    filters, paths = list(warnings.filters), [CT, MR, WHEEL / "badVR.dcm", *COMPRESSED] * 12

    def read(path):
        try:
            return read_image(path).pixels.sum()
        except DicomError:
            return None

    expected = [read(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, paths)) == expected
    assert warnings.filters == filters


# ---- frames, units, spacing, brightness


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm", "SC_rgb_rle_2frame.dcm"])
def test_one_frame_equals_that_frame_of_all(name):
    every = read_image(WHEEL / name).pixels
    np.testing.assert_array_equal(read_image(WHEEL / name, frame=1).pixels, every[1])
    assert f"frames 0 to {len(every) - 1}" in fault(read_image, WHEEL / name, frame=len(every))
    fault(read_image, WHEEL / name, frame=-1)


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


@pytest.mark.parametrize(
    "tags, units",
    [
        ({}, "HU"),
        ({"RescaleType": "HU"}, "HU"),
        ({"RescaleType": "US"}, "a.u."),
        ({"Modality": "MR"}, "a.u."),
        ({"Modality": "PT", "RescaleType": "HU"}, "HU"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a.u."),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "a.u."),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "a.u."),
    ],
)
def test_units_are_hu_only_where_the_file_says_so(tmp_path, tags, units):
    assert read_image(changed(CT, tmp_path / "x.dcm", **tags)).units == units


@pytest.mark.parametrize(
    "tags, spacing",
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({"PixelSpacing": None}, None),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"PixelSpacing": [0, 1]}, None),
        ({"PixelSpacing": [1, 2], "ImagerPixelSpacing": [3, 4]}, (1, 2)),
    ],
)
def test_spacing_from_either_tag(tmp_path, tags, spacing):
    assert read_image(changed(CT, tmp_path / "x.dcm", **tags)).spacing == spacing


@pytest.mark.parametrize(
    "bits, signed, slope, intercept", [(8, 0, 1, 0), (12, 0, 1, -1024), (16, 1, 0.684, 200), (12, 1, 2, 0), (16, 0, -1, 5)]
)
def test_monochrome1_is_mirrored_in_the_range_of_the_stored_bits(tmp_path, bits, signed, slope, intercept):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = np.random.default_rng(0).integers(low, high + 1, (6, 5)).astype("i2" if signed else "u2" if bits > 8 else "u1")
    path = write_image(
        tmp_path / "x.dcm", stored if not signed else stored.astype(np.int16), RescaleSlope=slope, RescaleIntercept=intercept
    )
    changed(path, path, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1)
    expected = (low + high - stored.astype(float)) * slope + intercept
    np.testing.assert_allclose(read_image(path).pixels, expected, rtol=1e-6, atol=1e-3)


def test_unused_bits_are_cleared(tmp_path):
    stored = np.array([[0x0FFF, 0xF001], [0x8800, 0x07FF]], np.uint16)
    path = write_image(tmp_path / "x.dcm", stored)
    changed(path, path, BitsStored=12, HighBit=11)
    assert read_image(path).pixels.tolist() == [[4095, 1], [2048, 2047]]
    changed(path, path, PixelRepresentation=1)
    assert read_image(path).pixels.tolist() == [[-1, 1], [-2048, 2047]]


def test_each_frame_of_an_enhanced_file_has_its_own_slope_and_place(tmp_path):
    dataset = pydicom.dcmread(write_image(tmp_path / "x.dcm", np.arange(12, dtype=np.uint16).reshape(6, 2), modality="CT"))
    dataset.Rows, dataset.NumberOfFrames, frames = 2, 3, []
    for slope, place in zip((1, 10, 100), (5, 0, 2.5), strict=True):
        frame, values, position = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, -1, "HU"
        position.ImagePositionPatient = [0, 0, place]
        frame.PixelValueTransformationSequence, frame.PlanePositionSequence = Sequence([values]), Sequence([position])
        frames.append(frame)
    group, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.5, 0.6], [1, 0, 0, 0, 1, 0]
    group.PixelMeasuresSequence, group.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = Sequence([group]), Sequence(frames)
    dataset.save_as(tmp_path / "x.dcm")
    image = read_image(tmp_path / "x.dcm")
    expected = np.arange(12.0).reshape(3, 2, 2) * np.array([1, 10, 100])[:, None, None] - 1
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.units == "HU" and image.spacing == (2.5, 0.5, 0.6)
    np.testing.assert_array_equal(read_image(tmp_path / "x.dcm", frame=2).pixels, expected[2])
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.pixels, expected[[1, 2, 0]])
    assert volume.positions.tolist() == [0, 2.5, 5]


def test_nan_is_told_and_can_be_replaced(shared, tmp_path):
    dataset = pydicom.dcmread(shared / "dicom/pydicom-data/parametric_map_float.dcm")
    values = np.frombuffer(dataset.FloatPixelData, "<f4").copy()
    values[[3, 7]] = np.nan, np.inf
    dataset.FloatPixelData = values.tobytes()
    dataset.save_as(tmp_path / "nan.dcm")
    assert "2 of 16384 pixels are NaN or infinite" in fault(read_image, tmp_path / "nan.dcm")
    values[[3, 7]] = -5
    np.testing.assert_array_equal(read_image(tmp_path / "nan.dcm", nan=-5).pixels.ravel(), values)


@given(
    arrays(st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32]), (3, 4)),
    st.floats(-1e3, 1e3).filter(lambda slope: slope != 0),
    st.floats(-1e4, 1e4),
)
@settings(max_examples=30, deadline=None)
def test_rescale_equals_double_precision(stored, slope, intercept):
    for a, b in ((slope, intercept), (round(slope), round(intercept)), (1, 0)):
        np.testing.assert_allclose(rescale(stored, a, b), (stored * float(a) + b).astype(np.float32), rtol=2e-7, atol=0)


@given(arrays(np.float32, 20, elements=st.floats(-5000, 5000, width=32)), st.floats(-1000, 1000), st.floats(1, 4000))
@settings(max_examples=30, deadline=None)
def test_window_is_the_clipped_line(values, center, width):
    shown = window(values, center, width)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, np.clip((values.astype(float) - center) / width + 0.5, 0, 1), atol=1e-3)


def test_window_names_and_errors():
    assert all(window(np.array([c - w / 2, c, c + w / 2]), name) == pytest.approx([0, 0.5, 1]) for name, (c, w) in WINDOWS.items())
    source = np.array([1, 2], np.float32)
    window(source, "lung")
    assert source.tolist() == [1, 2] and float(window(40, "brain")) == 0.5
    for bad in (("lungs",), ("lung", 5), (0,), (0, 0), (0, -1), (np.nan, 1)):
        with pytest.raises(DicomError, match="window"):
            window(source, *bad)


# ---- bad input


def planted(folder):
    """Bad files by name, each with a word that its message has to contain."""
    raw, dataset = CT.read_bytes(), pydicom.dcmread(CT)
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
    (folder / "unknown.dcm").write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"[:20]))
    cases |= {"nosyntax": (b"", "no transfer syntax"), "unknown": (b"", "no installed decoder")}
    return {folder / f"{name}.dcm": word for name, (_, word) in cases.items()}


def test_bad_files_are_one_line_with_the_fault(tmp_path):
    for path, word in planted(tmp_path).items():
        assert word in fault(read_image, path), path.name
    assert "no such file" in fault(read_image, tmp_path / "missing.dcm")
    assert "folder" in fault(read_image, tmp_path)


def test_a_lying_header_takes_no_memory(tmp_path):
    paths = [path for path in planted(tmp_path) if path.stem.startswith(("huge", "frames"))]
    tracemalloc.start()
    try:
        for path in paths:
            fault(read_image, path)
        assert len(paths) == 6 and tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_unreadable_file(tmp_path, monkeypatch):
    shutil.copy(CT, tmp_path / "x.dcm")

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "Permission denied" in fault(read_image, tmp_path / "x.dcm")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "ordinary" in fault(read_image, tmp_path / "pipe")
    assert "ordinary" in index_folder(tmp_path).error[0]


@pytest.mark.parametrize(
    "path, package",
    zip(COMPRESSED, ["pylibjpeg-rle", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm"], strict=True),
    ids=lambda value: getattr(value, "stem", None),
)
def test_missing_decoder_names_the_package(monkeypatch, path, package):
    decoder = get_decoder(pydicom.dcmread(path).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {})
    assert f"pip install {package}" in fault(read_image, path)


def test_a_decoder_that_fills_with_grey_is_caught(tmp_path):
    """libjpeg reports success on a stream without its second half; its remark on standard error is the only sign."""
    dataset = pydicom.dcmread(COMPRESSED[3])
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    half = stream[: len(stream) // 2] + b"\xff\xd9"
    dataset.PixelData = pydicom.encaps.encapsulate([half + b"\0" * (len(half) % 2)])
    dataset.save_as(tmp_path / "half.dcm")
    assert "cannot be decoded" in fault(read_image, tmp_path / "half.dcm")


FUZZED = [path for path in SHIPPED if path.suffix == ".dcm" and path.stat().st_size < 50_000]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_damaged_bytes_give_a_result_or_a_dicom_error(tmp_path_factory, seed):
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("fuzz") / "x.dcm"
    for _ in range(4):
        data = bytearray(rng.choice(FUZZED).read_bytes())
        if rng.random() < 0.4:
            data = data[: rng.randrange(len(data) + 1)]
        for _ in range(rng.choice([0, 1, 5, 30]) if data else 0):
            data[rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 2500))] = rng.randrange(256)
        path.write_bytes(data)
        for call in (read_image, read_waveform, read_series):
            try:
                call(path if call is not read_series else [path])
            except DicomError as error:
                assert "\n" not in str(error) and str(path.parent) in str(error)
        assert len(index_folder([path])) == 1


# ---- index


def test_index_of_every_file_has_a_row_each(shared):
    table = index_folder([*SHIPPED, *sorted((shared / "dicom").rglob("*"))])
    table = table[table.path.map(os.path.isfile)]
    assert len(table) > 250 and (table.error != "").sum() < 40
    for row in table[table.error == ""].itertuples():
        dataset = pydicom.dcmread(row.path, force=True)
        assert row.patient == str(dataset.get("PatientID", "") or "").strip() and row.series == dataset.get("SeriesInstanceUID", "")
        assert row.instance == dataset.get("SOPInstanceUID", "") and row.modality == dataset.get("Modality", "")
        for column, keyword in (("rows", "Rows"), ("columns", "Columns"), ("frames", "NumberOfFrames"), ("bits", "BitsAllocated")):
            told = dataset.get(keyword)
            assert (getattr(row, column) is pd.NA) if told in (None, "") else getattr(row, column) == told
        assert row.position == tuple(dataset.get("ImagePositionPatient") or ()) and row.pixel_spacing == tuple(
            dataset.get("PixelSpacing") or ()
        )
        assert row.pixels == any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def test_index_lists_bad_files_and_goes_on(tmp_path):
    bad = [
        path
        for path, word in planted(tmp_path).items()
        if path.stem in {"empty", "text", "png", "short", "preamble", "header", "pixels", "norows", "huge_rle", "nosyntax"}
    ]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(CT, tmp_path / "deep" / "er" / "good")
    shutil.copy(CT, tmp_path / ".hidden")
    table = index_folder(tmp_path).set_index("path")
    assert table.error[str(tmp_path / "deep" / "er" / "good")] == "" and str(tmp_path / ".hidden") not in table.index
    for path in bad:
        if path.stem not in ("header", "huge_rle"):
            assert table.error[str(path)].startswith(f"{path}: ") and "\n" not in table.error[str(path)], path.name
    assert table.rows[str(tmp_path / "pixels.dcm")] == 128  # what could be read stands there all the same
    for path in (tmp_path / "missing", CT):
        fault(index_folder, path)
    assert len(index_folder([])) == 0


def test_index_by_several_processes_is_the_same():
    one, two = index_folder(WHEEL, workers=1), index_folder([*sorted(WHEEL.rglob("*.dcm"))] * 5, workers=2)
    assert len(two) > 350 and two.path.tolist() == [str(path) for path in sorted(WHEEL.rglob("*.dcm"))] * 5
    merged = two.drop_duplicates("path").merge(one, on="path", suffixes=("", "_one"))
    assert len(merged) > 70
    for column in ("error", "instance", "rows", "position"):
        assert merged[column].equals(merged[f"{column}_one"])


def test_index_reads_names_beyond_ascii_and_implicit_files(tmp_path):
    path = write_image(tmp_path / "x.dcm", np.zeros((2, 2), np.uint8), PatientID="Zoë-1", SeriesDescription="Schädel", InstanceNumber=7)
    assert index_folder(tmp_path).loc[0, ["patient", "description", "number"]].tolist() == ["Zoë-1", "Schädel", 7]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    dataset.ReferencedImageSequence = Sequence([item])
    dataset["ReferencedImageSequence"].is_undefined_length = item.is_undefined_length_sequence_item = True
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert index_folder(tmp_path).loc[0, ["patient", "rows", "error"]].tolist() == ["Zoë-1", 2, ""]
    assert read_image(path).pixels.shape == (2, 2)


# ---- series


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


def test_series_is_sorted_along_the_normal(tmp_path):
    stack(tmp_path, [2.5, 0, 7.5, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_series(tmp_path)
    assert volume.pixels[:, 0, 0].tolist() == [-1000, -975, -950, -925] and volume.spacing == (2.5, 0.5, 0.6)
    assert volume.units == "HU" and volume.notes == [] and volume.positions.tolist() == [0, 2.5, 5, 7.5]


def test_head_in_order_when_names_are_shuffled(shared, tmp_path):
    paths = sorted((shared / "dicom/mr_head").glob("*.dcm"))
    for number, path in zip(random.Random(0).sample(range(1000), len(paths)), paths, strict=True):
        shutil.copy(path, tmp_path / f"{number:04}.dcm")
    volume, headers = read_series(tmp_path), [pydicom.dcmread(path) for path in paths]
    places = [slice_distance(header.ImagePositionPatient, header.ImageOrientationPatient) for header in headers]
    order = np.argsort(places)
    assert volume.shape == (32, *headers[0].pixel_array.shape)
    for page, place in zip(volume.pixels, order, strict=True):
        np.testing.assert_array_equal(page, headers[place].pixel_array)
    np.testing.assert_allclose(volume.positions, np.sort(places))
    assert np.ptp(np.diff(volume.positions)) < 0.01 and order.tolist() in (list(range(32)), list(range(31, -1, -1)))


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
    assert "2 series" in text and "series=" in text and "1.2.3.4 (3 ×" in text and "1.2.3.5 (2 × 'lung')" in text
    assert len(read_series(tmp_path, series="1.2.3.4").pixels) == 3 and len(read_series(tmp_path, series="lung").pixels) == 2
    assert "not here" in fault(read_series, tmp_path, series="9.9")


def test_what_is_no_stack_is_an_error(tmp_path):
    stack(tmp_path / "twice", [0, 1, 1])
    assert "where another one lies" in fault(read_series, tmp_path / "twice")
    stack(tmp_path / "turned", [0, 1])
    changed(*[sorted((tmp_path / "turned").iterdir())[0]] * 2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
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


@given(arrays(np.float64, 3, elements=st.floats(-1, 1)), arrays(np.float64, 3, elements=st.floats(-1, 1)), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_normal_is_perpendicular_and_distance_moves_along_it(a, b, step):
    row = a / (np.linalg.norm(a) or 1)
    column = b - (b @ row) * row
    if np.linalg.norm(a) < 0.1 or np.linalg.norm(column) < 0.1:
        return
    column /= np.linalg.norm(column)
    orientation = [*row, *column]
    normal = slice_normal(orientation)
    assert abs(normal @ row) < 1e-9 and abs(normal @ column) < 1e-9 and np.linalg.norm(normal) == pytest.approx(1)
    assert slice_distance(step * normal + 7 * row - 3 * column, orientation) == pytest.approx(step, abs=1e-6)


@pytest.mark.parametrize("orientation", [[1, 0, 0, 1, 0, 0], [0] * 6, [1, 0, 0], [np.nan] * 6])
def test_impossible_orientation(orientation):
    with pytest.raises(DicomError, match="ImageOrientationPatient"):
        slice_normal(orientation)


# ---- waveforms


def test_dicom_ecg_in_millivolt():
    ecg = read_waveform(WHEEL / "waveform_ecg.dcm")
    item = pydicom.dcmread(WHEEL / "waveform_ecg.dcm").WaveformSequence[0]
    raw = np.frombuffer(item.WaveformData, "<i2").reshape(-1, 12)
    np.testing.assert_allclose(ecg.samples, raw * 1.25e-3, rtol=1e-6)
    assert (
        ecg.samples.dtype == np.float32
        and ecg.rate == 1000
        and ecg.leads == ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    )
    assert 0.5 < np.ptp(ecg.samples[:, 1]) < 5 and read_waveform(WHEEL / "waveform_ecg.dcm", group=1).samples.shape == (1200, 12)
    assert "groups 0 to 1" in fault(read_waveform, WHEEL / "waveform_ecg.dcm", group=2)
    assert "no waveform" in fault(read_waveform, CT)


def test_units_of_a_dicom_waveform(tmp_path):
    dataset = pydicom.dcmread(WHEEL / "waveform_ecg.dcm")
    for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence:
        channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    dataset.save_as(tmp_path / "mv.dcm")
    np.testing.assert_allclose(
        read_waveform(tmp_path / "mv.dcm").samples, 1000 * read_waveform(WHEEL / "waveform_ecg.dcm").samples, rtol=1e-5
    )
    dataset.WaveformSequence[0].ChannelDefinitionSequence[3].ChannelSensitivityUnitsSequence[0].CodeValue = "mm[Hg]"
    dataset.save_as(tmp_path / "pressure.dcm")
    assert "no voltage" in fault(read_waveform, tmp_path / "pressure.dcm")
    dataset.WaveformSequence[0].NumberOfWaveformSamples = 2_000_000_000
    dataset.save_as(tmp_path / "huge.dcm")
    assert "do not fit" in fault(read_waveform, tmp_path / "huge.dcm")


def test_wfdb_records(shared):
    import wfdb

    header = sorted((shared / "ecg/cinc2021").glob("*.hea"))[0]
    theirs = wfdb.rdrecord(str(header.with_suffix("")))
    for path in (header, header.with_suffix(""), header.with_suffix(".mat")):
        ecg = read_waveform(path)
        np.testing.assert_allclose(ecg.samples, theirs.p_signal, rtol=1e-6, atol=1e-9)
        assert ecg.leads == theirs.sig_name and ecg.rate == theirs.fs and ecg.comments == theirs.comments
    every = [read_waveform(path) for path in sorted((shared / "ecg").rglob("*.hea"))]
    assert len(every) == 51 and {len(ecg.leads) for ecg in every} == {2, 12} and all(ecg.samples.dtype == np.float32 for ecg in every)


def test_wfdb_units_and_faults(tmp_path):
    import wfdb

    signal = np.random.default_rng(0).normal(size=(50, 1))
    wfdb.wrsamp("rec", fs=100, units=["uV"], sig_name=["II"], p_signal=signal * 1000, fmt=["16"], write_dir=str(tmp_path))
    np.testing.assert_allclose(read_waveform(tmp_path / "rec").samples, signal, atol=1e-3)
    header = (tmp_path / "rec.hea").read_text()
    (tmp_path / "rec.hea").write_text(header.replace("uV", "mmHg"))
    assert "no voltage" in fault(read_waveform, tmp_path / "rec.hea")
    (tmp_path / "rec.hea").write_text("nonsense\n")
    fault(read_waveform, tmp_path / "rec.hea")
    (tmp_path / "rec.hea").write_text(header)
    (tmp_path / "rec.dat").unlink()
    assert "missing" in fault(read_waveform, tmp_path / "rec.hea")
    assert "missing" in fault(read_waveform, tmp_path / "other.hea")
    assert "no such file" in fault(read_waveform, tmp_path / "nothing")


# ---- writing


@given(st.sampled_from([("u1", 2), ("u2", 2), ("i2", 2), ("u1", 3)]), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_written_pixels_come_back(tmp_path_factory, kind, rows, columns, seed):
    dtype, limits = np.dtype(kind[0]), np.iinfo(kind[0])
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
    assert path.read_bytes()[128:132] == b"DICM" and dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
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
    for keyword in dicom.EMPTY:
        assert keyword in dataset  # type 2: there, may be empty
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType) == (1, -1024, "HU") and dataset.PatientName == "Zoë^Test"
    assert all(len(value) <= 16 for value in map(str, dataset.PixelSpacing)) and read_image(path).units == "HU"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        str(pydicom.dcmread(path))  # every value is valid


def test_fresh_or_seeded_identifiers(tmp_path):
    pixels = np.zeros((2, 2), np.uint8)
    a, b, c, d, e = (write_image(tmp_path / f"{i}.dcm", pixels, seed=seed).read_bytes() for i, seed in enumerate([None, None, 1, 1, 2]))
    assert a != b and c == d != e
    assert len({pydicom.dcmread(tmp_path / f"{i}.dcm").SOPInstanceUID for i in range(5)}) == 4


def test_spacing_tag_follows_the_modality(tmp_path):
    for modality, keyword in (("DX", "ImagerPixelSpacing"), ("CR", "ImagerPixelSpacing"), ("MR", "PixelSpacing")):
        path = write_image(tmp_path / "x.dcm", np.zeros((2, 2), np.uint8), modality=modality, spacing=(0.2, 0.1))
        assert pydicom.dcmread(path)[keyword].value == [0.2, 0.1] and read_image(path).spacing == (0.2, 0.1)


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


def test_compressed_copy_reads_the_same(tmp_path):
    dataset = pydicom.dcmread(CT)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    image = read_image(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(image.pixels, read_image(CT).pixels)
    assert image.units == "HU" and image.dataset.PatientID == dataset.PatientID


def test_the_image_shows_no_patient_and_can_be_pickled():
    import pickle

    image = read_image(CT)
    again = pickle.loads(pickle.dumps(image))
    assert str(image.dataset.PatientID) not in repr(image) and again.dataset.PatientID == image.dataset.PatientID
    np.testing.assert_array_equal(again.pixels, image.pixels)


def test_import_is_light():
    heavy = ("keras", "tensorflow", "matplotlib", "pandas", "wfdb", "cv2", "skimage")
    code = f"import sys, medbook.images.dicom; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
