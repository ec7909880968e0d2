"""Losses: equal to Keras, at the extremes too; gradients equal to differences; clear errors."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations import losses as module
from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.losses import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    binary_focal_loss,
    binary_focal_loss_backward,
    categorical_cross_entropy,
    categorical_cross_entropy_backward,
    categorical_focal_loss,
    categorical_focal_loss_backward,
    mean_squared_error,
    sparse_categorical_cross_entropy,
    sparse_categorical_cross_entropy_backward,
)

many = settings(max_examples=30, deadline=None, derandomize=True)
fewer = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
leading = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
K = keras.losses
KERAS = {
    "mean_squared_error": K.mean_squared_error,
    "binary_cross_entropy": K.binary_crossentropy,
    "categorical_cross_entropy": K.categorical_crossentropy,
    "sparse_categorical_cross_entropy": K.sparse_categorical_crossentropy,
    "binary_focal_loss": lambda y, p, alpha=None, **kwargs: K.binary_focal_crossentropy(
        y, p, apply_class_balancing=alpha is not None, alpha=alpha or 0, **kwargs
    ),
    "categorical_focal_loss": lambda y, p, alpha=None, **kwargs: K.categorical_focal_crossentropy(
        y, p, alpha=1 if alpha is None else alpha, **kwargs
    ),
}
CASES = [("mean_squared_error", {})]
CASES += [(name, {"from_logits": logits}) for name in list(KERAS)[1:4] for logits in (False, True)]
CASES += [
    (f"{kind}_focal_loss", {"from_logits": logits, "gamma": gamma, "alpha": alpha})
    for kind in ("binary", "categorical")
    for logits in (False, True)
    for gamma, alpha in ((2.0, None), (0.0, None), (0.5, 0.3))
]


def functions(name):
    return getattr(module, name), getattr(module, f"{name}_backward")


def problem(name, logits, shape, seed, dtype, scale=2):
    """y_true and y_pred for a loss; `shape` ends with the classes where there are any."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, shape).clip(-9, 9)
    classes = rng.integers(0, shape[-1], shape[:-1])
    if name == "mean_squared_error":
        return rng.normal(size=shape).astype(dtype), z.astype(dtype)
    if name.startswith("binary"):
        return rng.integers(0, 2, shape).astype(dtype), (
            z if logits else scipy.special.expit(z)
        ).astype(dtype)
    y_true = classes if name.startswith("sparse") else np.eye(shape[-1])[classes].astype(dtype)
    return y_true, (z if logits else scipy.special.softmax(z, axis=-1)).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name, settings_", CASES)
@many
@given(front=leading, classes=st.integers(2, 7), seed=seeds)
def test_loss_and_gradient_equal_keras(dtype, name, settings_, front, classes, seed):
    forward, backward = functions(name)
    y_true, y_pred = problem(name, settings_.get("from_logits"), (*front, classes), seed, dtype)
    variable = tf.Variable(y_pred)
    with tf.GradientTape() as tape:
        theirs = tf.reduce_mean(KERAS[name](y_true, variable, **settings_))
    kept = y_true.copy(), y_pred.copy()
    ours, gradient = forward(y_true, y_pred, **settings_), backward(y_true, y_pred, **settings_)
    assert (
        ours.shape == ()
        and ours.dtype == gradient.dtype == dtype
        and gradient.shape == y_pred.shape
    )
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    slack = (
        1e-3 if dtype == "float32" and settings_.get("gamma") is not None else TOLERANCE[dtype]
    )  # Keras's float32 1 - p loses digits
    np.testing.assert_allclose(
        gradient, tape.gradient(theirs, variable), rtol=10 * slack, atol=slack
    )
    assert (y_true == kept[0]).all() and (y_pred == kept[1]).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name, settings_", CASES)
