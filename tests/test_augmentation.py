"""Random layers: image, mask and box move together; only in training; repeatable; saved."""

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import ndimage

from medbook.images import augmentation as aug
from medbook.images.augmentation import (
    RandomAffine,
    RandomErase,
    RandomIntensity,
    affine_matrix,
    augmenter,
    mask_box,
    transform_together,
)

few = settings(max_examples=20, deadline=None)
moves = st.fixed_dictionaries(
    {
        "rotation": st.floats(-180, 180),
        "zoom": st.tuples(st.floats(0.6, 1.5), st.floats(0.6, 1.5)),
        "shift": st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
        "mirror": st.booleans(),
    }
)
LAYERS = [
    lambda **k: RandomAffine(30, flip="any", **k),
    lambda **k: RandomIntensity(gamma=0.3, **k),
    lambda **k: RandomErase(0.5, **k),
]


def smooth(height=40, width=40, channels=1, count=1, seed=0):
    """Smooth random images (N, H, W, C) from 0 to 1."""
    noise = np.random.default_rng(seed).random((count, height, width, channels))
    noise = ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    return ((noise - noise.min()) / np.ptp(noise)).astype("float32")


# --- the matrix ---


@few
@given(moves)
def test_matrix_moves_known_points(move):
    matrix = affine_matrix((31, 51), **move)
    dx, dy = move["shift"]
    assert np.allclose(matrix @ (25, 15, 1), (25 + dx, 15 + dy, 1))  # the centre
    area = np.linalg.det(matrix)
    assert np.isclose(area, (-1 if move["mirror"] else 1) * move["zoom"][0] * move["zoom"][1])


def test_positive_rotation_is_clockwise_and_shift_is_right_and_down():
    image = np.zeros((9, 9), "float32")
    image[2, 4] = 1  # above the centre
    turned = transform_together(image, affine_matrix((9, 9), rotation=90))["image"]
    assert np.unravel_index(turned.argmax(), (9, 9)) == (4, 6)  # right of it
    shifted = transform_together(image, affine_matrix((9, 9), shift=(3, 1)))["image"]
    assert np.unravel_index(shifted.argmax(), (9, 9)) == (3, 7)


@pytest.mark.parametrize("zoom", [0, -1, np.nan, np.inf, (1, 0)])
def test_matrix_refuses_a_zoom_that_is_not_positive(zoom):
    with pytest.raises(ValueError, match="zoom must be positive"):
        affine_matrix((5, 5), zoom=zoom)


# --- moving images, masks, boxes ---


@few
@given(moves)
def test_warp_equals_loops_scipy_and_opencv(move):
    image = smooth(24, 33)[0, ..., 0]
    matrix = affine_matrix(image.shape, **move)
    moved = transform_together(image, matrix)["image"]
    back = np.linalg.inv(matrix)
    by_scipy = ndimage.affine_transform(
        image, back[:2, :2][::-1, ::-1], back[1::-1, 2], order=1, mode="grid-constant"
    )
    assert np.allclose(moved, by_scipy, atol=2e-3)
    assert np.allclose(moved, aug.warp_loops(image, matrix), atol=2e-3)
    assert np.allclose(
        moved, cv2.warpAffine(image, matrix[:2], (33, 24), flags=cv2.INTER_LINEAR), atol=0.1
    )


@few
@given(moves)
def test_mask_of_the_moved_image_is_the_moved_mask(move):
    image = smooth(48, 48)[0, ..., 0]
    mask = (image > 0.5).astype("uint8")
    moved = transform_together(
        image, affine_matrix(image.shape, **move), mask=mask, fill_mode="reflect"
    )
    certain = abs(moved["image"] - 0.5) > 0.12  # away from the mask's border
    assert moved["mask"].dtype == np.uint8 and certain.mean() > 0.3
    assert (moved["mask"] == (moved["image"] > 0.5))[certain].all()


@few
@given(moves)
def test_labels_are_never_invented(move):
    labels = np.random.default_rng(0).choice([0, 7, 900], (30, 20)).astype("int32")
    moved = transform_together(
        labels, affine_matrix((30, 20), **move), mask=labels, fill_mode="nearest"
    )["mask"]
    assert moved.dtype == np.int32 and set(np.unique(moved)) <= {0, 7, 900}


