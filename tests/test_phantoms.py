"""The phantoms' truth against the picture, and the study on disk."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from medbook.images import patients, phantoms, xray
from medbook.images.dicom import read_image


def test_a_nodule_adds_contrast_times_thickness_and_mask_and_box_are_its_shadow():
    patient = patients.draw_patient(4)
    ill = replace(patient, nodules=(patients.Nodule((-40, 10, 80), 20.0, 1.0),))
    pose = patients.draw_pose(2)
    shape = (200, 200)
    spacing = (1.7, 1.7)
    added = xray.project(
        patients.move_body(patients.anatomy(ill), pose), shape, spacing
    ) - xray.project(patients.move_body(patients.anatomy(patient), pose), shape, spacing)
    assert added.max() == pytest.approx((xray.MU["soft tissue"] - xray.MU["lung"]) * 2, rel=0.02)
    truth = phantoms.chest_radiograph(ill, pose=pose, size=200, field_of_view=340)
    assert np.array_equal(truth.masks["nodule"], added > 1e-9)
    rows, columns = np.nonzero(truth.masks["nodule"])
    ((top, left, bottom, right),) = truth.boxes
    assert bottom - top == pytest.approx(20 / 1.7) and right - left == pytest.approx(20 / 1.7)
    assert (
        top <= rows.min() + 0.5
        and rows.max() + 0.5 <= bottom
        and left <= columns.min() + 0.5
        and columns.max() + 0.5 <= right
    )
    assert (
        rows.min() - top < 1.5 and bottom - rows.max() < 2.5
    )  # a small cap may miss every pixel's centre


def test_a_box_at_the_border_is_cut_and_one_outside_left_out():
    at = [xray.ellipsoid(1, (0, 0, 30), (5, 5, 5)), xray.ellipsoid(1, (0, 0, 60), (5, 5, 5))]
    assert phantoms._pixel_boxes(at, (64, 64), (1, 1)) == [(27.0, 57.0, 37.0, 64.0)]


def test_radiograph_is_12_bit_bone_white_lung_dark_and_repeatable():
    one, again = (phantoms.chest_radiograph(7, size=96, seed=3) for _ in range(2))
    assert (
        one.image.dtype == np.uint16
        and one.image.max() == 4095
        and np.array_equal(one.image, again.image)
    )
    assert not np.array_equal(one.image, phantoms.chest_radiograph(7, size=96, seed=4).image)
    lungs = np.median(one.image[one.masks["lungs"] & ~one.masks["heart"]])
    assert lungs < np.median(one.image[one.masks["heart"]]) < np.median(one.image[40:60, 46:50])
    assert one.label == 0 and one.boxes == [] and not one.masks["nodule"].any()


def test_the_heart_is_on_the_pictures_right():
    columns = np.nonzero(phantoms.chest_radiograph(1, size=128).masks["heart"])[1]
    assert columns.mean() > 66


def test_the_marker_changes_its_corner_alone():
    plain, marked = (
        phantoms.chest_radiograph(2, seed=0, marker=marker).image for marker in (False, True)
    )
    rows, columns = np.nonzero(plain != marked)
    assert len(rows) and rows.max() < 16 and columns.min() > 50


@pytest.mark.parametrize(
    "call",
    [
        lambda: xray.ellipsoid(1, (0, 0), (1, 1, 1)),
        lambda: xray.ellipsoid(1, (0, 0, 0), (1, 0, 1)),
        lambda: xray.expose([1.0], photons=0),
        lambda: phantoms.chest_radiograph(0, size=4),
        lambda: phantoms.study_plan(10, prevalence=1.5),
        lambda: phantoms.study_plan(0),
        lambda: phantoms.study_plan(3, images_per_patient=(2, 1)),
        lambda: phantoms.ecg(5),
        lambda: patients.draw_nodule(
            patients.draw_patient(0), np.random.default_rng(0), diameters=(200, 201)
        ),
    ],
)
def test_impossible_wishes_get_one_clear_line(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert len(str(caught.value)) > 20 and "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 5))
def test_prevalence_is_as_asked_for_to_one_patient(patients, prevalence, seed):
    plan = phantoms.study_plan(patients, prevalence=prevalence, seed=seed)
    assert sum(bool(patient.nodules) for patient, _ in plan) == round(prevalence * patients)
    assert len({patient.id for patient, _ in plan}) == patients and all(
        1 <= count <= 3 for _, count in plan
    )


def test_age_and_sex_do_not_tell_the_label():
    plan = phantoms.study_plan(400, prevalence=0.5, seed=1)
    ill = np.array([bool(patient.nodules) for patient, _ in plan])
    age = np.array([patient.age for patient, _ in plan])
    woman = np.array([patient.sex == "F" for patient, _ in plan])
    assert (
        abs(age[ill].mean() - age[~ill].mean()) < 6
        and abs(woman[ill].mean() - woman[~ill].mean()) < 0.15
    )
    assert 25 <= age.min() and age.max() <= 90


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    calls = []
    table = phantoms.write_study(
        folder,
        patients=10,
        prevalence=0.3,
        size=48,
        seed=4,
        progress=lambda *both: calls.append(both),
    )
    return folder, table, calls


def test_the_study_on_disk_is_what_was_made(written):
    folder, table, calls = written
    pd.testing.assert_frame_equal(pd.read_csv(folder / "labels.csv"), table)
    assert list(table.columns) == ["image", "label", "patient", "age", "sex", "boxes"]
    assert calls == [(i + 1, len(table)) for i in range(len(table))]
    assert sorted(table.image) == sorted(
        f"images/{path.name}" for path in (folder / "images").iterdir()
    )
    assert (
        table.drop_duplicates("patient").label.eq("nodule").sum() == 3
        and table.groupby("patient").label.nunique().max() == 1
    )
    made = list(phantoms.study(10, prevalence=0.3, size=48, seed=4))
    for row, one in zip(table.itertuples(), made, strict=True):
        assert np.array_equal(read_image(folder / row.image).pixels, one.image)
        assert np.allclose(json.loads(row.boxes), one.boxes, atol=0.006) and (
            row.label == "nodule"
        ) == bool(one.boxes)


def test_the_files_say_that_they_are_synthetic(written):
    folder, table, _ = written
    for row in table.itertuples():
        data = pydicom.dcmread(folder / row.image)
        assert (data.PatientID, data.PatientSex, data.PatientAge) == (
            row.patient,
            row.sex,
            f"{row.age:03d}Y",
        )
        assert (
            data.PatientIdentityRemoved == "YES"
            and data.Modality == "DX"
            and "synthetic" in data.DeidentificationMethod
        )
        assert (
            data.PhotometricInterpretation == "MONOCHROME2"
            and data.ImagerPixelSpacing == pytest.approx([340 / 48] * 2)
        )
    uids = [pydicom.dcmread(folder / name, stop_before_pixels=True) for name in table.image]
    assert len({data.SOPInstanceUID for data in uids}) == len(table)
    assert (
        len({data.StudyInstanceUID for data in uids})
        == len({data.SeriesInstanceUID for data in uids})
        == 10
    )


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(written, tmp_path):
    folder, table, _ = written
    for seed, same in ((4, True), (5, False)):
        phantoms.write_study(tmp_path / str(seed), patients=10, prevalence=0.3, size=48, seed=seed)
        name = table.image[0]
        assert ((tmp_path / str(seed) / name).read_bytes() == (folder / name).read_bytes()) == same


def test_an_earlier_study_is_kept_unless_told(tmp_path):
    phantoms.write_study(tmp_path, patients=6, size=16)
    with pytest.raises(FileExistsError, match="overwrite"):
        phantoms.write_study(tmp_path, patients=3, size=16)
    table = phantoms.write_study(
        tmp_path, patients=3, size=16, overwrite=True, images_per_patient=1
    )
    assert len(table) == 3 == len(list((tmp_path / "images").iterdir()))


def test_an_interrupted_study_leaves_no_table(tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phantoms.write_study(tmp_path, patients=5, size=16, progress=stop)
    assert not (tmp_path / "labels.csv").exists()


def test_markers_go_where_they_are_asked_for():
    plain, marked = (
        list(phantoms.study(8, prevalence=0.5, size=32, seed=2, marker_prevalence=share))
        for share in ((0, 0), (0, 1))
    )
    assert [not np.array_equal(a.image, b.image) for a, b in zip(plain, marked, strict=True)] == [
        bool(one.label) for one in plain
    ]


def test_ct_slice_has_the_tables_values_in_exact_masks():
    patient = patients.draw_patient(14, nodules=1)
    nodule = patient.nodules[0]
    ct = phantoms.ct_slice(patient, z=nodule.centre[0], size=256, noise=10, seed=1)
    lungs = ct.masks["lungs"] & ~ct.masks["nodule"]
    assert np.median(ct.image[lungs]) == pytest.approx(xray.hounsfield(xray.MU["lung"]), abs=2)
    inside = xray.MU["lung"] + nodule.density * (xray.MU["soft tissue"] - xray.MU["lung"])
    assert np.median(ct.image[ct.masks["nodule"]]) == pytest.approx(xray.hounsfield(inside), abs=5)
    area = ct.masks["nodule"].sum() * np.prod(ct.spacing)
    assert area == pytest.approx(np.pi * nodule.diameter**2 / 4, rel=0.1) and ct.label == 1
    assert (
        phantoms.ct_slice(patient, z=nodule.centre[0] + nodule.diameter / 2 + 1, size=32).label == 0
    )


def test_a_cut_off_centre_is_a_smaller_circle():
    ball = xray.ellipsoid(1, (0, 10, 20), (10, 10, 10))
    ((top, left, bottom, right),) = phantoms._pixel_boxes(
        [phantoms._cut(ball, 6.0)], (100, 100), (1, 1)
    )
    assert (top, left, bottom, right) == pytest.approx((52, 62, 68, 78))


@pytest.mark.parametrize("heart_rate", [40, 60, 95, 180])
@pytest.mark.parametrize("variability", [0.0, 0.02])
def test_ecg_beats_where_it_says(heart_rate, variability):
    strip = phantoms.ecg(heart_rate, seconds=40, variability=variability, seed=heart_rate)
    found = (
        signal.find_peaks(strip.samples, height=0.7, distance=15 / heart_rate * strip.rate)[0]
        / strip.rate
    )
    inner = found[(found > 0.1) & (found < 39.9)]
    assert np.abs(inner[:, None] - strip.peaks).min(axis=1).max() < 0.02
    assert abs(len(found) - len(strip.peaks)) <= 1
    assert 60 / np.diff(strip.peaks).mean() == pytest.approx(
        heart_rate, rel=0.001 if not variability else 0.05
    )
    assert strip.samples.dtype == np.float32 and len(strip.samples) == 40 * strip.rate