@fewer
@given(front=leading, classes=st.integers(2, 4), seed=seeds)
def test_gradients_equal_differences(weighted, name, settings_, front, classes, seed):
    forward, backward = functions(name)
    y_true, y_pred = problem(
        name, settings_.get("from_logits"), (*front, classes), seed, "float64", scale=1
    )
    if weighted:
        settings_ = settings_ | {
            "sample_weight": np.random.default_rng(seed).uniform(0, 3, front[0])
        }
    gradient = numerical_gradient(lambda v: forward(y_true, v, **settings_), y_pred, step=1e-6)
    np.testing.assert_allclose(
        backward(y_true, y_pred, **settings_), gradient, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_certain_probabilities_equal_keras_and_stay_finite(dtype):
    y, p = np.array([[1, 0, 0, 1, 1]], dtype), np.array([[0, 1, 0, 1, 1e-9]], dtype)
    rows, classes = np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.8, 0]], dtype), np.array([1, 1, 2])
    one_hot = np.eye(3, dtype=dtype)[classes]
    for name, y_true, y_pred in (
        ("binary_cross_entropy", y, p),
        ("binary_focal_loss", y, p),
        ("categorical_cross_entropy", one_hot, rows),
        ("categorical_focal_loss", one_hot, rows),
        ("sparse_categorical_cross_entropy", classes, rows),
    ):
        forward, backward = functions(name)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            ours, gradient = forward(y_true, y_pred), backward(y_true, y_pred)
        variable = tf.Variable(y_pred)
        with tf.GradientTape() as tape:
            theirs = tf.reduce_mean(KERAS[name](y_true, variable))
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[dtype])
        np.testing.assert_allclose(
            gradient,
            tape.gradient(theirs, variable),
            rtol=10 * TOLERANCE[dtype],
            atol=TOLERANCE[dtype],
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_large_logits_equal_keras_and_stay_finite(dtype):
    z = np.array([[1000, -1000, 0], [-1000, 1000, 500], [88, 89, 90]], dtype)
    classes = np.array([1, 1, 0])
    one_hot = np.eye(3, dtype=dtype)[classes]
    for name, y_true in (
        ("binary_cross_entropy", one_hot),
        ("categorical_cross_entropy", one_hot),
        ("sparse_categorical_cross_entropy", classes),
    ):
        forward, backward = functions(name)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            ours, gradient = (
                forward(y_true, z, from_logits=True),
                backward(y_true, z, from_logits=True),
            )
        np.testing.assert_allclose(
            ours,
            np.mean(KERAS[name](y_true, z, from_logits=True), dtype="float64"),
            rtol=TOLERANCE[dtype],
        )
        assert np.isfinite(gradient).all() and abs(gradient).max() > 0.05


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_loss_of_large_logits_is_the_unclipped_one(dtype, gamma):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        binary = [
            f(
                np.array([0, 1, 1]),
                np.array([1000, -1000, 1000], dtype),
                gamma=gamma,
                from_logits=True,
            )
            for f in (binary_focal_loss, binary_focal_loss_backward)
        ]
        y, z = np.eye(2)[[0, 1]], np.array([[-1000, 1000], [-1000, 1000]], dtype)
        several = [
            f(y, z, gamma=gamma, from_logits=True)
            for f in (categorical_focal_loss, categorical_focal_loss_backward)
        ]
    np.testing.assert_allclose(binary[0], 2000 / 3, rtol=1e-6)  # two cases wrong by 1000, one right
    np.testing.assert_allclose(binary[1], [1 / 3, -1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(several[0], 2000 / 2, rtol=1e-6)
    np.testing.assert_allclose(several[1], [[-0.5, 0.5], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "dtype, logits", [("float32", [87, 90, 95, 100, 103]), ("float64", [708, 720, 740, 745])]
)
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.1, 0.5])
def test_focal_gradient_where_the_miss_is_too_small_to_divide_by(dtype, logits, gamma):
    z = np.array(logits, dtype)
    one_hot, pairs = np.tile([1, 0], (len(z), 1)), np.stack([z, 0 * z], axis=1)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        gradients = [
            binary_focal_loss_backward(np.ones(len(z)), z, gamma=gamma, from_logits=True),
            categorical_focal_loss_backward(one_hot, pairs, gamma=gamma, from_logits=True),
        ]
    assert all(gradient.dtype == dtype and (abs(gradient) < 1e-30).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(cases=st.integers(1, 9), classes=st.integers(2, 5), seed=seeds, logits=st.booleans())
def test_sample_weights_equal_keras(dtype, cases, classes, seed, logits):
    weight = np.random.default_rng(seed).uniform(0, 3, cases).astype(dtype)
    for name, theirs in (
        ("mean_squared_error", K.MeanSquaredError),
        ("binary_cross_entropy", K.BinaryCrossentropy),
        ("categorical_cross_entropy", K.CategoricalCrossentropy),
        ("sparse_categorical_cross_entropy", K.SparseCategoricalCrossentropy),
    ):
        kwargs = {} if name == "mean_squared_error" else {"from_logits": logits}
        y_true, y_pred = problem(name, logits, (cases, classes), seed, dtype)
        expected = theirs(dtype=dtype, **kwargs)(y_true, y_pred, sample_weight=weight)
        ours = getattr(module, name)(y_true, y_pred, sample_weight=weight, **kwargs)
        np.testing.assert_allclose(ours, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@fewer
@given(cases=st.integers(1, 9), classes=st.integers(2, 5), seed=seeds)
def test_one_thing_in_several_forms(cases, classes, seed):
    labels, z = problem("sparse_categorical_cross_entropy", True, (cases, classes), seed, "float64")
    one_hot, p = np.eye(classes)[labels], scipy.special.softmax(z, axis=-1)
    value = sparse_categorical_cross_entropy(labels, z, from_logits=True)
    for other in (
        categorical_cross_entropy(one_hot, z, from_logits=True),
        categorical_cross_entropy(one_hot, p),
        sparse_categorical_cross_entropy(labels, p),
        categorical_focal_loss(one_hot, z, gamma=0, from_logits=True),
    ):
        np.testing.assert_allclose(other, value, rtol=1e-5)
    pair = np.stack(
        [np.zeros(cases), z[:, 0]], axis=1
    )  # two classes: softmax of (0, z) is the sigmoid of z
    np.testing.assert_allclose(
        binary_cross_entropy(one_hot[:, 0], z[:, 0], from_logits=True),
        sparse_categorical_cross_entropy(one_hot[:, 0].astype(int), pair, from_logits=True),
        rtol=1e-12,
    )
    gradient = (p - one_hot) / cases
    for found in (
        categorical_cross_entropy_backward(one_hot, z, from_logits=True),
        sparse_categorical_cross_entropy_backward(labels, z, from_logits=True),
    ):
        np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-12)
    assert (
        binary_focal_loss(one_hot, p, gamma=2)
        < binary_focal_loss(one_hot, p, gamma=0)
        == binary_cross_entropy(one_hot, p)
    )


def test_by_hand():
    assert mean_squared_error(np.array([1, 0]), np.array([0.5, 0.5])) == 0.25
    assert np.isclose(
        binary_cross_entropy([1, 0], np.array([0.8, 0.8])), (-np.log(0.8) - np.log(0.2)) / 2
    )
    assert np.isclose(
        binary_focal_loss([1], np.array([0.9]), gamma=2, alpha=0.25), 0.25 * 0.1**2 * -np.log(0.9)
    )
    assert np.isclose(
        categorical_focal_loss([[0, 1]], np.array([[0.1, 0.9]]), gamma=2, alpha=[0.5, 0.25]),
        0.25 * 0.1**2 * -np.log(0.9),
    )
    assert np.isclose(
        categorical_cross_entropy([[0.5, 0.5]], np.array([[0.25, 0.75]])),
        -(np.log(0.25) + np.log(0.75)) / 2,
    )


def test_labels_of_every_kind():
    p = np.array([0.2, 0.9], "float32")
    values = {
        float(binary_cross_entropy(labels, p))
        for labels in ([0, 1], [False, True], np.array([0, 1], "uint8"), np.array([0.0, 1.0]))
    }
    assert len(values) == 1
    assert binary_cross_entropy(np.array([0.0, 1.0]), p).dtype == "float32"
    assert binary_cross_entropy([0, 1], p, sample_weight=[1, 0]) == binary_cross_entropy(
        [0, 1], p, sample_weight=np.array([1.0, 0.0])
    )


def test_rows_that_add_up_almost_to_one_are_divided_by_their_sum_as_in_keras():
    y, p = np.eye(2), np.array([[0.4004, 0.6], [0.3, 0.6995]])
    variable = tf.Variable(p)
    with tf.GradientTape() as tape:
        theirs = tf.reduce_mean(K.categorical_crossentropy(y, variable))
    np.testing.assert_allclose(categorical_cross_entropy(y, p), theirs, rtol=1e-12)
    np.testing.assert_allclose(
        categorical_cross_entropy_backward(y, p), tape.gradient(theirs, variable), rtol=1e-10
    )


P, ROWS = np.array([0.2, 0.9]), np.array([[0.2, 0.8], [0.5, 0.5]])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: mean_squared_error(P, P[:, None]),
            r"y_true: shape \(2,\), but expected y_pred's \(2, 1\)",
        ),
        (
            lambda: mean_squared_error(P, np.array([1, 2])),
            r"y_pred: shape \(2,\) of int64, but expected float32 or float64",
        ),
        (
            lambda: mean_squared_error(P * np.nan, P),
            r"y_true: shape \(2,\) with 2 values nan or infinite",
        ),
        (lambda: mean_squared_error([[1], [1, 2]], P), r"y_true: rows of different lengths"),
        (
            lambda: mean_squared_error(P, P, sample_weight=[1, 2, 3]),
            r"sample_weight: shape \(3,\), but expected \(batch = 2\)",
        ),
        (
            lambda: mean_squared_error(P, P, sample_weight=[1, -2]),
            r"sample_weight: shape \(2,\) with a value of -2, but expected none below 0",
        ),
        (
            lambda: mean_squared_error(1.0, np.float64(2), sample_weight=[1.0]),
            r"sample_weight: shape \(1,\), but expected \(batch = 0\)",
        ),
        (
            lambda: binary_cross_entropy([0, 1], P * 5),
            r"y_pred: .* values from 1 to 4\.5, but expected probabilities .*from_logits=True",
        ),
        (
            lambda: binary_cross_entropy([0, 2], P),
            r"y_true: .* values from 0 to 2, but expected probabilities from 0 to 1$",
        ),
        (
            lambda: binary_cross_entropy([[0], [1]], P),
            r"y_true: shape \(2, 1\), but expected y_pred's \(2,\)",
        ),
        (
            lambda: binary_cross_entropy_backward([0, 1], np.array([0, np.inf]), from_logits=True),
            r"y_pred: shape \(2,\) with 1 values nan or inf",
        ),
        (
            lambda: categorical_cross_entropy([0, 1], ROWS),
            r"y_true: shape \(2,\), but expected y_pred's \(2, 2\)",
        ),
        (
            lambda: categorical_cross_entropy([[0, 0], [0, 1]], ROWS),
            r"y_true: .* rows that add up to 0 to 1, but expected 1 .*sparse",
        ),
        (
            lambda: categorical_cross_entropy([[1, 1], [0, 1]], ROWS),
            r"y_true: .* rows that add up to 1 to 2, but expected 1",
        ),
        (
            lambda: categorical_cross_entropy(np.eye(2), ROWS / 2),
            r"y_pred: .* rows that add up to 0\.5 to 0\.5, but expected 1 .*from_logits=True",
        ),
        (
            lambda: categorical_cross_entropy(np.eye(2), ROWS * 4),
            r"y_pred: .* values from 0\.8 to 3\.2.*from_logits=True",
        ),
        (
            lambda: sparse_categorical_cross_entropy([0, 2], ROWS),
            r"y_true: shape \(2,\) with values from 0 to 2, but expected integers from 0 to 1",
        ),
        (
            lambda: sparse_categorical_cross_entropy([-1, 0], ROWS),
            r"y_true: shape \(2,\) with values from -1 to 0, but expected integers from 0 to 1",
        ),
        (
            lambda: sparse_categorical_cross_entropy([0.0, 1.0], ROWS),
            r"y_true: shape \(2,\) of float64, but expected integers from 0 to 1",
        ),
        (
            lambda: sparse_categorical_cross_entropy(np.eye(2, dtype=int), ROWS),
            r"y_true: shape \(2, 2\), but expected \(2,\), a class number for each",
        ),
        (
            lambda: sparse_categorical_cross_entropy_backward([0, 1], P),
            r"y_true: shape \(2,\), but expected \(\), a class number",
        ),
        (
            lambda: binary_focal_loss([0, 1], P, gamma=-1),
            r"gamma: -1, but expected a number of at least 0",
        ),
        (
            lambda: binary_focal_loss([0, 1], P, gamma="2"),
            r"gamma: '2', but expected a number of at least 0",
        ),
        (
            lambda: binary_focal_loss([0, 1], P, alpha=1.5),
            r"alpha: 1\.5, but expected a number from 0 to 1",
        ),
        (
            lambda: categorical_focal_loss(np.eye(2), ROWS, alpha=[1, 2, 3]),
            r"alpha: \[1\.0, 2\.0, 3\.0\], but expected .* or 2 of them",
        ),
        (
            lambda: categorical_focal_loss_backward(np.eye(2), ROWS, alpha=[-1, 2]),
            r"alpha: \[-1\.0, 2\.0\], but expected a number of at least 0",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ArrayError, match=message):
        call()


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(
    cases=st.integers(1, 6),
    places=st.integers(1, 5),
    classes=st.integers(2, 5),
    seed=seeds,
    logits=st.booleans(),
)
def test_weights_of_places_equal_keras(dtype, cases, places, classes, seed, logits):
    """A weight for each place (batch, place); Keras takes the mean over the last axis first."""
    weight = np.random.default_rng(seed).uniform(0, 3, (cases, places)).astype(dtype)
    for name, theirs in (
        ("mean_squared_error", K.MeanSquaredError),
        ("binary_cross_entropy", K.BinaryCrossentropy),
        ("categorical_cross_entropy", K.CategoricalCrossentropy),
        ("sparse_categorical_cross_entropy", K.SparseCategoricalCrossentropy),
        ("binary_focal_loss", K.BinaryFocalCrossentropy),
        ("categorical_focal_loss", K.CategoricalFocalCrossentropy),
    ):
        kwargs = {} if name == "mean_squared_error" else {"from_logits": logits}
        y_true, y_pred = problem(name, logits, (cases, places, classes), seed, dtype)
        variable = tf.Variable(y_pred)
        with tf.GradientTape() as tape:
            expected = theirs(dtype=dtype, **kwargs)(y_true, variable, sample_weight=weight)
        options = kwargs | ({"alpha": 0.25} if name.startswith("categorical_focal") else {})
        forward, backward = functions(name)
        ours = forward(y_true, y_pred, sample_weight=weight, **options)
        gradient = backward(y_true, y_pred, sample_weight=weight, **options)
        assert ours.dtype == gradient.dtype == dtype
        slack = 1e-3 if dtype == "float32" and "focal" in name else TOLERANCE[dtype]
        np.testing.assert_allclose(ours, expected, rtol=slack, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(
            gradient, tape.gradient(expected, variable), rtol=10 * slack, atol=slack
        )


@many
@given(cases=st.integers(1, 9), classes=st.integers(2, 5), seed=seeds, logits=st.booleans())
def test_class_weights_are_sample_weights_of_each_place_class(cases, classes, seed, logits):
    """What Keras's `fit(class_weight=...)` makes of them."""
    rng = np.random.default_rng(seed)
    labels, y_pred = problem(
        "sparse_categorical_cross_entropy", logits, (cases, classes), seed, "float64"
    )
    weights = rng.uniform(0, 3, classes)
    expected = K.SparseCategoricalCrossentropy(dtype="float64", from_logits=logits)(
        labels, y_pred, sample_weight=weights[labels]
    )
    some = dict(enumerate(weights[:2]))
    full = np.concatenate([weights[:2], np.ones(classes - 2)])
    for name, y_true in (
        ("sparse_categorical_cross_entropy", labels),
        ("categorical_cross_entropy", np.eye(classes)[labels]),
    ):
        forward, backward = functions(name)
        slack = (
            1e-5 if name.startswith("cat") and not logits else 1e-10
        )  # clipped before or after the division by the sum
        np.testing.assert_allclose(
            forward(y_true, y_pred, from_logits=logits, class_weight=weights), expected, rtol=slack
        )
        for options in ({"class_weight": weights}, {"class_weight": some}):
            gradient = numerical_gradient(
                lambda p, o=options, y=y_true, f=forward: f(y, p, from_logits=True, **o),
                np.log(y_pred + 12),
            )
            found = backward(y_true, np.log(y_pred + 12), from_logits=True, **options)
            np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-6)
        assert forward(y_true, y_pred, from_logits=logits, class_weight=some) == forward(
            y_true, y_pred, from_logits=logits, class_weight=full
        )
    y, p = problem("binary_cross_entropy", logits, (cases, 2), seed, "float64")
    expected = K.BinaryCrossentropy(dtype="float64", from_logits=logits)(
        y[..., None], p[..., None], sample_weight=weights[y.astype(int)]
    )
    np.testing.assert_allclose(
        binary_cross_entropy(y, p, from_logits=logits, class_weight=weights[:2]),
        expected,
        rtol=1e-9,
    )


def test_class_weights_of_rows_of_probabilities_equal_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    z, weights = rng.normal(size=(7, 4)), rng.uniform(0, 3, 4)
    y = rng.dirichlet(np.ones(4), 7)
    variable = torch.tensor(z, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        variable, torch.tensor(y), weight=torch.tensor(weights)
    )
    loss.backward()
    assert np.isclose(
        categorical_cross_entropy(y, z, from_logits=True, class_weight=weights),
        loss.item(),
        rtol=1e-12,
    )
    found = categorical_cross_entropy_backward(y, z, from_logits=True, class_weight=weights)
    np.testing.assert_allclose(found, variable.grad.numpy(), rtol=0, atol=1e-12)
    positive = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(z), torch.tensor(y), pos_weight=torch.tensor(3.0)
    )
    assert np.isclose(
        binary_cross_entropy(y, z, from_logits=True, class_weight=(1, 3)),
        positive.item(),
        rtol=1e-12,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(
    cases=st.integers(1, 6),
    places=st.integers(1, 5),
    classes=st.integers(2, 5),
    seed=seeds,
    logits=st.booleans(),
)
def test_ignored_labels_count_neither_in_the_sum_nor_in_the_number(
    dtype, cases, places, classes, seed, logits
):
    rng = np.random.default_rng(seed)
    labels, y_pred = problem(
        "sparse_categorical_cross_entropy", logits, (cases, places, classes), seed, dtype
    )
    unknown = rng.random(labels.shape) < 0.4
    weight = rng.uniform(0, 3, labels.shape).astype(dtype)
    holed = np.where(unknown, 255, labels)
    options = {"from_logits": logits, "ignore_index": 255, "sample_weight": weight}
    ours = sparse_categorical_cross_entropy(holed, y_pred, **options)
    gradient = sparse_categorical_cross_entropy_backward(holed, y_pred, **options)
    assert ours.dtype == gradient.dtype == dtype and not gradient[unknown].any()
    if unknown.all():
        assert ours == 0 and not gradient.any()
        return
    expected = sparse_categorical_cross_entropy(
        labels[~unknown], y_pred[~unknown], from_logits=logits, sample_weight=weight[~unknown]
    )
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE[dtype])
    keras_loss = K.SparseCategoricalCrossentropy(from_logits=logits, ignore_class=255, dtype=dtype)
    np.testing.assert_allclose(
        ours,
        keras_loss(holed, y_pred, sample_weight=weight),
        rtol=max(TOLERANCE[dtype], 1e-6),
        atol=1e-6,
    )


@fewer
@given(shape=leading, seed=seeds)
def test_ignored_findings_of_two_classes(shape, seed):
    rng = np.random.default_rng(seed)
    y, z = rng.integers(0, 2, shape), rng.normal(size=shape)
    unknown = rng.random(shape) < 0.4
    holed = np.where(unknown, -1, y)
    for name in ("binary_cross_entropy", "binary_focal_loss"):
        forward, backward = functions(name)
        expected = forward(y[~unknown], z[~unknown], from_logits=True) if not unknown.all() else 0
        assert np.isclose(
            forward(holed, z, from_logits=True, ignore_index=-1), expected, rtol=1e-12
        )
        gradient = numerical_gradient(
            lambda v, f=forward: f(holed, v, from_logits=True, ignore_index=-1), z
        )
        np.testing.assert_allclose(
            backward(holed, z, from_logits=True, ignore_index=-1), gradient, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name in KERAS if name != "mean_squared_error"])
