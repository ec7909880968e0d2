"""Chapter 5.6: what covers the image, against explicit loops."""

import cv2
import keras
import numpy as np
import pytest

from medbook.inspection import masks
from medbook.inspection.feature_maps import feature_maps
from medbook.inspection.layers import fold_normalisation
from tests.inspection_models import images, score, seeded, small_cnn  # noqa: F401

layers = keras.layers


@pytest.mark.parametrize("fill", [pytest.param("mean", marks=pytest.mark.backends), 0.0, 0.5])
def test_occlusion_equals_an_explicit_loop(fill):
    model = small_cnn()
    x = images(1, 12, 14, 2)
    blank = x[0].mean((0, 1)) if fill == "mean" else fill
    total = np.zeros((12, 14))
    count = np.zeros((12, 14))
    for top in (0, 2, 4, 6, 8, 9):
        for left in (0, 3, 6, 9):
            covered = x.copy()
            covered[0, top : top + 3, left : left + 5] = blank
            total[top : top + 3, left : left + 5] += (
                score(model, x, 0) - score(model, covered, 0)
            )[0]
            count[top : top + 3, left : left + 5] += 1
    assert count.min() > 0
    found = masks.occlusion(
        model, x, target=0, patch=(3, 5), stride=(2, 3), fill=fill, batch_size=7
    )[0]
    assert np.allclose(found, total / count, atol=1e-5) and np.abs(found).max() > 1e-3


@pytest.mark.backends
def test_rise_equals_an_explicit_loop():
    model = small_cnn()
    x = images(2, 12, 14, 2)
    found = masks.rise(model, x, target=0, masks=40, cells=(3, 4), keep=0.4, seed=2, batch_size=16)
    grids, shifts = masks._rise_draws((12, 14), 40, (3, 4), 0.4, 2)
    for image, heat in zip(x, found, strict=True):
        total = np.zeros((12, 14))
        for grid, (down, right) in zip(grids, shifts, strict=True):
            rows = (np.arange(12) + 0.5) * 3 / 12 - 0.5 + down
            columns = (np.arange(14) + 0.5) * 4 / 14 - 0.5 + right
            across = np.stack([np.interp(columns, np.arange(5), line) for line in grid])
            mask = np.stack([np.interp(rows, np.arange(4), line) for line in across.T], axis=1)
            total += score(model, (image * mask[..., None])[None].astype("float32"), 0)[0] * mask
        assert np.allclose(heat, total / (40 * 0.4), atol=1e-5)


@pytest.mark.backends
def test_score_cam_equals_an_explicit_loop():
    model = small_cnn()
    x = images(2, 12, 14, 2)
    maps = feature_maps(model, x, ["last"])["last"].copy()
    for softmax in (True, False):
        found = masks.score_cam(model, x, target=1, softmax=softmax, upsample=False, batch_size=3)
        for image, one, cam in zip(x, maps, found, strict=True):
            live = [k for k in range(one.shape[-1]) if np.ptp(one[..., k]) > 0]
            grids = [
                cv2.resize(one[..., k], (14, 12), interpolation=cv2.INTER_LINEAR) for k in live
            ]
            seen = np.stack(
                [image * ((mask - mask.min()) / np.ptp(mask))[..., None] for mask in grids]
            )
            weights = score(model, seen, 1)
            weights = np.exp(weights) / np.exp(weights).sum() if softmax else weights
            assert np.allclose(cam, np.maximum(one[..., live] @ weights, 0), atol=1e-5)


def test_score_cam_keeps_the_most_varied_maps_and_bears_dead_ones():
    maps = np.stack([np.full((2, 2), 3.0), np.eye(2), 5 * np.eye(2), 2 * np.eye(2)], -1)
    assert masks._most_varied(maps, None).tolist() == [1, 2, 3] and masks._most_varied(
        maps, 2
    ).tolist() == [2, 3]
    model = small_cnn()
    model.get_layer("last").set_weights(
        [np.zeros_like(one) for one in model.get_layer("last").get_weights()]
    )
    assert not masks.score_cam(model, images(1, 12, 14, 2)).any()


@pytest.mark.backends
def test_folding_normalisations_changes_nothing_but_rounding():
    rng = np.random.default_rng(0)
    depthwise = layers.DepthwiseConv2D(3, padding="same", strides=2, use_bias=False)
    body = [
        layers.Conv2D(5, 3, dilation_rate=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        depthwise,
        layers.BatchNormalization(scale=False),
        layers.Conv2D(4, 1, use_bias=False),
        layers.BatchNormalization(center=False),
        layers.Conv2D(3, 1, activation="relu"),
        layers.BatchNormalization(axis=1),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((14, 14, 2)), *body])
    model.set_weights([rng.random(one.shape) + 0.1 for one in model.get_weights()])
    x = images(3, 14, 14, 2)
    call = keras.Operation.__call__
    run = fold_normalisation(lambda batch: model(batch, training=False))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.allclose(
        keras.ops.convert_to_numpy(run(keras.ops.convert_to_tensor(x))), expected, rtol=1e-4
    )
    assert keras.Operation.__call__ is call
    model.set_weights([one * 0.9 for one in model.get_weights()])  # new weights are seen
    heat = masks.occlusion(model, x, target=0, patch=14, fill=0.0)
    fall = score(model, x, 0) - score(model, 0 * x, 0)
    assert np.allclose(heat, fall[:, None, None], rtol=1e-3, atol=1e-4)
