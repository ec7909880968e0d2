"""Chapter 5.8: which number is explained, by every method, on all kinds of models."""

import keras
import numpy as np
import pytest

from medbook.inspection import activation_maps as cams
from medbook.inspection import gradients as grads
from medbook.inspection import masks, targets, trust
from medbook.inspection.backend import InspectionError
from tests.inspection_models import array, images, kinds, linear, seeded, small_cnn  # noqa: F401

layers = keras.layers

GRADIENTS = [
    grads.saliency,
    grads.gradient_times_input,
    grads.smooth_grad,
    grads.integrated_gradients,
]
CAMS = [cams.grad_cam, cams.grad_cam_plus_plus, cams.hires_cam, masks.score_cam]
ALL = GRADIENTS + CAMS + [masks.occlusion, masks.rise]


@pytest.mark.backends
def test_scores_of_each_kind_of_target():
    model = small_cnn()
    x = images(3, 12, 14, 2)
    output = keras.ops.convert_to_numpy(model(x))
    assert np.allclose(targets.scores(model, x), output.max(1), atol=1e-6)
    assert np.allclose(targets.scores(model, x, target=1), output[:, 1], atol=1e-6)
    assert np.allclose(
        targets.scores(model, x, target=[2, 0, 1]), output[[0, 1, 2], [2, 0, 1]], atol=1e-6
    )
    assert np.allclose(targets.scores(model, x, target=(2,)), output[:, 2], atol=1e-6)
    assert np.allclose(
        targets.scores(model, x, target=np.array([True, False, True])),
        output[:, 0] + output[:, 2],
        atol=1e-6,
    )
    each = np.arange(9.0).reshape(3, 3)
    assert np.allclose(targets.scores(model, x, target=each), (output * each).sum(1), atol=1e-5)


def test_a_single_unit_is_itself_below_and_above_a_half():
    model = small_cnn(classes=1, activation="sigmoid")
    x = images(6, 12, 14, 2)
    expected = keras.ops.convert_to_numpy(model(x))[:, 0]
    assert np.allclose(targets.scores(model, x), expected, atol=1e-6) and np.allclose(
        targets.scores(model, x, target=0), expected, atol=1e-6
    )


@pytest.mark.parametrize(
    "ending", [pytest.param("dense", marks=pytest.mark.backends), "layer", "activation", "conv"]
)
@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_logits_are_what_the_last_activation_was_given(ending, function):
    plain = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 6, name="c"),
            layers.Flatten(),
            layers.Dense(4, name="d"),
        ]
    )
    inputs = keras.Input((6, 6, 1))
    y = layers.Flatten()(layers.Conv2D(3, 6, name="c")(inputs))
    if ending == "conv":
        inputs = keras.Input((6, 6, 1))
        y = None
        y = layers.Conv2D(3, 6, name="c", activation=function)(inputs)
        plain = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 6, name="c")])
    elif ending == "dense":
        y = layers.Dense(4, activation=function, name="d")(y)
    else:
        y = layers.Dense(4, name="d")(y)
        made = (
            layers.Activation(function)
            if ending == "activation"
            else (layers.Softmax() if function == "softmax" else None)
        )
        y = made(y) if made else keras.ops.sigmoid(y)
    model = keras.Model(inputs, y)
    model.set_weights(plain.get_weights())
    x = images(2, 6, 6, 1)
    target = (0, 0, 1) if ending == "conv" else 1
    assert np.allclose(
        targets.scores(model, x, target=target, logits=True),
        targets.scores(plain, x, target=target),
        atol=1e-5,
    )
    assert np.allclose(
        grads.saliency(model, x, target=target, logits=True),
        grads.saliency(plain, x, target=target),
        atol=1e-5,
    )
    assert not np.allclose(
        grads.saliency(model, x, target=target), grads.saliency(plain, x, target=target), atol=1e-5
    )


