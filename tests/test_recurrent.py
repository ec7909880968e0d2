"""What recurrent networks share: the product in pieces, clipping, errors (scans: test_gated)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations import recurrent
from medbook.foundations.arrays import ArrayError

fewest = settings(max_examples=12, deadline=None, derandomize=True)


@pytest.mark.parametrize("rows", [1, 4, 15, 16, 17, 33, 256, 257])
def test_a_product_in_pieces_is_the_product(rows):
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 64)), rng.normal(size=(64, 256))
    assert np.abs(recurrent.small_product(a, b) - a @ b).max() < 1e-12


@fewest
@given(seed=st.integers(0, 99), limit=st.floats(0.01, 50))
def test_clipping_equals_tensorflow(seed, limit):
    rng = np.random.default_rng(seed)
    gradients = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    theirs, norm = tf.clip_by_global_norm(gradients, limit)
    ours = recurrent.clip_gradients([gradients[0], None, gradients[1]], limit)
    assert ours[1] is None and all(
        np.abs(a - b).max() < 1e-12 for a, b in zip(ours[::2], map(np.asarray, theirs), strict=True)
    )
    assert np.isclose(np.sqrt(sum(np.sum(part**2) for part in ours[::2])), min(limit, norm))
    assert recurrent.clip_gradients([np.zeros(2)], limit)[0].tolist() == [0, 0]


def test_clipping_keeps_the_direction_of_gradients_of_any_size():
    for size in (1e-30, 1.0, 1e200, 1e300):
        (clipped,) = recurrent.clip_gradients(
            [np.array([3 * size, 4 * size])], 1e-40 if size < 1e-20 else 1
        )
        assert clipped / np.linalg.norm(clipped) == pytest.approx([0.6, 0.8])
    with pytest.raises(ArrayError, match="^limit: .*expected a number above 0"):
        recurrent.clip_gradients([np.ones(2)], "1")


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: recurrent.clip_gradients([np.ones(2)], 0),
            "limit: 0, but expected a number above 0",
        ),
        (
            lambda: recurrent.clip_gradients([np.ones(2)], True),
            "limit: True, but expected a number above 0",
        ),
        (
            lambda: recurrent.clip_gradients([None, np.full((2, 16), np.nan)], 1),
            "gradients: shape (2, 16) with 32 values nan",
        ),
        (lambda: recurrent.clip_gradients([np.ones(2, int)], 1), "gradients: shape (2,) of int64"),
        (
            lambda: recurrent.clip_gradients(3.0, 1),
            "gradients: float, but expected a list of arrays",
        ),
        (
            lambda: recurrent.rnn_step(
                np.ones((3, 2)), np.ones((1, 4)), np.ones((2, 4)), np.ones((4, 4))
            ),
            "state: shape (1, 4), but expected (batch = 3, units = 4)",
        ),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ArrayError) as caught:
        call()
    assert str(caught.value).startswith(words)