def test_finite_logits_of_any_size_give_finite_losses(dtype, name):
    """Right cases cost 0, wrong ones what they are off; a mean that fits is no infinity."""
    top = {"float32": 3e38, "float64": 1.5e308}[dtype]
    z = np.array([[top, -top], [top, -top], [-top, top], [0, top]], dtype)
    forward, backward = functions(name)
    for right, loss in (
        ([0, 0, 1, 1], 0),
        ([0, 1, 1, 1], top / 2 / (2 if name.startswith("bin") else 1)),
    ):
        y = np.array(right) if name.startswith("sparse") else np.eye(2)[right]
        if name.startswith("binary"):
            y[3] = [0, 1]
            extra = np.log(2) / 8 * (0.25 if "focal" in name else 1)
        else:
            extra = 0
        with np.errstate(all="raise", under="ignore"):
            ours, gradient = forward(y, z, from_logits=True), backward(y, z, from_logits=True)
        assert ours.dtype == dtype and np.isfinite(gradient).all()
        np.testing.assert_allclose(ours, loss + extra, rtol=1e-6)
    assert abs(gradient[1]).max() > 0.1


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_squared_errors_whose_mean_fits(dtype):
    root = np.sqrt(np.finfo(dtype).max)
    p = np.zeros(100, dtype)
    p[0] = 2 * root
    with np.errstate(all="raise", under="ignore"):
        ours, gradient = (
            mean_squared_error(np.zeros(100), p),
            module.mean_squared_error_backward(np.zeros(100), p),
        )
        far = module.mean_squared_error_backward(
            np.array([-root * root / 2, 0]), np.array([root * root / 2, 0], dtype)
        )
    np.testing.assert_allclose(ours, 0.04 * root * root, rtol=1e-5)
    np.testing.assert_allclose(gradient[0], 0.04 * root, rtol=1e-5)
    assert np.isfinite(far).all() and ours.dtype == gradient.dtype == dtype


