"""All feature maps of MobileNetV2 at 224 × 224 against the bare forward pass; mosaic and axes."""

import keras
import numpy as np

from medbook.inspection.backend import compile_function, to_numpy
from medbook.inspection.feature_maps import device_maps, feature_maps, mosaic, quantised_maps
from tests.bench import faster


def network():
    """MobileNetV2 with random weights and one image."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3), classes=2)
    return model, np.random.default_rng(0).random((1, 224, 224, 3), dtype="float32")


def grid(maps):
    """The plain way: a figure with 8 × 8 axes, drawn."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(8, 8)
    for place, ax in enumerate(axes.flat):
        ax.imshow(maps[..., place])
        ax.axis("off")
    fig.canvas.draw()
    plt.close(fig)


def rows():
    model, image = network()
    forward = compile_function(lambda images: model(images, training=False), model)

    def bare():
        return to_numpy(forward(image))

    yield faster(
        "all maps of MobileNetV2, 224 × 224, as arrays against the bare compiled forward pass, s "
        "(at most 1.15 times its time)",
        lambda: feature_maps(model, image),
        bare,
        ">= 0.87",
        repeats=41,
    )
    yield faster(
        "the same left on the device, s",
        lambda: to_numpy(device_maps(model, image)[0]),
        bare,
        ">= 0.87",
        repeats=41,
    )
    yield faster(
        "the maps of one layer, quantised, against the bare forward pass, s",
        lambda: quantised_maps(model, image, ["block_3_expand"]),
        bare,
        ">= 0.8",
        repeats=41,
    )
    maps = np.random.default_rng(0).random((56, 56, 64), dtype="float32")
    yield faster(
        "mosaic of 64 maps of 56 × 56 against an 8 × 8 grid of axes, s",
        lambda: mosaic(maps),
        lambda: grid(maps),
        ">= 10",
    )