@few
@given(moves)
def test_box_is_tight_around_a_moved_rectangle(move):
    mask = np.zeros((96, 96), "uint8")
    mask[40:58, 36:64] = 1
    moved = transform_together(
        mask, affine_matrix(mask.shape, **move), mask=mask, boxes=[mask_box(mask)]
    )
    assert (
        abs(moved["boxes"][0] - mask_box(moved["mask"])).max() <= 1.1
    )  # a pixel, and the rounding of corners


def test_boxes_are_cut_at_the_edge_and_vanish_outside():
    boxes = transform_together(
        np.zeros((20, 30)),
        affine_matrix((20, 30), shift=(25, 0)),
        boxes=[[2, 2, 8, 10], [5, 10, 9, 20]],
    )["boxes"]
    assert np.allclose(boxes[0], [2, 27, 8, 30]) and (boxes[1, 3] - boxes[1, 1]) == 0


def test_exact_turns_and_mirrors():
    image = np.random.default_rng(0).random((16, 16, 3)).astype("float32")
    for matrix, expected in [
        (affine_matrix(image.shape, rotation=90), np.rot90(image, -1)),
        (affine_matrix(image.shape, mirror=True), image[:, ::-1]),
        (affine_matrix(image.shape, rotation=180, mirror=True), image[::-1]),
    ]:
        assert np.allclose(
            transform_together(image, matrix, fill_mode="nearest")["image"], expected, atol=1e-5
        )


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="mask has shape"):
        transform_together(np.zeros((5, 5)), np.eye(3), mask=np.zeros((4, 5)))


def test_mask_box():
    mask = np.zeros((9, 9), bool)
    assert (mask_box(mask) == 0).all()
    mask[2, 3] = mask[6, 4] = True
    assert (mask_box(mask) == [2, 3, 7, 5]).all()


# --- the layers ---


@pytest.mark.parametrize("make", LAYERS)
def test_nothing_happens_outside_training(make):
    images = smooth(count=4)
    layer = make(seed=0)
    for out in (
        layer(images),
        layer(images, training=False),
        keras.Sequential([layer]).predict(images, verbose=0),
    ):
        assert (np.asarray(out) == images).all()
    assert not np.allclose(layer(images, training=True), images)


@pytest.mark.parametrize("make", LAYERS)
def test_the_same_seed_gives_the_same_sequence_and_it_can_be_set_again(make):
    images = smooth(count=8)
    one = make(seed=3)
    other = make(seed=3)
    third = make(seed=4)
    start = ops.convert_to_numpy(one.seed_generator.state).copy()
    first = np.asarray(one(images, training=True))
    second = np.asarray(one(images, training=True))
    assert (first == np.asarray(other(images, training=True))).all() and (
        second == np.asarray(other(images, training=True))
    ).all()
    assert not np.allclose(first, second) and not np.allclose(first, third(images, training=True))
    one.seed_generator.state.assign(start)
    assert (np.asarray(one(images, training=True)) == first).all()