def test_other_libraries_arrays_are_labels_too():
    torch = pytest.importorskip("torch")
    for y in (torch.tensor([0, 1]), tf.constant([0, 1]), keras.ops.convert_to_tensor([0, 1])):
        assert sparse_categorical_cross_entropy(y, ROWS) == sparse_categorical_cross_entropy(
            [0, 1], ROWS
        )
        assert binary_cross_entropy(y, P) == binary_cross_entropy([0, 1], P)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: mean_squared_error(
                np.ones((2, 3)), np.ones((2, 3)), sample_weight=np.ones((3, 2))
            ),
            r"sample_weight: shape \(3, 2\), but expected \(batch = 2\), .* or \(2, 3\), one",
        ),
        (lambda: mean_squared_error(P, P, sample_weight=["a", "b"]), "sample_weight: "),
        (lambda: mean_squared_error(np.ma.array(P), P), "y_true: a masked array"),
        (lambda: binary_cross_entropy(["a", "b"], P), "y_true: "),
        (lambda: binary_cross_entropy([None, 1], P), "y_true: "),
        (
            lambda: binary_cross_entropy([0, 1], P, class_weight=[1, 2, 3]),
            r"class_weight: shape \(3,\), but expected \(classes = 2\)",
        ),
        (
            lambda: binary_cross_entropy([0, 1], P, class_weight={2: 1}),
            r"class_weight: \[2\], but expected classes 0 to 1",
        ),
        (
            lambda: binary_cross_entropy([0, 1], P, class_weight=[1, -1]),
            "class_weight: .*-1, but expected none below 0",
        ),
        (lambda: binary_cross_entropy([0, 1], P, class_weight="balanced"), "class_weight: "),
        (
            lambda: binary_cross_entropy([0, -1], P, ignore_index=0.5),
            "ignore_index: 0.5, but expected a whole number or None",
        ),
        (lambda: sparse_categorical_cross_entropy([0, -1], ROWS), "y_true: .*integers from 0 to 1"),
        (
            lambda: sparse_categorical_cross_entropy([0, -2], ROWS, ignore_index=-1),
            "y_true: .*integers from 0 to 1",
        ),
        (
            lambda: sparse_categorical_cross_entropy([[0], [0, 1]], ROWS),
            "y_true: rows of different lengths",
        ),
        (
            lambda: categorical_cross_entropy(np.eye(2), ROWS, class_weight={"a": 1}),
            r"class_weight: \['a'\], but expected classes 0 to 1",
        ),
        *[
            (
                lambda alpha=alpha, f=f, y=y, p=p: f(y, p, alpha=alpha),
                "alpha: .*but expected a number",
            )
            for f, y, p in (
                (binary_focal_loss, [0, 1], P),
                (categorical_focal_loss, np.eye(2), ROWS),
            )
            for alpha in (
                "0.5",
                [[1], [1, 2]],
                {"a": 1},
                object(),
                True,
                np.nan,
                1j,
                [None, 1],
                np.array(["a"]),
            )
        ],
        *[
            (
                lambda gamma=gamma: binary_focal_loss([0, 1], P, gamma=gamma),
                "gamma: .*but expected a number of at least 0",
            )
            for gamma in (None, [2], np.nan, np.inf, 1j, True, {})
        ],
    ],
)
def test_odd_arguments_are_named(call, message):
    with pytest.raises(ArrayError, match=f"^{message}"):
        call()