@pytest.mark.backends
def test_logits_of_a_nested_head_leave_the_model_as_it_is():
    head = keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, activation="softmax", name="d")], name="head"
    )
    model = keras.Sequential([keras.Input((8,)), head])
    x = images(2, 8)
    before = keras.ops.convert_to_numpy(model(x))
    found = targets.scores(model, x, target=1, logits=True)
    kernel, bias = head.get_weights()
    assert np.allclose(found, x @ kernel[:, 1] + bias[1], atol=1e-5)
    assert head.layers[-1].activation is keras.activations.softmax
    assert np.array_equal(before, keras.ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize(
    "target, words",
    [
        (3, "no class 3: the output has classes 0 to 2"),
        (-1, "no class -1"),
        ((0, 1), "no unit"),
        ((5,), "no unit"),
        ([0, 1, 2], "give a class"),
        (np.ones(4), "mask of shape"),
        ("nodule", "give a class"),
        (0.5, "give a class"),
        (np.array([np.nan, 0, 0]), "NaN"),
    ],
)
def test_a_wrong_target_is_told(target, words):
    with pytest.raises(InspectionError, match=words):
        grads.saliency(small_cnn(), images(2, 12, 14, 2), target=target)


def test_a_single_unit_has_no_class_one():
    with pytest.raises(InspectionError, match="single unit is target=0"):
        cams.grad_cam(small_cnn(classes=1, activation="sigmoid"), images(1, 12, 14, 2), target=1)


def test_logits_need_a_softmax_or_sigmoid():
    with pytest.raises(InspectionError, match="ends in 'head' .Dense.; leave logits out"):
        grads.saliency(small_cnn(activation=None), images(1, 12, 14, 2), logits=True)


KINDS = ["functional", "sequential", "nested", "subclassed", "two inputs", "1-D", "3-D"]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.backends) if k == "two inputs" else k for k in KINDS]
)
def test_every_method_on_every_kind_of_model(kind):
    model, x = next((model, x) for name, model, x in kinds() if name == kind)
    shape = (x["picture"] if kind == "two inputs" else x).shape[:-1]
    for method in ALL:
        options = {
            masks.rise: {"masks": 20, "cells": 3},
            grads.integrated_gradients: {"steps": 4},
        }.get(method, {})
        options = {"relu": False} if method in CAMS else options
        found = method(model, x, target=0, **options)
        assert found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all(), (
            method.__name__
        )
        one = method(
            model, keras.tree.map_structure(lambda values: values[1:2], x), target=0, **options
        )
        assert np.abs(one - found[1:2]).max() <= 1e-5 * max(np.abs(found).max(), 1), method.__name__
        assert np.ptp(found) > 0, method.__name__


def test_batches_of_any_size_give_the_same_arrays_which_can_be_written_to():
    model = small_cnn()
    x = images(3, 12, 14, 2)
    few = {masks.rise: {"masks": 21}, grads.integrated_gradients: {"steps": 5}}
    for method in ALL:
        options = few.get(method, {})
        found = method(model, x, batch_size=2, **options)
        found -= method(model, x, **options)
        assert np.allclose(found, 0, atol=1e-5), method.__name__
    cams.grad_cam(model, x, upsample=False)[0, 0, 0] = 1


@pytest.mark.backends
def test_new_weights_are_seen():
    model = small_cnn()
    x = images(1, 12, 14, 2)
    before = cams.grad_cam(model, x, target=0, relu=False)
    model.set_weights([2 * one for one in model.get_weights()])
    assert not np.allclose(cams.grad_cam(model, x, target=0, relu=False), before)


@pytest.mark.backends
def test_whole_numbers_and_multi_label_and_dense_outputs():
    inputs = keras.Input((8, 8, 1))
    down = layers.MaxPooling2D(name="down")(
        layers.Conv2D(3, 3, padding="same", activation="relu", name="a")(inputs)
    )
    dense = keras.Model(
        inputs, layers.Conv2D(2, 1, activation="softmax", name="out")(layers.UpSampling2D()(down))
    )
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1)).astype("uint8")
    total = keras.ops.convert_to_numpy(dense(x.astype("float32")))[..., 1].sum((1, 2))
    assert np.allclose(targets.scores(dense, x, target=1), total, rtol=1e-5)
    mask = np.zeros((8, 8, 2), bool)
    mask[2, 3, 1] = True
    gradients = grads.saliency(
        dense, x, target=mask, logits=True
    )  # the softmax of such large values is flat
    assert (
        np.array_equal(gradients, grads.saliency(dense, x, target=(2, 3, 1), logits=True))
        and gradients.any()
    )
    assert not gradients[:, 6:].any()  # out of that pixel's receptive field
    assert cams.grad_cam(dense, x, target=mask, layer="down").shape == (2, 8, 8)
    with pytest.raises(InspectionError, match="output is dense"):
        grads.saliency(dense, x)
    with pytest.raises(InspectionError, match="itself a map.*name the layer"):
        cams.grad_cam(dense, x, target=1)


def test_mixed_precision_gives_nearly_the_same_in_float32():
    x = images(2, 12, 14, 2)
    plain = small_cnn(activation=None)
    with_policy = keras.models.clone_model(
        plain,
        clone_function=lambda layer: type(layer).from_config(
            layer.get_config()
            | ({"dtype": "mixed_bfloat16"} if not isinstance(layer, layers.InputLayer) else {})
        ),
    )
    with_policy.set_weights(plain.get_weights())
    others = (grads.gradient_times_input, grads.smooth_grad, cams.hires_cam)  # as their neighbours
    few = {masks.rise: {"masks": 20}, grads.integrated_gradients: {"steps": 8}}
    for method in [one for one in ALL if one not in others]:
        options = few.get(method, {})
        found = method(with_policy, x, target=1, **options)
        expected = method(plain, x, target=1, **options)
        assert (
            found.dtype == np.float32
            and np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean() + 0.02
        ), method.__name__


