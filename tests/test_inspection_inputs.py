"""Chapter 5.17: images of all types are taken, and wrong ones told what would do."""

import keras
import numpy as np
import pytest
from keras import layers as L

import medbook.inspection.feature_maps as f
from medbook.inspection import inputs, layers
from medbook.inspection.backend import InspectionError
from tests.inspection_models import (
    Subclassed,
    any_size,
    array,
    input_list,
    numpy,
    sequential,
    subclassed,
)


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int64", "float16", "bool"])
def test_images_of_other_types(dtype):
    model, _, own = sequential()
    images = (abs(array(2, 8, 8, 1)) * 20).astype(dtype)
    expected = own(images.astype("float32"))
    found = f.feature_maps(model, images)
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, rtol=0, atol=1e-5 * abs(values).max())


@pytest.mark.backends
def test_tensors_lists_of_numbers_and_read_only_arrays():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="d")])
    images = array(2, 3)
    expected = f.feature_maps(model, images)["d"]
    images.flags.writeable = False
    assert np.array_equal(f.feature_maps(model, images)["d"], expected)
    assert np.array_equal(
        f.feature_maps(model, keras.ops.convert_to_tensor(array(2, 3)))["d"], expected
    )
    assert np.array_equal(f.feature_maps(model, np.asfortranarray(images))["d"], expected)


@pytest.mark.backends
def test_a_model_for_any_size_takes_another_size_next():
    model, images, own = any_size()
    for shape in ((2, 9, 11, 1), (1, 20, 5, 1), (2, 9, 11, 1), (3, 6, 6, 1)):
        images = array(*shape)
        for path, values in own(images).items():
            np.testing.assert_allclose(f.feature_maps(model, images)[path], values, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[0],
            r"shape \(8, 8, 1\), but model 'plain' takes \(batch, 8, 8, 1\); write images\[None\]",
        ),
        (lambda x: x[..., 0], r"write images\[\.\.\., None\]"),
        (lambda x: x[0, ..., 0], r"write images\[None, \.\.\., None\]"),
        (lambda x: np.moveaxis(x, -1, 1), r"np\.moveaxis\(images, 1, -1\)"),
        (lambda x: x[:, :5], r"shape \(2, 5, 8, 1\), but model 'plain' takes \(batch, 8, 8, 1\)$"),
        (lambda x: np.repeat(x, 3, -1), r"\(2, 8, 8, 3\), but"),
        (lambda x: x[:0], r"no images: an array of shape \(0, 8, 8, 1\)"),
        (lambda x: x * np.nan, "NaN or infinity"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: x.astype(str), "images must be numbers, not <U"),
        (lambda x: x.astype(complex), "images must be numbers, not complex128"),
        (lambda x: "image.png", "images must be numbers"),
        (lambda x: None, "images must be numbers|no images|inputs"),
        (lambda x: [x, x], r"has 1 inputs, 2 were given; write np\.stack\(images\)"),
        (lambda x: {"picture": x}, r"has inputs \[.*\], \['picture'\] were given"),
    ],
)
def test_wrong_images(change, message):
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(2, 3)], name="plain")
    for function in (f.feature_maps, f.quantised_maps, layers.layer_outputs):
        with np.errstate(all="ignore"), pytest.raises(InspectionError, match=message):
            function(model, change(array(2, 8, 8, 1)))


def test_wrong_inputs_of_several():
    model, (image, age), _ = input_list()
    for wrong, message in (
        ([image], "has 2 inputs, 1 were given"),
        ([image, age[:2]], r"not \[3, 2\]"),
        ([age, image], r"images have shape \(3, 2\)"),
        ({"image": image}, r"has inputs \['age', 'image'\], \['image'\] were given"),
    ):
        with pytest.raises(InspectionError, match=message):
            f.feature_maps(model, wrong)
    by_name = f.feature_maps(model, {"image": image, "age": age})
    assert np.array_equal(by_name["out"], f.feature_maps(model, [image, age])["out"])


def test_wrong_models():
    for wrong in (None, "model.keras", L.Dense(2), lambda x: x):
        with pytest.raises(InspectionError, match="expected a keras.Model, not"):
            f.feature_maps(wrong, array(2, 3))
    for unbuilt in (keras.Sequential([L.Dense(2)]), Subclassed()):
        with pytest.raises(InspectionError, match="has no weights yet: build it, or call it once"):
            f.feature_maps(unbuilt, array(2, 3))
    model, _, _ = subclassed()
    with pytest.raises(
        InspectionError, match=r"model 'mine' cannot run on images of shape \(2, 7, 7, 5\)"
    ):
        f.feature_maps(model, array(2, 7, 7, 5))


@pytest.mark.backends
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_model_that_was_made_for_four_images(count):
    image = keras.Input(batch_shape=(4, 8, 8, 1))
    model = keras.Model(
        image, L.Dense(2, name="d")(keras.ops.reshape(L.Conv2D(3, 3, name="c")(image), (4, -1)))
    )
    x = array(count, 8, 8, 1)
    if count == 4:
        np.testing.assert_allclose(f.feature_maps(model, x)["d"], numpy(model(x)), atol=1e-5)
        assert layers.layer_outputs(model, x)["c"].shape == (None, 6, 6, 3)
    else:
        with pytest.raises(
            InspectionError, match=f"shape \\({count}, 8, 8, 1\\).*made for 4 images at a time"
        ):
            f.feature_maps(model, x)


def test_numbers_of_another_machine_and_masked_pixels():
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(1, 3)])
    x = np.random.default_rng(0).integers(0, 9, (1, 4, 4, 1))
    same = f.feature_maps(model, x.astype("float32"))[model.layers[0].name]
    for kind in (">f4", ">f8", ">u2", ">i4"):
        assert inputs.as_batch(model, x.astype(kind)).dtype.isnative
        np.testing.assert_allclose(
            f.feature_maps(model, x.astype(kind))[model.layers[0].name], same, atol=1e-5
        )
    with pytest.raises(InspectionError, match="masked.*filled"):
        inputs.as_batch(model, np.ma.masked_equal(x.astype("float32"), x.flat[0]))
    assert inputs.as_batch(model, np.ma.masked_equal(x.astype("float32"), 99)).shape == x.shape


class Two(keras.Model):
    """Several positional inputs, which Keras allows and nobody can pass as one batch."""

    def __init__(self):
        super().__init__(name="two")
        self.dense = L.Dense(2)

    def call(self, image, age):
        return self.dense(keras.ops.concatenate([image, age], -1))


def test_several_positional_inputs_are_told_how_to_pass():
    model = Two()
    x = array(2, 3)
    model(x, x)
    with pytest.raises(
        InspectionError, match=r"'age'.*one argument, call\(self, inputs\), a list or a dict"
    ):
        f.feature_maps(model, [x, x])
