"""Attention in NumPy, on one core, against Keras called eagerly on all:
one attention, and the layer with its projections."""

import keras
import numpy as np
from threadpoolctl import threadpool_limits

from medbook.foundations.attention import scaled_dot_product_attention
from medbook.foundations.heads import HeadWeights, multi_head_attention
from tests.bench import faster


def rows():
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=(8, 4, 256, 32)).astype("float32") for _ in range(3))
    theirs = [keras.ops.convert_to_tensor(array.swapaxes(1, 2)) for array in (q, k, v)]
    x = random.normal(size=(8, 256, 128)).astype("float32")
    layer, tensor = keras.layers.MultiHeadAttention(4, 32), keras.ops.convert_to_tensor(x)
    layer(tensor, tensor)
    weights = HeadWeights.from_keras(layer.get_weights())
    with threadpool_limits(
        1
    ):  # the products are small: a second core gains little and waits for the first
        yield faster(
            "attention, 8x4 heads of 256x256, depth 32: NumPy against keras.ops, s",
            lambda: scaled_dot_product_attention(q, k, v),
            lambda: np.asarray(keras.ops.dot_product_attention(*theirs)),
            ">= 0.5",
            repeats=15,
        )
        yield faster(
            "multi-head attention, 8x256x128, 4 heads: NumPy against the layer called eagerly, s",
            lambda: multi_head_attention(x, x, x, weights),
            lambda: np.asarray(layer(tensor, tensor)),
            ">= 0.5",
            repeats=15,
        )
