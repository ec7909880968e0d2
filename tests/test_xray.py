"""X-rays: thickness and projection against counting and closed forms, counts against Poisson."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medbook.images import patients, phantoms, xray

number = st.floats(-20, 20)
radius = st.floats(4, 30)


@st.composite
def bodies(draw):
    rotation = Rotation.from_euler(
        "xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True
    ).as_matrix()
    return xray.ellipsoid(
        0.3, [draw(number) for _ in range(3)], [draw(radius) for _ in range(3)], rotation=rotation
    )


@settings(max_examples=30, deadline=None)
@given(bodies(), bodies(), number, number)
def test_thickness_is_what_counting_points_gives(first, second, z, x):
    y = np.arange(-60, 60, 0.02)
    points = np.stack(np.broadcast_arrays(z, y, x), axis=-1)
    for body in (first, replace(first, within=(second,))):
        assert (
            abs(xray.contains(body, points).sum() * 0.02 - float(xray.thickness(body, z, x))) < 0.05
        )


@pytest.mark.parametrize("d", [0, 3, 9.9, 10, 11])
def test_chord_of_a_ball(d):
    ball = xray.ellipsoid(1, (5, 7, -3), (10, 10, 10))
    assert xray.thickness(ball, 5.0, -3.0 + d) == pytest.approx(2 * np.sqrt(max(100 - d * d, 0)))


def test_projection_integrates_a_voxel_grid():
    body = [
        xray.ellipsoid(0.2, (2, 0, -3), (30, 25, 20)),
        xray.ellipsoid(-0.15, (0, 4, -3), (12, 9, 10)),
    ]
    grid = np.arange(-40, 40, 0.5)
    z = np.array([-20.0, 0, 3, 12])
    x = np.array([-15.0, -3, 4])
    points = np.stack(np.meshgrid(z, grid, x, indexing="ij"), axis=-1)
    volume = sum(one.mu * xray.contains(one, points) for one in body)
    direct = sum(one.mu / 10 * xray.thickness(one, z[:, None], x) for one in body)
    assert np.allclose(volume.sum(axis=1) * 0.05, direct, atol=0.02)


@pytest.mark.parametrize(
    "shape, spacing", [((50, 61), (7.0, 6.0)), ((9, 8), (40.0, 40.0)), ((33, 20), (3.0, 5.0))]
)
def test_fast_projection_equals_the_slow_one(shape, spacing):
    body = patients.move_body(
        patients.anatomy(patients.draw_patient(3, nodules=2)), patients.draw_pose(1)
    )
    assert np.allclose(
        xray.project(body, shape, spacing), xray.project_loops(body, shape, spacing), atol=1e-12
    )


def test_a_body_outside_the_picture_and_none_at_all_give_zero():
    assert not xray.project([xray.ellipsoid(1, (500, 0, 0), (5, 5, 5))], (8, 8), (1, 1)).any()
    assert not phantoms._shadow([], (8, 8), (1, 1)).any()


@settings(max_examples=20, deadline=None)
@given(bodies(), st.floats(-180, 180))
def test_rolling_a_body_keeps_its_mass(body, angle):
    turned = patients.move_body([body], patients.Pose(roll=angle, turn=angle / 3, shift=(4, -2)))
    shape = (160, 160)
    spacing = (1, 1)
    volume = 4 / 3 * np.pi * np.sqrt(np.linalg.det(body.matrix))
    for one in ([body], turned):
        assert xray.project(one, shape, spacing).sum() == pytest.approx(0.3 / 10 * volume, rel=0.05)


def test_attenuation_is_that_of_the_tables():
    assert xray.MU["soft tissue"] == pytest.approx(0.2171, abs=1e-4) and xray.MU[
        "cortical bone"
    ] == pytest.approx(0.6044, abs=1e-4)
    assert xray.hounsfield(xray.MU["water"]) == 0 and xray.hounsfield(
        xray.MU["air"]
    ) == pytest.approx(-1000)
    assert (
        xray.MU["air"]
        < xray.MU["lung"]
        < xray.MU["adipose"]
        < xray.MU["soft tissue"]
        < xray.MU["rib"]
        < xray.MU["cortical bone"]
    )


@pytest.mark.parametrize("g", [0.0, 2.0, 4.0])
def test_counts_are_poisson(g):
    counts = xray.expose(np.full((400, 400), g), photons=20_000, blur=0, seed=2)
    mean = 20_000 * np.exp(-g)
    assert counts.mean() == pytest.approx(mean, rel=0.005) and counts.var() == pytest.approx(
        mean, rel=0.03
    )
    assert xray.log_transform(counts, 20_000).mean() == pytest.approx(g, abs=0.005)


def test_blur_keeps_the_counts_and_lessens_the_noise():
    sharp, soft = (xray.expose(np.full((300, 300), 1.0), blur=blur, seed=0) for blur in (0, 1.0))
    assert soft.mean() == pytest.approx(sharp.mean(), rel=1e-3)
    assert soft.var() / sharp.var() == pytest.approx(
        1 / (4 * np.pi), rel=0.1
    )  # white noise through a Gaussian of 1 pixel


def test_log_of_an_empty_pixel_is_finite():
    assert np.isfinite(xray.log_transform(np.zeros(3), 1000)).all()
    assert np.isfinite(xray.display(np.zeros((8, 8)))).all()
