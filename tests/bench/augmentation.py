"""One matrix and one interpolation, against Keras's four layers, each in a compiled graph."""

import keras
import numpy as np

from medbook.images.augmentation import RandomAffine
from tests.bench import faster


def compiled(layers, batch):
    """A call that runs the layers in training mode as a model's training step does, compiled."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        batch = tf.constant(batch)
        graph = tf.function(lambda images: layers(images, training=True))
        return lambda: np.asarray(graph(batch))
    return lambda: np.asarray(layers(batch, training=True))


def rows():
    layers = keras.layers
    for count, side in ((64, 28), (32, 224)):
        images = np.random.default_rng(0).random((count, side, side, 1)).astype("float32")
        theirs = keras.Sequential(
            [
                layers.RandomRotation(10 / 360),
                layers.RandomTranslation(0.1, 0.1),
                layers.RandomZoom(0.15),
                layers.RandomFlip("horizontal"),
            ]
        )
        yield faster(
            f"random place, {count} images of {side}x{side}: "
            "one matrix against four Keras layers, s",
            compiled(RandomAffine(flip="horizontal"), images),
            compiled(theirs, images),
            ">= 1.2",
            repeats=15,
        )
