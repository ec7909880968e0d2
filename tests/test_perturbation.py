"""Perturbations of a picture against SciPy and plain formulas, and a model's scores along them."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from scipy import ndimage

from medbook.inspection.backend import InspectionError
from medbook.inspection.perturbation import Perturbation, move, perturb, square, sweep


def smooth(height=24, width=31, channels=1, seed=0):
    """A picture without sharp edges."""
    noise = np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)
    return ndimage.gaussian_filter(noise, (3, 3, 0)).astype("float32")


@pytest.mark.parametrize("nothing", [Perturbation(), Perturbation(seed=5), Perturbation(fill=3.0)])
def test_no_step_is_the_same_array(nothing):
    image = smooth()
    assert perturb(image, nothing) is image


@settings(max_examples=40, deadline=None)
@given(
    st.integers(5, 40),
    st.integers(5, 40),
    st.integers(1, 6),
    st.floats(-180, 180),
    st.floats(-4, 4),
    st.floats(-4, 4),
)
def test_one_warp_equals_scipys(height, width, channels, angle, down, right):
    image = smooth(height, width, channels)
    turn = np.deg2rad(angle)
    back = np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )  # of (row, column), the turn back
    centre = (np.array([height, width]) - 1) / 2
    offset = centre - back @ (centre + [down, right])
    wanted = np.stack(
        [
            ndimage.affine_transform(image[..., c], back, offset, order=1, mode="nearest")
            for c in range(channels)
        ],
        -1,
    )
    found = perturb(image, Perturbation(angle=angle, shift=(down, right)))
    assert found.shape == image.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.ptp(image))


def test_quarter_turns_and_whole_shifts_are_exact():
    image = smooth(9, 9, 5)
    np.testing.assert_allclose(
        perturb(image, Perturbation(angle=90)), np.rot90(image, -1), atol=1e-6
    )
    np.testing.assert_array_equal(move(image, 360), image)
    down = perturb(image, Perturbation(shift=(2, -1)))
    np.testing.assert_array_equal(down[2:, :-1], image[:-2, 1:])
    np.testing.assert_array_equal(down[:3, 0], image[[0, 0, 0], 1])  # the border goes on outside


@settings(max_examples=40, deadline=None)
@given(
    st.integers(-5, 30), st.integers(-5, 30), st.integers(0, 12), st.sampled_from([None, 0.0, 7.5])
)
def test_the_square_is_filled_and_nothing_else_changes(row, column, side, fill):
    image = smooth(24, 20, 3)
    found = perturb(image, Perturbation(occlusion=(row, column, side), fill=fill))
    rows, columns = np.mgrid[:24, :20]
    first = [round(middle - (side - 1) / 2) for middle in (row, column)]
    inside = (
        (rows >= first[0])
        & (rows < first[0] + side)
        & (columns >= first[1])
        & (columns < first[1] + side)
    )
    np.testing.assert_array_equal(found[~inside], image[~inside])
    np.testing.assert_allclose(
        found[inside],
        np.broadcast_to(image.mean((0, 1)) if fill is None else fill, (inside.sum(), 3)),
        rtol=1e-5,
    )


def test_an_odd_square_stands_around_its_middle():
    assert square((10, 10), 4, 6, 3) == (slice(3, 6), slice(5, 8))
    assert square((10, 10), 50, 50, 3) == (slice(10, 10), slice(10, 10))


def test_contrast_keeps_each_channels_mean_and_scales_its_spread():
    image = smooth(24, 31, 3)
    found = perturb(image, Perturbation(contrast=1.7))
    np.testing.assert_allclose(found.mean((0, 1)), image.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.std((0, 1)), 1.7 * image.std((0, 1)), rtol=1e-4)


def test_noise_is_one_pattern_for_a_seed_and_grows_in_step():
    image = np.zeros((200, 200, 1), np.float32)
    weak = perturb(image, Perturbation(noise=0.1))
    strong = perturb(image, Perturbation(noise=0.3))
    np.testing.assert_allclose(strong, 3 * weak, rtol=1e-5)
    assert weak.std() == pytest.approx(0.1, rel=0.02) and abs(weak.mean()) < 0.002
    assert not np.allclose(weak, perturb(image, Perturbation(noise=0.1, seed=1)))


def test_the_window_is_the_displays():
    image = np.array([-1.0, 0, 0.25, 0.5, 1]).reshape(1, 5, 1)
    np.testing.assert_allclose(
        perturb(image, Perturbation(center=0.25, width=0.5)).ravel(), [0, 0, 0.5, 1, 1]
    )


def test_the_steps_come_in_order_and_the_picture_stays():
    image = smooth(20, 20, 2)
    kept = image.copy()
    p = Perturbation(0.5, 0.6, 1.3, 0.05, 20, (1, 2), (10, 10, 5), 0.25, 3)
    found = perturb(image, p)
    step = perturb(image, Perturbation(angle=20, shift=(1, 2)))
    for setting in (
        {"center": 0.5, "width": 0.6},
        {"contrast": 1.3},
        {"noise": 0.05, "seed": 3},
        {"occlusion": (10, 10, 5), "fill": 0.25},
    ):
        step = perturb(step, Perturbation(**setting))
    np.testing.assert_array_equal(found, step)
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("shape", [(50, 3), (6, 7, 8, 2)])
def test_signals_and_volumes_take_grey_values_but_no_geometry(shape):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert perturb(image, Perturbation(0.5, 0.5, 1.2, 0.1)).shape == shape
    for p in (Perturbation(angle=5), Perturbation(shift=(1, 0)), Perturbation(occlusion=(1, 1, 2))):
        with pytest.raises(InspectionError, match="signals and volumes"):
            perturb(image, p)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"center": 1.0}, "center and a width"),
        ({"center": 1.0, "width": 0}, "width above 0"),
        ({"noise": -1}, "at least 0"),
        ({"contrast": np.nan}, "finite"),
        ({"shift": (1, 2, 3)}, "rows, columns"),
        ({"shift": 3}, "rows, columns"),
        ({"shift": ("a", 1)}, "shift is"),
        ({"occlusion": (1, 2)}, "row, column, side"),
        ({"occlusion": (1, 2, -3)}, "at least 0"),
        ({"angle": "left"}, "finite"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(settings_, words):
    with pytest.raises(InspectionError, match=words):
        Perturbation(**settings_)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((4, 4, 1), np.nan), "NaN"),
        (np.zeros((0, 4, 1)), "numbers"),
        (np.zeros(4), "numbers"),
        (np.full((4, 4, 1), "a"), "numbers"),
    ],
)
def test_what_is_no_picture_is_refused(image, words):
    with pytest.raises(InspectionError, match=words):
        perturb(image, Perturbation(noise=1))


def network(outputs=2):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((24, 31, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(outputs, activation="softmax"),
        ]
    )


def test_sweep_is_the_models_own_answer_at_each_value():
    model = network()
    image = smooth()
    base = Perturbation(noise=0.05, seed=2)
    table = sweep(model, image, "angle", range(0, 50, 5), base=base, batch_size=4)
    wanted = model.predict(
        np.stack([perturb(image, replace(base, angle=a)) for a in table.angle]), verbose=0
    )
    assert list(table) == ["angle", "score_0", "score_1"] and list(table.angle) == list(
        range(0, 50, 5)
    )
    np.testing.assert_allclose(table[["score_0", "score_1"]], wanted, atol=1e-6)
    assert sweep(model, image, "occlusion", [(3, 4, 5), None]).shape == (2, 3)


def test_sweep_refuses_what_it_cannot_do():
    image = smooth()
    with pytest.raises(InspectionError, match="'zoom' had 1"):
        sweep(network(), image, "zoom", [1])
    with pytest.raises(InspectionError, match="'angle' had 0"):
        sweep(network(), image, "angle", [])
    with pytest.raises(InspectionError, match="single array of scores"):
        sweep(
            keras.Sequential([keras.Input((24, 31, 1)), layers.Conv2D(3, 3)]), image, "angle", [1]
        )
    with pytest.raises(InspectionError, match="takes"):
        sweep(network(), smooth(20, 20), "angle", [1])


@pytest.mark.parametrize("seed", range(5))
def test_a_square_can_take_the_grey_around_it(seed):
    rng = np.random.default_rng(seed)
    image = rng.random((20, 17, 2)).astype("float32")
    side = int(rng.integers(1, 7))
    row = int(rng.integers(0, 20))
    column = int(rng.integers(0, 17))
    found = perturb(image, Perturbation(occlusion=(row, column, side), fill="around"))
    inner = square(image.shape, row, column, side)
    outer = square(image.shape, row, column, 2 * side)
    frame = np.zeros((20, 17), bool)
    frame[outer] = True
    frame[inner] = False
    np.testing.assert_allclose(
        found[inner], np.broadcast_to(image[frame].mean(axis=0), found[inner].shape), atol=1e-5
    )
    whole = perturb(image, Perturbation(occlusion=(10, 8, 40), fill="around"))
    np.testing.assert_allclose(
        whole, np.broadcast_to(image.mean(axis=(0, 1)), whole.shape), atol=1e-5
    )
    with pytest.raises(InspectionError, match="finite numbers"):
        Perturbation(fill="above")
