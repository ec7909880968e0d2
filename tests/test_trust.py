"""Chapter 5.7: the checks of attributions, against explicit loops and by hand."""

import cv2
import keras
import numpy as np
import pytest

from medbook.inspection import activation_maps as cams
from medbook.inspection import gradients as grads
from medbook.inspection import masks, trust
from medbook.inspection.backend import InspectionError
from tests.inspection_models import Own, images, linear, score, seeded, small_cnn  # noqa: F401

layers = keras.layers


@pytest.mark.backends
def test_deletion_and_insertion_equal_an_explicit_loop():
    model = linear((4, 5, 1))
    x = images(1, 4, 5, 1)
    order = np.random.default_rng(0).permutation(20)
    attribution = np.empty(20)
    attribution[order] = np.arange(20, 0, -1)
    curves = trust.deletion_insertion(
        model, x, attribution.reshape(1, 4, 5), target=1, steps=10, fill=0.3, batch_size=6
    )
    for step in range(11):
        gone = x.reshape(1, 20).copy()
        shown = np.full((1, 20), 0.3, "float32")
        some = order[: 2 * step]
        gone[0, some] = 0.3
        shown[0, some] = x.ravel()[some]
        assert abs(curves.deletion[0, step] - score(model, gone.reshape(x.shape), 1)[0]) < 1e-5
        assert abs(curves.insertion[0, step] - score(model, shown.reshape(x.shape), 1)[0]) < 1e-5
    assert np.allclose(
        curves.deletion_area,
        [np.mean((curves.deletion[0, 1:] + curves.deletion[0, :-1]) / 2)],
        atol=1e-6,
    )


def test_the_exact_attribution_of_a_linear_model_has_the_best_areas():
    model = linear((6, 6, 1))
    x = images(3, 6, 6, 1)
    best = trust.deletion_insertion(
        model, x, masks.occlusion(model, x, target=0, patch=1, fill=0.0), target=0, fill=0.0
    )
    for seed in range(5):
        other = trust.deletion_insertion(model, x, images(3, 6, 6, seed=seed), target=0, fill=0.0)
        assert (best.deletion_area < other.deletion_area).all() and (
            best.insertion_area > other.insertion_area
        ).all()


def test_ranks_break_ties_at_random_but_keep_the_order():
    flat = trust.pixel_ranks(np.zeros((5, 5)))
    assert sorted(flat.ravel()) == list(range(25)) and not np.array_equal(
        flat.ravel(), np.arange(25)
    )
    assert trust.pixel_ranks(np.array([[1.0, 3.0], [2.0, 0.0]])).tolist() == [[2, 0], [1, 3]]


def test_pointing_game_by_hand():
    maps = np.zeros((4, 6, 6))
    maps[0, 1, 1] = 1
    maps[1, 5, 5] = 1
    maps[2, 1, 1] = 1
    maps[2, 5, 5] = 1  # two highest pixels, one outside; map 3 is flat
    mask = np.zeros((6, 6), bool)
    mask[:3, :3] = True
    for truths in ([mask] * 4, [[(0, 0, 3, 3)]] * 4, [(0.2, 0.0, 2.6, 3.0)] * 4):
        game = trust.pointing_game(maps, truths)
        assert (
            game.hits.tolist() == [True, False, False, False]
            and game.rate == 0.25
            and abs(game.chance - 0.25) < 1e-9
        )
    z = 1.959963984540054
    p = 0.25
    n = 4
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert abs(game.low - (middle - half)) < 1e-9 and abs(game.high - (middle + half)) < 1e-9


@pytest.mark.parametrize(
    "truths, words",
    [
        ([[]] * 2, "numbers, not"),
        ([np.zeros((3, 3), bool)] * 2, "image 0 has nothing"),
        ([np.ones((3, 3), bool)], "but 1 truths"),
        ([[(0, 0, 3)]] * 2, "4 numbers"),
    ],
)
def test_pointing_game_tells_wrong_truths(truths, words):
    with pytest.raises(InspectionError, match=words):
        trust.pointing_game(np.zeros((2, 3, 3)), truths)


@pytest.mark.backends
def test_randomisation_leaves_the_model_as_it_is_and_tells_methods_apart():
    model = small_cnn()
    x = images(3, 12, 14, 2)
    before = [one.copy() for one in model.get_weights()]
    output = keras.ops.convert_to_numpy(model(x))
    found = trust.randomisation_check(model, x, grads.saliency)
    assert list(found) == ["head", "last", "first"] and all(
        one.shape == (3,) for one in found.values()
    )
    assert all(
        np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True)
    )
    assert np.array_equal(output, keras.ops.convert_to_numpy(model(x)))
    assert found["first"].mean() < 0.9

    def edges(model, images, *, target=None):  # looks at the image alone
        return np.stack([cv2.Laplacian(image[..., 0], cv2.CV_32F) for image in images])

    assert all(np.allclose(one, 1) for one in trust.randomisation_check(model, x, edges).values())
    again = trust.randomisation_check(model, x, grads.saliency)
    assert all(np.array_equal(found[path], again[path]) for path in found)


def test_randomisation_of_a_subclassed_model_needs_a_clone():
    own = Own()
    x = images(2, 10, 9, 1)
    own(x)

    def clone(model):
        twin = Own()
        twin(x)
        return twin

    found = trust.randomisation_check(own, x, cams.grad_cam, target=0, clone=clone)
    assert list(found) == ["dense", "conv2d"] or len(found) == 2
    with pytest.raises(InspectionError, match="cannot be cloned.*clone="):
        trust.randomisation_check(own, x, cams.grad_cam, target=0, clone=lambda model: Own())


def test_rank_correlation():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 30))
    from scipy.stats import spearmanr

    assert abs(trust.rank_correlation(one, other) - spearmanr(one, other).statistic) < 1e-12
    assert (
        trust.rank_correlation(np.zeros(9), one[:9]) == 0
        and abs(trust.rank_correlation(one, np.exp(one)) - 1) < 1e-12
    )