def test_every_state_is_found_in_a_model():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            augmenter(erase=0.5, seed=7),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    states = [v for v in model.non_trainable_variables if "seed" in v.path]
    assert len(states) == 3 and len({tuple(ops.convert_to_numpy(v)) for v in states}) == 3


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_float32_under_every_policy_and_saved_with_the_model(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        images = smooth(16, 16, count=8)
        inputs = keras.Input((16, 16, 1))
        augment = augmenter("any", erase=0.5, seed=1)
        moved = augment(inputs)
        assert moved.dtype == "float32"
        model = keras.Model(inputs, [moved, keras.layers.Dense(2)(keras.layers.Flatten()(moved))])
        assert (
            np.asarray(model(images, training=False)[0]) == images
        ).all()  # no rounding on the way through
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for old, new in zip(augment.layers, again.get_layer("augmenter").layers, strict=True):
            assert old.get_config() == new.get_config() and new.compute_dtype == "float32"
        assert np.allclose(model.predict(images, verbose=0)[1], again.predict(images, verbose=0)[1])
        expected = np.asarray(model(images, training=True)[0])
        assert (expected == np.asarray(again(images, training=True)[0])).all()
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("make", LAYERS)
def test_config_rebuilds_the_layer(make):
    layer = make(seed=5)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (
        np.asarray(again(smooth(), training=True)) == np.asarray(layer(smooth(), training=True))
    ).all()


def test_integer_images_come_out_as_float32():
    images = np.full((2, 8, 8, 1), 200, "uint8")
    for training in (False, True):
        out = RandomAffine(seed=0)(images, training=training)
        assert keras.backend.standardize_dtype(out.dtype) == "float32" and np.allclose(
            out, 200, atol=1e-3
        )


@pytest.mark.parametrize("flip, allowed", [("none", 1), ("horizontal", 2), ("any", 8)])
@pytest.mark.parametrize("shape", [(12, 12), (12, 20)])
def test_flips_give_exactly_the_allowed_positions(flip, allowed, shape):
    image = np.random.default_rng(0).random((*shape, 1)).astype("float32")
    out = np.asarray(
        RandomAffine(0, 0, 0, 0, flip, seed=0)(np.repeat(image[None], 200, 0), training=True)
    )
    square = shape[0] == shape[1]
    sides = [image] if flip == "none" else [image, image[:, ::-1]]
    turns = [0] if flip != "any" else range(4) if square else (0, 2)
    places = np.stack([np.rot90(side, turn) for side in sides for turn in turns])
    hit = abs(out[:, None] - places[None]).max((2, 3, 4)) < 1e-3
    assert (hit.sum(1) == 1).all() and len(places) == (allowed if square else min(allowed, 4))
    assert (hit.mean(0) > 0.5 / len(places)).all()  # each about equally often


def test_amounts_are_kept():
    shape = (200, 100)
    matrices = ops.convert_to_numpy(
        RandomAffine(10, 0.15, 0.05, 0.1, "none", seed=0).matrices(4000, *shape)
    ).astype(float)
    angle = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    zoom_x = np.log(np.hypot(matrices[:, 0, 0], matrices[:, 1, 0]))
    zoom_y = np.log(np.hypot(matrices[:, 0, 1], matrices[:, 1, 1]))
    shift = (matrices @ np.array([49.5, 99.5, 1]))[:, :2] - (49.5, 99.5)
    for values, top in (
        (angle, 10),
        (zoom_x, 0.15),
        (zoom_y - zoom_x, 0.05),
        (shift[:, 0], 10),
        (shift[:, 1], 20),
    ):
        assert (
            abs(values).max() < top * 1.001 and abs(values).max() > 0.95 * top
        )  # fills its range, no more
        assert abs(values.mean()) < 0.05 * top  # and evenly
    assert np.allclose(matrices[:, 2], [0, 0, 1])


def test_numbers_of_a_layer_are_independent():
    matrices = ops.convert_to_numpy(
        RandomAffine(10, 0, 0, 0.1, seed=0).matrices(3000, 50, 50)
    ).astype(float)
    shift = (matrices @ np.array([24.5, 24.5, 1]))[:, :2]
    together = np.corrcoef(
        [np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]), shift[:, 0], shift[:, 1]]
    )
    assert abs(together - np.eye(3)).max() < 0.07


def test_layer_moves_image_mask_and_boxes_by_one_matrix():
    mask = np.zeros((6, 64, 64, 1), "uint8")
    mask[:, 22:40, 26:44] = 1
    data = {
        "image": mask.astype("float32"),
        "mask": mask,
        "boxes": np.repeat([[[22, 26, 40, 44]]], 6, 0),
    }
    layer = RandomAffine(30, 0.2, 0.1, 0.1, "any", fill_mode="constant", seed=0)
    still = layer(data)
    moved = layer(data, training=True)
    assert all((np.asarray(still[key]) == data[key]).all() for key in data)
    image, masks, boxes = (np.asarray(moved[key]) for key in ("image", "mask", "boxes"))
    # the nearest pixel has at least a quarter of the bilinear weight
    assert masks.dtype == np.uint8 and not (masks == mask).all()
    assert abs(image - masks).mean() < 0.01 and abs(image - masks).max() <= 0.75 + 1e-3
    for one, box in zip(masks, boxes, strict=True):
        assert abs(mask_box(one[..., 0]) - box[0]).max() <= 1.1


def test_the_whole_augmenter_takes_the_dict_and_leaves_mask_and_box_to_the_place():
    data = {
        "image": smooth(count=3),
        "mask": np.ones((3, 40, 40, 1), "int32"),
        "boxes": np.full((3, 2, 4), 5.0, "float32"),
    }
    out = augmenter("horizontal", erase=1.0, seed=0)(data, training=True)
    assert (
        set(out) == set(data)
        and out["image"].shape == (3, 40, 40, 1)
        and out["boxes"].shape == (3, 2, 4)
    )
    assert (np.asarray(out["mask"]) == 1).all()


