"""Part 5 on real files: every readable DICOM image; maps, heat and arithmetic of radiographs."""

import keras
import numpy as np
import pytest

from medbook.images import load, read_image
from medbook.images.dicom import DicomError
from medbook.inspection.activation_maps import grad_cam
from medbook.inspection.explorer import FeatureExplorer, prepare_image
from medbook.inspection.feature_maps import feature_maps
from medbook.inspection.pixel import explain_pixel
from medbook.training.cnn import digits_double


def network(channels):
    """An untrained network of 64 × 64 pixels."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((64, 64, channels)),
            keras.layers.Conv2D(4, 5, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


@pytest.mark.filterwarnings("ignore")
def test_every_readable_image_is_prepared(shared):
    """Grey, colour, of one frame or many: (1, 64, 64, channels), finite, from 0 to 1."""
    models = {channels: network(channels) for channels in (1, 3)}
    seen = 0
    for path in sorted(path for path in (shared / "dicom").rglob("*") if path.is_file()):
        try:
            image = read_image(path)
        except DicomError:
            continue
        for channels, model in models.items():
            batch = prepare_image(model, image)
            assert batch.shape == (1, 64, 64, channels), path.name
            assert np.isfinite(batch).all() and batch.min() >= -1e-5 and batch.max() <= 1 + 1e-5, (
                path.name
            )
        seen += 1
    assert seen > 30


@pytest.fixture(scope="module")
def radiographs(request):
    """Eight real chest radiographs and a network of 28 × 28 pixels."""
    folder = request.getfixturevalue("shared")
    keras.utils.set_random_seed(0)
    return digits_double(classes=2), load(folder / "medmnist" / "pneumoniamnist.npz").subset(
        "valid"
    ).images[:8].astype("float32")


def test_maps_equal_a_network_that_ends_there(radiographs):
    model, images = radiographs
    for path, maps in feature_maps(model, images).items():
        theirs = keras.Model(model.inputs, model.get_layer(path).output)(images)
        np.testing.assert_allclose(maps, keras.ops.convert_to_numpy(theirs), atol=1e-5)


def test_heat_follows_the_textbook(radiographs):
    """A map's mean gradient is how the score moves when a constant is shared out over the map."""
    model, images = radiographs
    ends = keras.Sequential([keras.layers.Input((11, 11, 64)), *model.layers[3:]])
    last = model.layers[2]
    maps = feature_maps(model, images[:1], last)[last.name]
    heat = grad_cam(model, images[:1], layer=last, target=1, relu=False, upsample=False)
    step = 1e-2 * np.eye(64, dtype="float32")[:, None, None, :]
    rise = keras.ops.convert_to_numpy(ends(maps + step) - ends(maps - step))[:, 1] / (
        2 * 1e-2 * 121
    )
    np.testing.assert_allclose(heat[0], (maps[0] * rise).sum(-1), atol=1e-4)


def test_the_arithmetic_of_two_hundred_pixels(radiographs):
    model, images = radiographs
    rng = np.random.default_rng(0)
    maps = feature_maps(model, images)
    for _ in range(200):
        path = rng.choice(list(maps))
        image = int(rng.integers(len(images)))
        index = tuple(int(rng.integers(size)) for size in maps[path].shape[1:])
        found = explain_pixel(model, images, path, index, image=image)
        assert abs(found.total - maps[path][(image, *index)]) <= 1e-4, (path, index)


def test_the_explorer_shows_the_models_own_scores(radiographs):
    model, images = radiographs
    explorer = FeatureExplorer(model, images[0])
    for image in images:
        explorer.image = image
        np.testing.assert_allclose(
            explorer.sides[0].scores, model.predict(image[None], verbose=0)[0], atol=1e-5
        )
    explorer.close()
