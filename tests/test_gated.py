"""The scans of all recurrent networks, simple, LSTM and GRU: Keras, differences, masks, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.evaluation.ranking import auc
from medbook.foundations import gated, recurrent
from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.backprop import Dense, Network, gradient_check, set_weights

settings.register_profile("recurrent", max_examples=25, deadline=None, derandomize=True)
few = settings(settings.get_profile("recurrent"))
fewest = settings(settings.get_profile("recurrent"), max_examples=12)

KINDS = {  # name: layer, scan, backward, keywords, number of blocks
    "rnn": (keras.layers.SimpleRNN, recurrent.rnn, recurrent.rnn_backward, {}, 1),
    "lstm": (keras.layers.LSTM, gated.lstm, gated.lstm_backward, {}, 4),
    "gru after": (keras.layers.GRU, gated.gru, gated.gru_backward, {"reset_after": True}, 3),
    "gru before": (keras.layers.GRU, gated.gru, gated.gru_backward, {"reset_after": False}, 3),
}


@st.composite
def cases(draw):
    """A shape (batch, time, inputs, units), bias or not, state or not, kind of mask, a seed."""
    shape = draw(
        st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))
    )
    mask = st.sampled_from([None, "right", "left", "any", "none"])
    return shape, draw(st.booleans()), draw(st.booleans()), draw(mask), draw(st.integers(0, 999))


def mask_of(kind, batch, time, rng):
    lengths = rng.integers(0, time + 1, batch)
    right = np.arange(time) < lengths[:, np.newaxis]
    return {
        None: None,
        "right": right,
        "left": right[:, ::-1],
        "any": rng.random((batch, time)) < 0.5,
        "none": np.zeros((batch, time), bool),
    }[kind]


def material(kind, case, dtype="float64"):
    """Arguments of a scan: x, weights, and keywords with state and mask."""
    (batch, time, inputs, units), biased, started, mask, seed = case
    _, _, _, keywords, blocks = KINDS[kind]
    rng = np.random.default_rng(seed)

    def random(*shape):
        return rng.normal(scale=0.7, size=shape).astype(dtype)

    bias = random(2, 3 * units) if keywords.get("reset_after") else random(blocks * units)
    state = (random(batch, units), random(batch, units)) if kind == "lstm" else random(batch, units)
    weights = [
        random(inputs, blocks * units),
        random(units, blocks * units),
        bias if biased else None,
    ]
    mask = mask_of(mask, batch, time, rng)
    return (
        random(batch, time, inputs),
        weights,
        {"state": state if started else None, "mask": mask, **keywords},
    )


def keras_layer(kind, x, weights, dtype):
    make, _, _, keywords, _ = KINDS[kind]
    layer = make(
        weights[1].shape[0],
        return_sequences=True,
        return_state=True,
        use_bias=weights[2] is not None,
        dtype=dtype,
        **keywords,
    )
    layer.build(x.shape)
    layer.set_weights([weight for weight in weights if weight is not None])
    return layer


def from_keras(kind, x, weights, options, dtype):
    layer = keras_layer(kind, x, weights, dtype)
    state = options["state"]
    outputs, *states = layer(
        x, mask=options["mask"], initial_state=None if state is None else list(states_of(state))
    )
    return layer, np.asarray(outputs), [np.asarray(state) for state in states]


def states_of(state):
    return state if isinstance(state, tuple) else (state,)


def largest(ours, theirs):
    return max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(case=cases())
def test_outputs_and_states_equal_keras_in_float64(kind, case):
    x, weights, options = material(kind, case)
    layer, outputs, states = from_keras(kind, x, weights, options, "float64")
    ours, state = KINDS[kind][1](x, *layer.get_weights(), **options)
    assert ours.shape == outputs.shape and ours.dtype == np.float64
    assert largest((ours, *states_of(state)), (outputs, *states)) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@fewest
@given(case=cases())
def test_outputs_and_states_equal_keras_in_float32(kind, case):
    x, weights, options = material(kind, case, "float32")
    layer, outputs, states = from_keras(kind, x, weights, options, "float32")
    ours, state = KINDS[kind][1](x, *layer.get_weights(), **options)
    assert ours.dtype == np.float32 and all(part.dtype == np.float32 for part in states_of(state))
    assert largest((ours, *states_of(state)), (outputs, *states)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_benchmark_equals_keras_in_float32(kind):
    x = np.random.default_rng(0).normal(size=(32, 250, 12)).astype("float32")
    layer = KINDS[kind][0](64, return_sequences=True, return_state=True, **KINDS[kind][3])
    outputs, *states = (np.asarray(part) for part in layer(x))
    ours, state = KINDS[kind][1](x, *layer.get_weights(), **KINDS[kind][3])
    assert largest((ours, *states_of(state)), (outputs, *states)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@few
@given(case=cases())
def test_steps_one_by_one_give_the_scan(kind, case):
    x, weights, options = material(kind, case)
    step = {"rnn": recurrent.rnn_step, "lstm": gated.lstm_step}.get(kind, gated.gru_step)
    keywords = KINDS[kind][3]
    zeros = np.zeros((len(x), len(weights[1])))
    state = (
        options["state"]
        if options["state"] is not None
        else ((zeros, zeros) if kind == "lstm" else zeros)
    )
    mask = np.ones(x.shape[:2], bool) if options["mask"] is None else options["mask"]
    outputs, output = [], zeros
    for t in range(x.shape[1]):
        new = step(x[:, t], state, *weights, **keywords)
        kept = [
            np.where(mask[:, t, None], a, b)
            for a, b in zip(states_of(new), states_of(state), strict=True)
        ]
        state = tuple(kept) if kind == "lstm" else kept[0]
        output = np.where(mask[:, t, None], kept[0], output)
        outputs.append(output)
    ours, last = KINDS[kind][1](x, *weights, **options)
    assert largest((ours, *states_of(last)), (np.stack(outputs, axis=1), *states_of(state))) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@fewest
@given(case=cases())
def test_gradients_equal_finite_differences(kind, case):
    x, weights, options = material(kind, case)
    scan, backward = KINDS[kind][1:3]
    rng = np.random.default_rng(1)
    outputs, last = scan(x, *weights, **options)
    grad, grad_state = (
        rng.normal(size=outputs.shape),
        [rng.normal(size=part.shape) for part in states_of(last)],
    )
    found = backward(
        grad,
        x,
        *weights,
        **options,
        grad_state=tuple(grad_state) if kind == "lstm" else grad_state[0],
    )
    arguments = [
        x,
        *weights,
        *(states_of(options["state"]) if options["state"] is not None else ()),
    ]

    def loss(place, value):
        changed = [*arguments[:place], value, *arguments[place + 1 :]]
        state = None
        if len(changed) > 4:
            state = tuple(changed[4:]) if kind == "lstm" else changed[4]
        outputs, last = scan(*changed[:4], **options | {"state": state})
        return np.sum(grad * outputs) + sum(
            np.sum(a * b) for a, b in zip(grad_state, states_of(last), strict=True)
        )

    assert len(found) == (4 if options["state"] is None else 5)
    gradients = [*found[:4], *(states_of(found[4]) if len(found) == 5 else ())]
    for place, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        if argument is None:
            assert gradient is None
        else:
            assert (
                np.abs(
                    gradient
                    - numerical_gradient(lambda value, place=place: loss(place, value), argument)
                ).max()
                < 1e-6
            )


@pytest.mark.parametrize("kind", KINDS)
@fewest
@given(case=cases(), dtype=st.sampled_from(["float64", "float32"]))
def test_gradients_equal_automatic_differentiation(kind, case, dtype):
    x, weights, options = material(kind, case, dtype)
    layer = keras_layer(kind, x, weights, dtype)
    variable, state = tf.Variable(x), options["state"]
    start = None if state is None else [tf.Variable(part) for part in states_of(state)]
    with tf.GradientTape() as tape:
        outputs, *last = layer(variable, mask=options["mask"], initial_state=start)
        grad = np.random.default_rng(2).normal(size=outputs.shape).astype(dtype)
        value = tf.reduce_sum(outputs * grad) + sum(tf.reduce_sum(part) for part in last)
    wanted = tape.gradient(
        value,
        [variable, *(w.value for w in layer.trainable_weights), *(start or [])],
        unconnected_gradients="zero",
    )
    ones = tuple(np.ones(part.shape, dtype) for part in last)
    found = KINDS[kind][2](
        grad, x, *weights, **options, grad_state=ones if kind == "lstm" else ones[0]
    )
    ours = [part for part in found[:4] if part is not None] + [
        *(states_of(found[4]) if len(found) == 5 else ())
    ]
    assert all(part.dtype == dtype for part in ours)
    bound = 1e-10 if dtype == "float64" else 1e-5
    assert all(
        np.abs(a - np.asarray(b)).max() <= bound * max(1, np.abs(b).max())
        for a, b in zip(ours, wanted, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_stay_as_they_are(kind):
    x, weights, options = material(kind, ((3, 5, 2, 4), True, True, "any", 7))
    before = [array.copy() for array in (x, *weights, *states_of(options["state"]))]
    outputs, last = KINDS[kind][1](x, *weights, **options)
    grad = np.ones_like(outputs)
    KINDS[kind][2](grad, x, *weights, **options, grad_state=last)
    assert (
        all(
            (a == b).all()
            for a, b in zip(before, (x, *weights, *states_of(options["state"])), strict=True)
        )
        and (grad == 1).all()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_makes_no_difference(kind):
    x, weights, options = material(kind, ((4, 6, 2, 3), True, True, None, 3))
    mask = np.arange(6) < np.array([[6], [4], [1], [0]])
    outputs, last = KINDS[kind][1](x, *weights, **options | {"mask": mask})
    garbage = np.where(mask[..., None], x, 1e3)
    outputs_too, last_too = KINDS[kind][1](garbage, *weights, **options | {"mask": mask})
    assert largest((outputs, *states_of(last)), (outputs_too, *states_of(last_too))) == 0
    short, last_short = KINDS[kind][1](
        x[1:2, :4], *weights, **options | {"state": first_of(options["state"], 1)}
    )
    assert (
        largest(
            (outputs[1:2, :4], *(part[1:2] for part in states_of(last))),
            (short, *states_of(last_short)),
        )
        < 1e-12
    )
    assert (outputs[3] == 0).all() and all(
        (a[3] == b[3]).all()
        for a, b in zip(states_of(last), states_of(options["state"]), strict=True)
    )
    dx = KINDS[kind][2](np.ones_like(outputs), x, *weights, **options | {"mask": mask})[0]
    assert (dx[~mask] == 0).all() and (dx[mask] != 0).all()


def first_of(state, place):
    return (
        tuple(part[place : place + 1] for part in state)
        if isinstance(state, tuple)
        else state[place : place + 1]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_two_pieces_is_the_sequence(kind):
    x, weights, options = material(kind, ((2, 9, 3, 4), True, True, None, 5))
    whole, last = KINDS[kind][1](x, *weights, **options)
    first, state = KINDS[kind][1](x[:, :4], *weights, **options)
    second, end = KINDS[kind][1](x[:, 4:], *weights, **options | {"state": state})
    assert (
        largest(
            (whole, *states_of(last)), (np.concatenate([first, second], axis=1), *states_of(end))
        )
        < 1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_saturated_gates_stay_finite(kind):
    x, weights, options = material(kind, ((2, 5, 2, 3), True, False, None, 5), "float32")
    with np.errstate(all="raise", under="ignore"):
        outputs, _ = KINDS[kind][1](1000 * x, *weights, **options)
        gradients = KINDS[kind][2](np.ones_like(outputs), 1000 * x, *weights, **options)
    assert np.isfinite(outputs).all() and all(np.isfinite(gradient).all() for gradient in gradients)


X, W, R = np.zeros((3, 5, 2)), np.zeros((2, 16)), np.zeros((4, 16))
FAULTS = {
    "x: shape (3, 5), but expected (batch, time, inputs)": lambda: gated.lstm(X[..., 0], W, R),
    "x: shape (3, 0, 2) holds no number": lambda: gated.lstm(X[:, :0], W, R),
    "x: shape (3, 5, 2) of int64, but expected float32 or float64": lambda: gated.lstm(
        X.astype(int), W, R
    ),
    "x: shape (3, 5, 2) with 30 values nan or infinite": lambda: gated.lstm(X * np.nan, W, R),
    "kernel: shape (16, 2), but expected (inputs = 2, 4·units = 16)": lambda: gated.lstm(X, W.T, R),
    "recurrent_kernel: shape (4, 12), but expected (units, 4·units = 16)": lambda: gated.lstm(
        X, W, R[:, :12]
    ),
    "recurrent_kernel: shape (4, 16), but expected (units, 3·units = 12)": lambda: gated.gru(
        X, W, R
    ),
    "recurrent_kernel: shape (4, 16), but expected (units = 4, units = 4)": lambda: recurrent.rnn(
        X, W, R
    ),
    "bias: shape (4,), but expected (4·units = 16)": lambda: gated.lstm(X, W, R, np.zeros(4)),
    "bias: shape (12,), but expected (rows = 2, 3·units = 12)": lambda: gated.gru(
        X, W[:, :12], R[:, :12], np.zeros(12)
    ),
    "bias: shape (2, 12), but expected (3·units = 12)": lambda: gated.gru(
        X, W[:, :12], R[:, :12], np.zeros((2, 12)), reset_after=False
    ),
    "mask: shape (5, 3), but expected (batch = 3, time = 5)": lambda: gated.lstm(
        X, W, R, mask=np.ones((5, 3), bool)
    ),
    "mask: shape (3, 5) of int64, but expected booleans": lambda: gated.lstm(
        X, W, R, mask=np.ones((3, 5), int)
    ),
    "state: ndarray, but expected two arrays, (h, c), each (batch = 3, units = 4)": lambda: (
        gated.lstm(X, W, R, state=np.zeros((3, 4)))
    ),
    "state[1]: shape (1, 4), but expected (batch = 3, units = 4)": lambda: gated.lstm(
        X, W, R, state=(np.zeros((3, 4)), np.zeros((1, 4)))
    ),
    "state: shape (1, 4), but expected (batch = 3, units = 4)": lambda: recurrent.rnn(
        X, W[:, :4], R[:, :4], state=np.zeros((1, 4))
    ),
    "grad: shape (3, 4), but expected (batch = 3, time = 5, units = 4)": lambda: (
        gated.lstm_backward(np.zeros((3, 4)), X, W, R)
    ),
    "grad_state: shape (3, 5), but expected (batch = 3, units = 4)": lambda: recurrent.rnn_backward(
        np.zeros((3, 5, 4)), X, W[:, :4], R[:, :4], grad_state=np.zeros((3, 5))
    ),
    "x: shape (3, 5, 2), but expected (batch, inputs)": lambda: gated.lstm_step(X, (X, X), W, R),
    "state: shape (5, 4), but expected (batch = 3, units = 4)": lambda: recurrent.rnn_step(
        X[:, 0], np.zeros((5, 4)), W[:, :4], R[:, :4]
    ),
    "kernel: shape (2, 16), but expected (inputs = 2, 3·units = 12)": lambda: gated.gru_step(
        X[:, 0], np.zeros((3, 4)), W, R[:, :12]
    ),
}


@pytest.mark.parametrize("words", FAULTS)
def test_errors_name_the_argument_its_shape_and_what_was_expected(words):
    with pytest.raises(ArrayError) as caught:
        FAULTS[words]()
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("sequences", [False, True])
def test_the_layer_equals_keras_in_outputs_and_gradients(sequences):
    model = keras.Sequential(
        [
            keras.layers.Input((7, 3)),
            keras.layers.LSTM(5, return_sequences=sequences),
            keras.layers.Dense(1),
        ]
    )
    network = Network([gated.LSTM(5, sequences=sequences), Dense(1)], (7, 3), loss="sigmoid")
    set_weights(network, model.get_weights())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 7, 3)).astype("float32")
    y = rng.integers(0, 2, (4, 7, 1) if sequences else (4, 1)).astype("float32")
    assert largest([network.forward(x)], [np.asarray(model(x))]) < 1e-5
    assert network.shapes[1] == ((7, 5) if sequences else (5,)) and network.layers[0].name == "LSTM"
    assert max(gradient_check(network, x, y).values()) < 1e-6
    with pytest.raises(
        ArrayError,
        match=r"layer 0 \(LSTM\): x: shape \(batch, 3\), but expected \(batch, time, inputs\)",
    ):
        Network([gated.LSTM(5)], (3,))


@pytest.fixture(scope="module")
def record(shared):
    """MIT-BIH record 100: two leads in mV at 360 Hz, and the samples of its beats."""
    wfdb = pytest.importorskip("wfdb")
    path = str(shared / "ecg" / "mitbih" / "100")
    beats = wfdb.rdann(path, "atr")
    return wfdb.rdrecord(path).p_signal.astype("float32"), beats.sample[
        np.array(beats.symbol) != "+"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_ecg_equals_keras(kind, record):
    x = record[0][: 8 * 720].reshape(8, 720, 2)  # eight pieces of two seconds
    layer = KINDS[kind][0](16, return_sequences=True, return_state=True, **KINDS[kind][3])
    outputs, *states = (np.asarray(part) for part in layer(x))
    ours, state = KINDS[kind][1](x, *layer.get_weights(), **KINDS[kind][3])
    assert largest((ours, *states_of(state)), (outputs, *states)) < 1e-5


def windows(record, first, last, steps):
    """Minutes `first` to `last` at 90 Hz in windows; is each step within 1/18 s of a beat."""
    signal, beats = record
    near = np.zeros(len(signal), bool)
    for beat in beats:
        near[max(beat - 20, 0) : beat + 21] = True
    part = slice(first * 60 * 360, last * 60 * 360)
    x = signal[part].reshape(-1, 4, 2).mean(axis=1)
    y = near[part].reshape(-1, 4).any(axis=1)
    start = signal[: 3 * 60 * 360]
    return ((x - start.mean(axis=0)) / start.std(axis=0)).reshape(-1, steps, 2), y.reshape(
        -1, steps
    )


def test_a_network_in_numpy_learns_the_beats_of_earlier_minutes(record):
    x, y = windows(record, 0, 3, steps=90)
    rng = np.random.default_rng(0)
    units = 8
    shapes = (2, 3 * units), (units, 3 * units), (2, 3 * units), (units, 1), (1,)
    weights = [rng.normal(scale=0.4, size=shape).astype("float32") for shape in shapes]
    moments = [(np.zeros_like(weight), np.zeros_like(weight)) for weight in weights]

    def logits(x):
        h, _ = gated.gru(x, *weights[:3])
        return h, (h @ weights[3] + weights[4])[..., 0]

    before = auc(y.ravel(), logits(x)[1].ravel())
    for step in range(1, 121):
        some = rng.choice(len(x), 32, replace=False)
        h, z = logits(x[some])
        gradient = ((1 / (1 + np.exp(-z)) - y[some]) / z.size)[..., np.newaxis]
        of_gru = gated.gru_backward(gradient @ weights[3].T, x[some], *weights[:3])[1:]
        gradients = [*of_gru, np.tensordot(h, gradient, 2 * ((0, 1),)), gradient.sum((0, 1))]
        for weight, (first, second), found in zip(weights, moments, gradients, strict=True):
            first += 0.1 * (found - first)
            second += 0.001 * (found**2 - second)
            weight -= 0.02 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)
    x, y = windows(record, 10, 14, steps=60 * 90)
    found = auc(y.ravel(), logits(x)[1].ravel())
    assert found > 0.97 and found > before + 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_numbers_of_any_size_never_become_nan(kind, dtype):
    """Two inputs that cancel are infinite one by one."""
    top = 0.9 * np.finfo(dtype).max
    x, weights, options = material(kind, ((2, 4, 2, 3), True, True, None, 5), dtype)
    x = np.tile(np.array([top, top], dtype), (2, 4, 1))
    weights[0][0] = abs(weights[0][0]) + 3
    weights[0][1] = -weights[0][0]
    with np.errstate(all="raise", under="ignore"):
        outputs, last = KINDS[kind][1](x, *weights, **options)
    assert (
        outputs.dtype == dtype
        and np.isfinite(outputs).all()
        and all(np.isfinite(part).all() for part in states_of(last))
    )
    found = KINDS[kind][2](np.ones_like(outputs), 1e-3 * x, *weights, **options)
    assert not any(np.isnan(part).any() for part in found[1:4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_huge_recurrent_kernel_gives_no_nan(kind):
    x, weights, options = material(kind, ((2, 4, 2, 3), True, True, None, 5), "float32")
    weights[1] = np.sign(weights[1]) * np.float32(3e38)
    with np.errstate(all="raise", under="ignore"):
        outputs, _ = KINDS[kind][1](x, *weights, **options)
        found = KINDS[kind][2](np.ones_like(outputs), x, *weights, **options)
    assert np.isfinite(outputs).all() and not any(np.isnan(part).any() for part in found[:4])
