"""Chapter 5.4: gradients against closed forms and finite differences, on all backends."""

import keras
import numpy as np
import pytest

from medbook.inspection import gradients as grads
from medbook.inspection import masks
from medbook.inspection.backend import InspectionError
from tests.inspection_models import images, linear, score, seeded, small_cnn  # noqa: F401

layers = keras.layers

GRADIENTS = [
    grads.saliency,
    grads.gradient_times_input,
    grads.smooth_grad,
    grads.integrated_gradients,
]


@pytest.mark.backends
def test_linear_models_give_the_known_attributions():
    model = linear((5, 6, 2))
    x = images(3, 5, 6, 2)
    weights = model.get_weights()[0][:, 1].reshape(5, 6, 2)
    known = {
        "saliency": np.broadcast_to(np.abs(weights).max(-1), (3, 5, 6)),
        "gradient_times_input": (weights * x).sum(-1),
        "smooth_grad": np.broadcast_to(np.abs(weights).max(-1), (3, 5, 6)),
        "integrated_gradients": (weights * (x - 0.25)).sum(-1),
    }
    for method in GRADIENTS:
        options = {"baseline": 0.25} if method is grads.integrated_gradients else {}
        assert np.allclose(
            method(model, x, target=1, **options), known[method.__name__], atol=1e-5
        ), method.__name__
    assert np.allclose(grads.saliency(model, x, target=1, keep_channels=True), weights, atol=1e-6)
    covered = masks.occlusion(model, x, target=1, patch=1, stride=1, fill=0.25)
    assert np.allclose(covered, (weights * (x - 0.25)).sum(-1), atol=1e-5)


@pytest.mark.backends
def test_saliency_equals_finite_differences():
    model = small_cnn(smooth=True, activation="sigmoid")
    x = images(1, 12, 14, 2)
    gradients = grads.saliency(model, x, target=2, keep_channels=True)[0]
    rng = np.random.default_rng(1)
    for _ in range(20):
        place = tuple(int(rng.integers(n)) for n in gradients.shape)
        step = np.zeros_like(x)
        step[(0, *place)] = 0.02
        difference = (score(model, x + step, 2) - score(model, x - step, 2))[0] / 0.04
        assert abs(gradients[place] - difference) < 2e-3 * np.abs(gradients).max() + 2e-5


@pytest.mark.parametrize(
    "baseline", [0.0, 0.7, pytest.param("image", marks=pytest.mark.backends)]
)
def test_integrated_gradients_are_complete(baseline):
    model = small_cnn(smooth=True)
    x = images(3, 12, 14, 2)
    baseline = images(12, 14, 2, seed=9) if baseline == "image" else baseline
    for keep in (False, True):
        found = grads.integrated_gradients(
            model, x, target=1, baseline=baseline, keep_channels=keep, steps=64
        )
        check = grads.completeness(model, x, found, target=1, baseline=baseline)
        origin = np.broadcast_to(np.asarray(baseline, "float32"), x.shape)
        assert np.allclose(check.expected, score(model, x, 1) - score(model, origin, 1), atol=1e-6)
        assert (
            np.abs(check.total - check.expected).max() <= 1e-3 * np.abs(check.expected).max()
            and check.expected.any()
        )


def test_integrated_gradients_of_relu_networks_close_the_gap_with_more_steps():
    model = small_cnn()
    x = images(2, 12, 14, 2)
    few, many = (
        grads.completeness(model, x, grads.integrated_gradients(model, x, steps=steps)).gap.max()
        for steps in (3, 512)
    )
    assert many < 1e-3 and many < few


def test_completeness_of_nothing_is_infinite_or_zero():
    assert grads.Completeness(np.array([0.0, 1.0]), np.array([0.0, 0.0])).gap.tolist() == [
        0,
        np.inf,
    ]


@pytest.mark.backends
def test_smooth_grad_is_the_mean_over_the_same_noise():
    model = small_cnn(smooth=True)
    x = images(2, 12, 14, 2)
    noise = np.random.default_rng(5).standard_normal((6, 12, 14, 2), np.float32)
    found = grads.smooth_grad(
        model, x, target=0, samples=6, noise=0.1, seed=5, keep_channels=True, batch_size=4
    )
    for one, image in zip(found, x, strict=True):
        each = grads.saliency(
            model, image + np.float32(0.1 * np.ptp(image)) * noise, target=0, keep_channels=True
        )
        assert np.allclose(one, each.mean(0), atol=1e-6)


def test_overlay_colours_where_it_speaks():
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    values = np.zeros((8, 8))
    assert np.allclose(grads.overlay(grey, values), np.repeat(grey[..., None], 3, -1), atol=1e-6)
    values[2, 3] = 1
    values[6, 6] = -1
    painted = grads.overlay(grey, values)
    assert (
        painted.shape == (8, 8, 3)
        and painted[2, 3, 0] > painted[2, 3, 2]
        and painted[6, 6, 2] > painted[6, 6, 0]
    )
    with pytest.raises(InspectionError, match="over an image"):
        grads.overlay(grey, values[:4])


def test_show_attribution_draws_each():
    import matplotlib

    matplotlib.use("agg")
    figure = grads.show_attribution([images(8, 8, 1)], images(3, 8, 8), ["a", "b", "c"])
    assert [panel.get_title() for panel in figure.axes] == ["a", "b", "c"]


def tokens(declared):
    """A reader of tokens whose input says that it takes whole numbers, or does not say so."""
    kind = {"dtype": "int32"} if declared else {}
    return keras.Sequential(
        [
            keras.Input((7,), **kind),
            layers.Embedding(11, 5, name="table"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )


@pytest.mark.backends
@pytest.mark.parametrize("declared", [True, False])
def test_tokens_have_no_gradient_and_can_be_covered(declared):
    model = tokens(declared)
    x = np.random.default_rng(0).integers(0, 11, (2, 7))
    for method in GRADIENTS if declared else GRADIENTS[:2]:
        with pytest.raises(InspectionError, match="no gradient.*occlusion"):
            method(model, x, target=1)
    assert (
        masks.occlusion(model, x, target=1, fill=0).shape == (2, 7)
        and masks.occlusion(model, x, target=1, fill=0).any()
    )


def test_pixels_that_are_whole_numbers_keep_their_gradients():
    model = small_cnn()
    x = np.random.default_rng(0).integers(0, 256, (2, 12, 14, 2)).astype("uint8")
    for method in GRADIENTS:
        np.testing.assert_array_equal(
            method(model, x, target=1), method(model, x.astype("float32"), target=1)
        )
