"""Contracts of medbook.images.dicom: every file equals pydicom's pixels or is one clear error."""

import subprocess
import sys
import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from medbook.images import (
    WINDOWS,
    DicomError,
    read_image,
    read_series,
    rescale,
    slice_distance,
    slice_normal,
    window,
    write_image,
)
from tests.dicom_files import CT, SHIPPED, WHEEL, changed, fault


def palette(stored, dataset):
    """Red, green, blue through the three look-up tables, by NumPy (segmented ones by pydicom).

    In the big-endian files here only the upper bytes are used; read as little-endian, as pydicom
    does, they are 0 to 255.
    """
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        return pydicom.pixels.apply_color_lut(stored, dataset)
    order = "<"
    colours = []
    for name in ("Red", "Green", "Blue"):
        entries, first, bits = dataset[f"{name}PaletteColorLookupTableDescriptor"].value
        data = dataset[f"{name}PaletteColorLookupTableData"].value
        table = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (entries or 65536) else "u1")
        colours.append(table[np.clip(stored.astype(int) - first, 0, (entries or 65536) - 1)])
    return np.stack(colours, -1)


def independent(path):
    """Pixels by pydicom, then colour, MONOCHROME1 and rescale written out; None if it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            stored = dataset.pixel_array
        except Exception:
            return None
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette(stored, dataset)
        if dataset.get("SamplesPerPixel") == 3:
            return stored
        values = stored.astype(float)
        tags = dataset
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
    "path",
    [path for path in SHIPPED if "TINY_ALPHA" not in path.parts],
    ids=lambda path: str(path.relative_to(WHEEL)),
)
def test_shipped_file_equals_pydicom_or_is_an_error(path):
    assert_equal_or_error(path)


def test_most_shipped_files_are_read():
    """Guards the test above against a reader that only raises."""
    assert sum(independent(path) is not None for path in SHIPPED) > 80


def test_shared_files_equal_pydicom_or_are_errors(shared):
    paths = sorted((shared / "dicom").rglob("*.dcm"))
    errors = {path.name: text for path in paths if (text := assert_equal_or_error(path))}
    assert len(paths) >= 75 and len(errors) < 0.12 * len(paths)
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
            dataset.add_new(
                f"{name}PaletteColorLookupTableData", "OW", table.astype(f"{order}u2").tobytes()
            )
        dataset.file_meta.TransferSyntaxUID = syntax
        fresh = Dataset()
        fresh.update(dataset)
        fresh.file_meta = dataset.file_meta
        fresh.save_as(path, implicit_vr=False, little_endian=order == "<", enforce_file_format=True)
        np.testing.assert_array_equal(read_image(path).pixels, tables.T.reshape(2, 2, 3))


def test_ybr_to_rgb_by_the_formula():
    dataset = pydicom.dcmread(WHEEL / "SC_ybr_full_422_uncompressed.dcm")
    y, cb, cr = np.moveaxis(
        get_decoder(dataset.file_meta.TransferSyntaxUID)
        .as_array(dataset, raw=True)[0]
        .astype(float),
        -1,
        0,
    )
    rgb = np.stack(
        [
            y + 1.402 * (cr - 128),
            y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
            y + 1.772 * (cb - 128),
        ],
        -1,
    )
    pixels = read_image(WHEEL / "SC_ybr_full_422_uncompressed.dcm").pixels
    assert np.abs(np.clip(rgb, 0, 255) - pixels).max() <= 1 and np.ptp(pixels) > 100


@pytest.mark.parametrize(
    "name",
    [
        "examples_ybr_color.dcm",
        "rtdose.dcm",
        "rtdose_expb.dcm",
        "rtdose_rle.dcm",
        "SC_rgb_rle_2frame.dcm",
    ],
)
def test_one_frame_equals_that_frame_of_all(name):
    every = read_image(WHEEL / name).pixels
    np.testing.assert_array_equal(read_image(WHEEL / name, frame=1).pixels, every[1])
    assert f"frames 0 to {len(every) - 1}" in fault(read_image, WHEEL / name, frame=len(every))
    fault(read_image, WHEEL / name, frame=-1)


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
    "bits, signed, slope, intercept",
    [(8, 0, 1, 0), (12, 0, 1, -1024), (16, 1, 0.684, 200), (12, 1, 2, 0), (16, 0, -1, 5)],
)
def test_monochrome1_is_mirrored_in_the_range_of_the_stored_bits(
    tmp_path, bits, signed, slope, intercept
):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = (
        np.random.default_rng(0)
        .integers(low, high + 1, (6, 5))
        .astype("i2" if signed else "u2" if bits > 8 else "u1")
    )
    path = write_image(
        tmp_path / "x.dcm",
        stored if not signed else stored.astype(np.int16),
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    changed(path, path, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1)
    expected = (low + high - stored.astype(float)) * slope + intercept
    np.testing.assert_allclose(read_image(path).pixels, expected, rtol=1e-6, atol=1e-3)


def test_each_frame_of_an_enhanced_file_has_its_own_slope_and_place(tmp_path):
    dataset = pydicom.dcmread(
        write_image(tmp_path / "x.dcm", np.arange(12, dtype=np.uint16).reshape(6, 2), modality="CT")
    )
    dataset.Rows = 2
    dataset.NumberOfFrames = 3
    frames = []
    for slope, place in zip((1, 10, 100), (5, 0, 2.5), strict=True):
        frame = Dataset()
        values = Dataset()
        position = Dataset()
        values.RescaleSlope = slope
        values.RescaleIntercept = -1
        values.RescaleType = "HU"
        position.ImagePositionPatient = [0, 0, place]
        frame.PixelValueTransformationSequence = Sequence([values])
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    group = Dataset()
    measures = Dataset()
    plane = Dataset()
    measures.PixelSpacing = [0.5, 0.6]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    group.PixelMeasuresSequence = Sequence([measures])
    group.PlaneOrientationSequence = Sequence([plane])
    dataset.SharedFunctionalGroupsSequence = Sequence([group])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
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
        np.testing.assert_allclose(
            rescale(stored, a, b), (stored * float(a) + b).astype(np.float32), rtol=2e-7, atol=0
        )


@given(
    arrays(np.float32, 20, elements=st.floats(-5000, 5000, width=32)),
    st.floats(-1000, 1000),
    st.floats(1, 4000),
)
@settings(max_examples=30, deadline=None)
def test_window_is_the_clipped_line(values, center, width):
    shown = window(values, center, width)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(
        shown, np.clip((values.astype(float) - center) / width + 0.5, 0, 1), atol=1e-3
    )


def test_window_names_and_errors():
    assert all(
        window(np.array([c - w / 2, c, c + w / 2]), name) == pytest.approx([0, 0.5, 1])
        for name, (c, w) in WINDOWS.items()
    )
    source = np.array([1, 2], np.float32)
    window(source, "lung")
    assert source.tolist() == [1, 2] and float(window(40, "brain")) == 0.5
    for bad in (("lungs",), ("lung", 5), (0,), (0, 0), (0, -1), (np.nan, 1)):
        with pytest.raises(DicomError, match="window"):
            window(source, *bad)


@given(
    arrays(np.float64, 3, elements=st.floats(-1, 1)),
    arrays(np.float64, 3, elements=st.floats(-1, 1)),
    st.floats(-50, 50),
)
@settings(max_examples=30, deadline=None)
def test_normal_is_perpendicular_and_distance_moves_along_it(a, b, step):
    row = a / (np.linalg.norm(a) or 1)
    column = b - (b @ row) * row
    if np.linalg.norm(a) < 0.1 or np.linalg.norm(column) < 0.1:
        return
    column /= np.linalg.norm(column)
    orientation = [*row, *column]
    normal = slice_normal(orientation)
    assert (
        abs(normal @ row) < 1e-9
        and abs(normal @ column) < 1e-9
        and np.linalg.norm(normal) == pytest.approx(1)
    )
    assert slice_distance(step * normal + 7 * row - 3 * column, orientation) == pytest.approx(
        step, abs=1e-6
    )


@pytest.mark.parametrize("orientation", [[1, 0, 0, 1, 0, 0], [0] * 6, [1, 0, 0], [np.nan] * 6])
def test_impossible_orientation(orientation):
    with pytest.raises(DicomError, match="ImageOrientationPatient"):
        slice_normal(orientation)


def test_the_image_shows_no_patient_and_can_be_pickled():
    import pickle

    image = read_image(CT)
    again = pickle.loads(pickle.dumps(image))
    assert (
        str(image.dataset.PatientID) not in repr(image)
        and again.dataset.PatientID == image.dataset.PatientID
    )
    np.testing.assert_array_equal(again.pixels, image.pixels)


def test_import_is_light():
    heavy = ("keras", "tensorflow", "matplotlib", "pandas", "wfdb", "cv2", "skimage")
    light = ("dicom", "decoding", "series", "headers", "waveforms", "writing")
    modules = ", ".join(f"medbook.images.{name}" for name in light)
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