def test_tables_are_explained_feature_by_feature():
    model = linear((7,))
    x = images(3, 7)
    weights = model.get_weights()[0][:, 1]
    assert np.allclose(grads.gradient_times_input(model, x, target=1), x * weights, atol=1e-6)
    assert np.allclose(
        masks.occlusion(model, x, target=1, patch=1, fill=0.0), x * weights, atol=1e-5
    )
    with pytest.raises(InspectionError, match="keeps the image's spatial axes"):
        cams.grad_cam(model, x)


def test_several_image_like_inputs_must_be_named():
    first = keras.Input((8, 8, 1), name="before")
    second = keras.Input((8, 8, 1), name="after")
    y = layers.Concatenate()(
        [layers.Conv2D(2, 3, name="left")(first), layers.Conv2D(2, 3, name="right")(second)]
    )
    model = keras.Model([first, second], layers.Dense(2)(layers.Flatten()(y)))
    x = [images(2, 8, 8, 1), images(2, 8, 8, 1, seed=1)]
    with pytest.raises(InspectionError, match="2 of 2 inputs are image-like.*'before', 'after'"):
        grads.saliency(model, x, target=0)
    with pytest.raises(InspectionError, match="no input 'later'"):
        grads.saliency(model, x, target=0, input="later")
    assert np.array_equal(
        grads.saliency(model, x, target=0, input="after"),
        grads.saliency(model, x, target=0, input=1),
    )
    assert not np.allclose(
        grads.saliency(model, x, target=0, input=0), grads.saliency(model, x, target=0, input=1)
    )
    with pytest.raises(InspectionError, match="several image-like inputs: name the layer"):
        cams.grad_cam(model, x, target=0, input=0)
    assert cams.grad_cam(model, x, target=0, input=0, layer="left").shape == (2, 8, 8)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m, x: grads.saliency(m, x[0]), "single image"),
        (lambda m, x: cams.grad_cam(m, x, batch_size=0), "batch_size"),
        (lambda m, x: masks.occlusion(m, x, patch=99), "patch must be"),
        (lambda m, x: masks.occlusion(m, x, stride=0), "stride must be"),
        (lambda m, x: masks.occlusion(m, x, patch=(1, 2, 3)), "one for each axis"),
        (lambda m, x: masks.occlusion(m, x, fill="black"), "fill is"),
        (lambda m, x: masks.rise(m, x, keep=1.0), "keep"),
        (lambda m, x: grads.integrated_gradients(m, x, baseline=np.ones(5)), "baseline of shape"),
        (lambda m, x: trust.deletion_insertion(m, x, np.ones((1, 3, 3))), "attribution of shape"),
    ],
)
def test_wrong_options_are_told(call, words):
    with pytest.raises(InspectionError, match=words):
        call(small_cnn(), images(1, 12, 14, 2))


def test_two_outputs_are_told():
    inputs = keras.Input((4, 4, 1))
    flat = layers.Flatten()(inputs)
    with pytest.raises(InspectionError, match="has 2 outputs; explain one"):
        grads.saliency(
            keras.Model(inputs, [layers.Dense(2)(flat), layers.Dense(1)(flat)]), images(1, 4, 4, 1)
        )


def test_one_output_inside_a_dict_or_a_list_is_the_only_one():
    image = keras.Input((8, 8, 1))
    y = layers.Dense(2, activation="softmax", name="head")(
        layers.Flatten()(layers.Conv2D(2, 3, name="conv")(image))
    )
    plain = keras.Model(image, y)
    x = images(2, 8, 8, 1)
    for packed in ({"p": y}, [y]):
        model = keras.Model(image, packed)
        for method, options in (
            (targets.scores, {}),
            (grads.saliency, {}),
            (masks.occlusion, {}),
            (cams.grad_cam, {"target": 1, "logits": True}),
        ):
            np.testing.assert_allclose(
                method(model, x, **options), method(plain, x, **options), atol=1e-5
            )


@pytest.mark.backends
def test_a_model_that_was_made_for_some_images_at_a_time():
    image = keras.Input(batch_shape=(2, 8, 8, 1))
    y = layers.Dense(2, name="head")(
        keras.ops.reshape(layers.Conv2D(2, 3, name="conv")(image), (2, -1))
    )
    model = keras.Model(image, y)
    x = images(4, 8, 8, 1)
    for method in (grads.saliency, grads.gradient_times_input, cams.grad_cam, targets.scores):
        found = method(model, x, target=1, batch_size=2)
        np.testing.assert_allclose(found[:2], method(model, x[:2], target=1), atol=1e-6)
    for method in (grads.saliency, cams.grad_cam, targets.scores):
        with pytest.raises(InspectionError, match="made for 2 images at a time.*batch_size=2"):
            method(model, x, target=1)
    assert grads.integrated_gradients(model, x[:1].repeat(2, 0), target=1, batch_size=2).shape == (
        2,
        8,
        8,
    )
    with pytest.raises(InspectionError, match="made for 2 images"):
        masks.occlusion(model, x[:2], target=1)
