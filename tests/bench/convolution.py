"""NumPy's convolution against Keras's on the CPU and against its own loops;
its cost against the number of images."""

import keras
import numpy as np

from medbook.foundations.convolution import conv2d_loops
from medbook.foundations.fast_convolution import conv2d, conv2d_backward
from tests.bench import Row, faster, seconds


def arrays(batch, side, channels, filters):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.standard_normal((batch, side, side, channels)),
        rng.standard_normal((3, 3, channels, filters)) / 10,
    )
    return x.astype("float32"), kernel.astype("float32")


def gradients_of_tensorflow(x, kernel, grad):
    """A compiled call of TensorFlow's own gradients of the input and the kernel."""
    import tensorflow as tf

    size = x.shape

    @tf.function
    def compute(x, kernel, grad):
        options = {"strides": [1, 1, 1, 1], "padding": "VALID"}
        return (
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=size, filter=kernel, out_backprop=grad, **options
            ),
            tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=grad, **options
            ),
        )

    return lambda: [array.numpy() for array in compute(x, kernel, grad)]


def rows():
    x, kernel = arrays(32, 64, 32, 64)
    yield faster(
        "convolution 32x64x64x32, 3x3, 64 filters, s; other: keras.ops.conv",
        lambda: conv2d(x, kernel),
        lambda: np.asarray(keras.ops.conv(x, kernel, padding="valid")),
        ">= 0.5",
        repeats=15,
    )
    small = arrays(1, 10, 32, 64)
    yield faster(
        "convolution 1x10x10x32, 3x3, 64 filters, s; other: the loops",
        lambda: conv2d(*small),
        lambda: conv2d_loops(*small),
        ">= 200",
        repeats=3,
    )
    twice = np.concatenate([x, x])
    few, many = seconds(lambda: conv2d(x[:4], kernel), lambda: conv2d(twice, kernel), repeats=15)
    yield Row(
        "convolution, s an image of a batch of 64; other: of a batch of 4",
        many / 64,
        few / 4,
        many / few / 16,
        "<= 1.25",
    )
    if keras.backend.backend() == "tensorflow":
        grad = conv2d(x, kernel)
        yield faster(
            "its gradients of image and kernel, s; other: TensorFlow's",
            lambda: conv2d_backward(grad, x, kernel),
            gradients_of_tensorflow(x, kernel, grad),
            ">= 0.25",
            repeats=15,
        )
