"""A training step in NumPy against Keras's compiled one."""

import keras
import numpy as np

from medbook.foundations.backprop import digits_double, set_weights
from medbook.foundations.optimizers import Adam
from medbook.training.cnn import digits_double as keras_digits_double
from tests.bench import faster


def rows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 28, 28, 1)).astype("float32"), rng.integers(0, 10, 64)
    model = keras_digits_double()
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    network, adam = digits_double(), Adam()
    set_weights(network, model.get_weights())

    def step():
        network.learn(x, y)
        adam.update(network.layers)

    what = (
        "a training step of digits_double in NumPy, batch 64, against Keras's compiled step "
        "(at most 3 times its time)"
    )
    yield faster(what, step, lambda: float(model.train_on_batch(x, y)), ">= 0.333", repeats=31)
