"""Pooling in NumPy against Keras's, called eagerly on all cores:
forward from array to array, slopes by TensorFlow's own kernel."""

import keras
import numpy as np

from medbook.foundations.pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from tests.bench import faster

SHAPE = (32, 64, 64, 32)


def forward(x, size, stride):
    """The two kinds: a name, our call, Keras's call."""
    yield (
        "max",
        lambda: max_pool2d(x, size, stride=stride),
        lambda: keras.ops.convert_to_numpy(keras.ops.max_pool(x, size, stride)),
    )
    yield (
        "average",
        lambda: avg_pool2d(x, size, stride=stride),
        lambda: keras.ops.convert_to_numpy(keras.ops.average_pool(x, size, stride)),
    )


def backward(x, size, stride):
    """The same for the slopes, where TensorFlow runs;
    its kernel is also handed the result, which ours works out again."""
    import tensorflow as tf

    window = {"ksize": [1, size, size, 1], "strides": [1, stride, stride, 1], "padding": "VALID"}
    y = max_pool2d(x, size, stride=stride)
    grad = np.random.default_rng(1).normal(size=y.shape).astype("float32")
    tensor, result, slope = tf.constant(x), tf.constant(y), tf.constant(grad)
    yield (
        "max",
        lambda: max_pool2d_backward(grad, x, size, stride=stride),
        lambda: tf.raw_ops.MaxPoolGrad(
            orig_input=tensor, orig_output=result, grad=slope, **window
        ).numpy(),
    )
    yield (
        "average",
        lambda: avg_pool2d_backward(grad, x, size, stride=stride),
        lambda: tf.raw_ops.AvgPoolGrad(orig_input_shape=x.shape, grad=slope, **window).numpy(),
    )


def rows():
    x = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    image = "x".join(map(str, SHAPE))
    for size, stride in ((2, 2), (3, 2)):
        for name, ours, theirs in forward(x, size, stride):
            what = (
                f"{name} pooling of {image}, {size}x{size} stride {stride}: NumPy against "
                "keras.ops, both from array to array, s"
            )
            yield faster(what, ours, theirs, ">= 0.5", repeats=25)
    if keras.backend.backend() == "tensorflow":
        for name, ours, theirs in backward(x, 2, 2):
            what = f"slope of {name} pooling of {image}, 2x2: NumPy against TensorFlow's kernel, s"
            yield faster(what, ours, theirs, ">= 0.5", repeats=15)
