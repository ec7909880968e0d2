"""`SliceViewer` and the arithmetic under it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydicom.data import get_testdata_file

from medbook.images.dicom import MedicalImage, read_image, window, WINDOWS
from medbook.images.series import read_series
from medbook.inspection import slices
from medbook.inspection.backend import InspectionError
from medbook.inspection.slices import (
    SliceViewer,
    grey_levels,
    overlay_masks,
    pack,
    pack_masks,
    plane_names,
    plane_of,
    unpack,
)


def volume_of(shape=(4, 6, 9), seed=0):
    return np.random.default_rng(seed).normal(0, 300, shape)


def picture(png):
    return np.asarray(Image.open(io.BytesIO(png)))


# ---- values to codes


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, (2, 3, 4), elements=st.floats(-1e9, 1e9) | st.just(np.nan)))
def test_packing_costs_at_most_the_stated_error(volume):
    try:
        packed = pack(volume)
    except InspectionError as error:
        assert np.isnan(volume).all() or "too close" in str(error)
        return
    back = unpack(packed)
    assert (np.isnan(back) == np.isnan(volume)).all() and np.nanmax(
        np.abs(back - volume)
    ) <= packed.error
    assert packed.codes.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize(
    "dtype", ["int16", "uint16", "uint8", "int32", "bool", "float32", "int64", "float16"]
)
def test_whole_numbers_are_kept_exactly(dtype):
    low, high = {
        "bool": (0, 1),
        "uint8": (0, 255),
        "uint16": (0, 65533),
        "float16": (-2000, 2000),
    }.get(dtype, (-1024, 3071))
    volume = np.random.default_rng(0).integers(low, high + 1, (3, 8, 8)).astype(dtype)
    viewer = SliceViewer(volume)
    assert viewer.packed.error == 0 and (unpack(viewer.packed) == volume).all()


def test_few_grey_levels_take_one_byte_and_many_two():
    assert pack(np.arange(255).reshape(1, 15, 17)).codes.dtype == np.uint8
    assert pack(np.arange(256).reshape(1, 16, 16)).codes.dtype == np.uint16
    full = np.array([[[-32768, 32767]]])
    packed = pack(full)
    assert packed.scale > 1 and np.abs(unpack(packed) - full).max() <= packed.error < 0.51


def test_constants_and_tiny_ranges():
    assert (unpack(pack(np.full((1, 2, 2), 1e-20))) == 1e-20).all()
    with pytest.raises(InspectionError, match="too close together"):
        pack(np.array([[[1.0, 1 + 1e-15]]]))
    small = 1e-30 * volume_of()
    assert np.abs(unpack(pack(small)) - small).max() <= pack(small).error < 1e-31


def test_grey_levels_are_the_books_window():
    values = volume_of()
    for centre, width in WINDOWS.values():
        assert (
            np.abs(grey_levels(values, centre, width) - 255 * window(values, centre, width)).max()
            <= 0.501
        )
    assert grey_levels([-200, 0, 200], 0, 400).tolist() == [0, 128, 255]


# ---- planes, masks, spacing


def test_planes_are_the_volumes_and_only_cross_sections_are_turned():
    volume = volume_of()
    assert (plane_of(volume, 0, 1) == volume[1]).all()
    assert (plane_of(volume, 1, 2) == volume[::-1, 2]).all() and (
        plane_of(volume, 2, 5, False) == volume[:, :, 5]
    ).all()


def test_planes_are_named_by_the_headers_orientation():
    assert plane_names() == (("axial", "coronal", "sagittal"), True)
    assert plane_names([1, 0, 0, 0, 1, 0]) == (("axial", "coronal", "sagittal"), True)
    assert plane_names([0, 1, 0, 0, 0, -1]) == (("sagittal", "axial", "coronal"), False)
    assert plane_names([1, 0, 0, 0, 0, -1]) == (("coronal", "axial", "sagittal"), False)
    assert plane_names([1, 0, 0, 0, -1, 0])[1] is False


def test_masks_may_overlap_and_come_as_arrays_labels_or_names():
    shape = (2, 3, 4)
    first, second = np.random.default_rng(0).random((2, *shape)) > 0.5
    names, bits = pack_masks({"a": first, "b": second}, shape)
    assert names == ["a", "b"] and (bits == first + 2 * second).all()
    names, bits = pack_masks(np.where(first, 3, np.where(second, 7, 0)), shape)
    assert names == ["label 3", "label 7"] and (bits == first + 2 * (second & ~first)).all()
    assert pack_masks(first.astype(float), shape)[0] == ["mask"] and pack_masks(
        first[0], (1, 3, 4)
    )[1].shape == (1, 3, 4)
    grey = np.full(shape, 100, np.uint8)
    assert (overlay_masks(grey, bits, 0) == 100).all() and (
        overlay_masks(grey, bits, 1)[bits == 1] == slices.COLOURS[0]
    ).all()
    assert (overlay_masks(grey, bits * 0, 0.7) == 100).all()


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((5, 6, 3)), {}, "colour"),
        (np.zeros((2, 5, 6, 3)), {}, "colour"),
        (np.zeros(4), {}, r"shape \(4,\)"),
        (np.full((2, 3, 4), np.nan), {}, "without a single number"),
        (np.array([[1, np.inf]]), {}, "1 of 2 values are infinite"),
        (np.zeros((2, 2, 2), complex), {}, "complex"),
        (np.array([["a"]]), {}, "real numbers"),
        (np.zeros((0, 5, 5)), {}, "single number"),
        (np.zeros((2, 5, 5)), {"spacing": (1, 0, 1)}, "above 0"),
        (np.zeros((2, 5, 5)), {"spacing": "x"}, "spacing"),
        (np.zeros((2, 5, 5)), {"spacing": 2}, "spacing"),
        (np.zeros((2, 5, 5)), {"windows": ["lungs"]}, "lungs.*lung, mediastinum"),
        (np.zeros((2, 5, 5)), {"windows": {"mine": (0, -3)}}, "mine.*above 0"),
        (np.zeros((2, 5, 5)), {"windows": {"mine": 3}}, "mine"),
        (np.zeros((2, 5, 5)), {"windows": []}, "windows"),
        (np.zeros((2, 5, 5)), {"masks": np.zeros((2, 5, 4), bool)}, r"\(2, 5, 4\).*\(2, 5, 5\)"),
        (np.zeros((2, 5, 5)), {"masks": np.full((2, 5, 5), 0.5)}, "other values than 0 and 1"),
        (np.zeros((2, 5, 5)), {"masks": np.arange(50).reshape(2, 5, 5)}, "more than eight"),
        (np.zeros((2, 500, 500)), {"budget": 0.5}, "1 MB in the browser, above budget=0.5"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(volume, options, message):
    with pytest.raises(InspectionError, match=message):
        SliceViewer(volume, **options)


# ---- the viewer


def test_a_viewer_tells_in_words_and_shows_a_still_picture():
    volume = np.round(volume_of((5, 20, 30)))
    viewer = SliceViewer(volume, spacing=(4, 2, 1), units="HU", title="Head")
    assert (
        viewer.alt() == "Head, axial slice 3 of 5, window soft tissue, centre 40 HU, width 400 HU"
    )
    bundle, _ = viewer._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= bundle.keys()
    seen = picture(bundle["image/png"])
    assert seen.shape == (440, 330)
    assert (seen[11::22, 5::11] == grey_levels(volume[2], 40, 400)).all()
    viewer.plane, viewer.place, viewer.centre, viewer.width = 1, [0, 7, 0], 100, 50
    assert picture(viewer.still()).shape == (
        293,
        440,
    ) and "coronal slice 8 of 20, window centre 100 HU, width 50 HU" in repr(viewer)
    seen, expected = picture(viewer.still()), grey_levels(plane_of(volume, 1, 7), 100, 50)
    down, across = (
        ((np.arange(5) + 0.5) * 293 / 5).astype(int),
        ((np.arange(30) + 0.5) * 440 / 30).astype(int),
    )
    assert (seen[np.ix_(down, across)] == expected).all()


def test_a_viewers_state_is_checked():
    viewer = SliceViewer(volume_of())
    viewer.place = [99, 2, 3]
    assert viewer.place == [3, 2, 3]
    for name, value in (
        ("width", 0),
        ("width", np.nan),
        ("plane", 3),
        ("place", [1, 2]),
        ("opacity", 2),
        ("place", [-1, 0, 0]),
    ):
        with pytest.raises(Exception, match=name):
            setattr(viewer, name, value)


def test_a_large_volume_is_sent_in_parts_when_it_is_asked_for(monkeypatch):
    volume, masks = (
        np.random.default_rng(0).integers(0, 4000, (5, 40, 40)),
        np.arange(8000).reshape(5, 40, 40) % 2 == 0,
    )
    monkeypatch.setattr(slices, "_AT_ONCE", 3000)
    viewer, sent = SliceViewer(volume, masks=masks), []
    monkeypatch.setattr(
        SliceViewer,
        "send",
        lambda self, content, buffers: sent.append((content["start"], bytes(buffers[0]))),
    )
    slices._send_parts(viewer, "hello", [])
    assert viewer._data == b"" and sent == []
    slices._send_parts(viewer, "volume", [])
    data = b"".join(part for _, part in sorted(sent))
    assert (np.frombuffer(data, "<u2", volume.size) - 1 + viewer.packed.low == volume.ravel()).all()
    assert (
        (np.frombuffer(data, np.uint8)[2 * volume.size :] == masks.ravel()).all()
        and sent[0][0] == 9000
        and len(sent) == 8
    )
    monkeypatch.setattr(slices, "_AT_ONCE", 10**6)
    assert SliceViewer(volume, masks=masks)._data == data


def test_one_image_nan_and_plain_numbers():
    image = volume_of((7, 9, 9))[0]
    image[2, 3] = np.nan
    viewer = SliceViewer(image)
    assert (
        viewer.place == [0, 4, 4]
        and list(viewer.windows) == ["all values"]
        and picture(viewer.still()).shape == (440, 440)
    )
    assert viewer.packed.codes[0, 2, 3] == 0 and "slice 1 of 1" in viewer.alt()


def test_a_medical_image_brings_its_spacing_units_and_planes():
    image = read_image(get_testdata_file("CT_small.dcm"))
    viewer = SliceViewer(image)
    assert (
        viewer.facts["spacing"][1:] == pytest.approx(image.spacing)
        and viewer.facts["units"] == "HU"
        and "lung" in viewer.windows
    )
    assert (unpack(viewer.packed)[0] == image.pixels).all()
    stack = MedicalImage(volume_of().astype(np.float32), spacing=(2.0, 2.0))
    assert SliceViewer(stack).facts["notes"] == [
        "distance of slices unknown: drawn as that of rows"
    ]


def test_a_real_series_is_shown(shared):
    series = read_series(shared / "dicom" / "mr_head")
    viewer = SliceViewer(series)
    assert viewer.facts["shape"] == list(series.pixels.shape) and viewer.facts[
        "spacing"
    ] == pytest.approx(series.spacing)
    assert np.abs(unpack(viewer.packed) - series.pixels).max() <= viewer.packed.error
    assert len(viewer.still()) > 10_000 and set(viewer.facts["planes"]) == {
        "axial",
        "coronal",
        "sagittal",
    }


def test_a_viewer_loads_without_keras():
    import subprocess
    import sys

    code = (
        "import sys, medbook.inspection.slices as v; v.SliceViewer([[1, 2], [3, 4]]); "
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