def test_intensity_by_formula():
    images = smooth(20, 20, 3, count=50)
    plain = RandomIntensity(0.3, 0.1, seed=0)
    out = np.asarray(plain(images, training=True)).astype(float)
    mean = out.mean((1, 2)) - images.mean((1, 2))
    spread = out.std((1, 2)) / images.std((1, 2))
    assert abs(mean).max() < 0.1001 and abs(np.log(spread)).max() < 0.3001
    assert np.allclose(mean, mean[:, :1], atol=1e-5) and np.allclose(
        spread, spread[:, :1], atol=1e-3
    )  # channels alike
    assert np.allclose(RandomIntensity(0, 0, 0)(images, training=True), images, atol=1e-6)


def test_gamma_keeps_black_white_and_order():
    ramp = np.tile(np.linspace(0, 1, 32, dtype="float32")[None, None, :, None], (20, 4, 1, 1))
    out = np.asarray(RandomIntensity(0, 0, gamma=0.5, seed=0)(ramp, training=True))
    assert (
        np.isfinite(out).all()
        and np.allclose(out[..., 0, 0], 0, atol=1e-3)
        and np.allclose(out[..., -1, 0], 1, atol=1e-5)
    )
    assert (np.diff(out, axis=2) > 0).all() and out[:, 0, 16, 0].std() > 0.05


def test_erase_covers_the_stated_share_of_images_with_their_mean():
    images = smooth(30, 30, count=400)
    out = np.asarray(RandomErase(0.4, 0.25, seed=0)(images, training=True))
    changed = out != images
    share = changed.any((1, 2, 3)).mean()
    assert 0.17 < share < 0.33 and changed.mean((1, 2, 3)).max() <= 0.4**2 + 0.05
    i = int(np.argmax(changed.sum((1, 2, 3))))
    assert np.allclose(out[i][changed[i]], images[i].mean(), atol=1e-4)


def test_strength_zero_leaves_only_the_flips():
    images = smooth(count=30)
    assert np.allclose(augmenter("none", 0)(images, training=True), images, atol=1e-4)
    flipped = np.asarray(augmenter("horizontal", 0, seed=1)(images, training=True))
    same, mirrored = (abs(flipped - x).max((1, 2, 3)) < 1e-3 for x in (images, images[:, :, ::-1]))
    assert (same | mirrored).all() and same.any() and mirrored.any()


@pytest.mark.parametrize(
    "kind, setting, said",
    [
        (RandomAffine, {"rotation": -1}, "rotation"),
        (RandomAffine, {"zoom": "much"}, "zoom"),
        (RandomAffine, {"shift": 1.5}, "shift"),
        (RandomAffine, {"flip": "left"}, "flip must be one of none, horizontal, any"),
        (RandomAffine, {"fill_mode": "mirror"}, "fill_mode"),
        (RandomIntensity, {"contrast": np.nan}, "contrast"),
        (RandomIntensity, {"brightness": None}, "brightness"),
        (RandomErase, {"probability": 2}, "probability"),
        (augmenter, {"symmetry": "some"}, "flip"),
        (augmenter, {"strength": -1}, "strength"),
    ],
)
def test_wrong_settings_are_refused(kind, setting, said):
    with pytest.raises(ValueError, match=said) as caught:
        kind(**setting)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images", [np.zeros((8, 8, 1), "float32"), keras.Input((None, None, 1)), keras.Input((8, 8))]
)
def test_images_without_a_fixed_size_are_refused(images):
    with pytest.raises(ValueError, match="needs images .N, H, W, C. of a fixed size") as caught:
        RandomAffine()(images)
    assert "\n" not in str(caught.value)


def test_a_functional_model_may_take_the_dict():
    inputs = {
        "image": keras.Input((16, 16, 1), name="image"),
        "mask": keras.Input((16, 16, 1), name="mask", dtype="int32"),
    }
    model = keras.Model(inputs, augmenter("horizontal", seed=0)(inputs))
    out = model(
        {"image": smooth(16, 16, count=2), "mask": np.ones((2, 16, 16, 1), "int32")}, training=True
    )
    assert out["image"].shape == (2, 16, 16, 1) and (np.asarray(out["mask"]) == 1).all()


def test_a_model_with_an_augmenter_trains():
    images = smooth(12, 12, count=16)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            augmenter("any", erase=0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    history = model.fit(
        images, images.mean((1, 2, 3)), epochs=3, batch_size=6, verbose=0
    )  # a last batch of another size
    assert np.isfinite(history.history["loss"]).all()
    assert (model.predict(images, verbose=0) == model.predict(images, verbose=0)).all()
