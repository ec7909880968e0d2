"""Networks in NumPy: right gradients, Keras's predictions, and errors that say what is wrong."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from medbook.foundations.arrays import ArrayError
from medbook.foundations.backprop import (
    GELU,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool2D,
    Network,
    ReLU,
    digits_double,
    generator,
    get_weights,
    gradient_check,
    set_weights,
)
from medbook.foundations.dense import (
    log_softmax,
    log_softmax_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
)
from medbook.foundations.dense import tanh, tanh_backward
from medbook.foundations.optimizers import SGD, Adam, Momentum, train
from medbook.foundations.pooling import avg_pool2d, avg_pool2d_backward
from medbook.training.cnn import build_cnn


def images(count, shape, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    patterns = rng.normal(size=(classes, *shape))
    return (patterns[labels] + rng.normal(size=(count, *shape))).astype("float32"), labels


def test_predictions_are_those_of_keras_with_its_weights():
    x, _ = images(40, (15, 11, 3), 4)
    model = build_cnn((15, 11, 3), 4, filters=(5,), dense=(7,))
    network = Network(
        [Conv2D(5), ReLU(), MaxPool2D(), Flatten(), Dense(7), ReLU(), Dense(4)], (15, 11, 3)
    )
    set_weights(network, model.get_weights())
    assert network.predict(x, batch_size=17) == pytest.approx(model.predict(x, verbose=0), abs=1e-5)


@pytest.mark.parametrize(
    "loss, outputs, y",
    [
        ("softmax", 3, np.array([2, 0, 1])),
        ("sigmoid", 1, np.array([1, 0, 1])),
        ("squared", 2, np.array([[0.5, 1], [0, -1], [2, 0.1]])),
    ],
)
def test_gradients_of_every_layer_and_loss(loss, outputs, y):
    x, _ = images(3, (9, 8, 2), 2)
    average = Layer(avg_pool2d, avg_pool2d_backward, size=3, stride=2, padding="same")
    layers = [
        Conv2D(3, 2, padding="same"),
        Layer(tanh, tanh_backward),
        average,
        Conv2D(4, 2, stride=2),
        Layer(sigmoid, sigmoid_backward),
        MaxPool2D(),
        Flatten(),
        Dense(5),
        ReLU(),
        Dense(outputs),
    ]
    errors = gradient_check(Network(layers, (9, 8, 2), loss=loss), x, y)
    assert len(errors) == 9 and max(errors.values()) < 1e-6


def test_the_check_looks_at_the_input_too():
    x, y = images(3, (9, 9, 1), 2)
    network = Network([MaxPool2D(), Conv2D(2), Flatten(), Dense(2)], (9, 9, 1))
    assert gradient_check(network, x, y)["x"] < 1e-6
    network.layers[0].function_backward = lambda grad, x, **options: np.zeros_like(x)
    assert gradient_check(network, x, y)["x"] > 0.1


def test_the_check_finds_a_wrong_gradient_and_leaves_the_network_alone():
    x, y = images(4, (6,), 2)
    network = Network([Dense(5), ReLU(), Dense(2)], (6,))
    before = get_weights(network)
    right = network.layers[2].function_backward
    network.layers[2].function_backward = lambda grad, *args: (
        right(grad, *args)[0],
        1.01 * right(grad, *args)[1],
        right(grad, *args)[2],
    )
    errors = gradient_check(network, x, y)
    assert errors["2 Dense kernel"] > 1e-3 and errors["0 Dense kernel"] < 1e-6
    assert all(
        (a == b).all() and b.dtype == np.float32
        for a, b in zip(before, get_weights(network), strict=True)
    )


def test_float32_stays_float32():
    x, y = images(8, (28, 28, 1), 10)
    network = digits_double()
    train(network, x, y, report=None)
    assert {value.dtype.name for value in get_weights(network)} == {"float32"} and network.predict(
        x
    ).dtype == np.float32


def test_what_does_not_fit_is_named():
    x, y = images(6, (4,), 2)
    network = Network([Dense(3), ReLU(), Dense(2)], (4,))
    with pytest.raises(ArrayError, match=r"^layer 3 \(Conv2D\): kernel: .*"):
        Network([Conv2D(4), ReLU(), MaxPool2D(), Conv2D(4)], (6, 6, 1))
    with pytest.raises(ArrayError, match=r"^layer 0 \(Conv2D\): x: shape"):
        Network([Conv2D(4)], (28, 28))
    with pytest.raises(ArrayError, match=r"^x: shape \(6, 3\), but expected \(batch, 4\)"):
        network.forward(x[:, :3])
    with pytest.raises(ArrayError, match="^x: .*float32 or float64"):
        network.forward(x.astype(int))
    with pytest.raises(ArrayError, match=r"^y: shape \(5,\), but expected 6 labels"):
        train(network, x, y[:5])
    with pytest.raises(ArrayError, match="^loss: 'hinge', but expected one of 'softmax'"):
        Network([Dense(2)], (4,), loss="hinge")
    with pytest.raises(ArrayError, match=r"^x: .*nan"):
        train(network, np.full_like(x, np.nan), y)
    with pytest.raises(ArrayError, match="call forward first"):
        Dense(2).backward(x)
    with pytest.raises(ArrayError, match="^weights: 3 arrays, but expected 4"):
        set_weights(network, get_weights(network)[:3])
    with pytest.raises(ArrayError, match=r"^weights: kernel of shape \(3, 4\)"):
        set_weights(network, [value.T for value in get_weights(network)])
    with pytest.raises(ArrayError, match="^y: .*integers from 0 to 1"):
        network.learn(x, y + 5)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: Network([Dense(2)] * 2, (4,)), "layers"),
        (lambda: Network(["relu"], (4,)), "layers"),
        (lambda: Network([Dense], (4,)), "layers"),
        (lambda: Network(None, (4,)), "layers"),
        (lambda: Network([Dense(2)], 4), "input_shape"),
        (lambda: Network([Dense(2)], ()), "input_shape"),
        (lambda: Network([Dense(2)], (None, 5)), "input_shape"),
        (lambda: Network([Dense(2)], (4,), dtype="int8"), "dtype"),
        (lambda: Network([Dense(2)], (4,), seed="a"), "seed"),
        (lambda: Network([Dense(2)], (4,), seed=-1), "seed"),
        (
            lambda: gradient_check(Network([Dense(2)], (4,)), np.ones((2, 4)), [0, 1], seed=1.5),
            "seed",
        ),
        (lambda: Network([Dense(2)], (4,)).learn(np.ones((2, 4)), ["a", "b"]), "y"),
        (lambda: Network([Dense(2)], (4,)).learn(np.ones((2, 4)), [None, 1]), "y"),
        (lambda: Network([Dense(2)], (4,)).learn(np.ones((2, 4)), [[0], [0, 1]]), "y"),
        (lambda: Network([Dense(2)], (4,)).learn(np.ones((2, 4)), np.ma.array([0, 1])), "y"),
        (
            lambda: set_weights(Network([Dense(2)], (4,)), [np.full((4, 2), "a"), np.zeros(2)]),
            "weights: kernel",
        ),
        (lambda: SGD(-1), "rate"),
        (lambda: SGD("x"), "rate"),
        (lambda: Momentum(0.1, 1.5), "momentum"),
        (lambda: Adam(beta_1=1.0), "beta_1"),
        (lambda: set_weights(Network([Dense(2)], (4,)), None), "weights"),
        (lambda: Network([Dense(2)], (4,)).backward(np.ones((1, 2), "float32")), "grad"),
        (lambda: Network([Dense(2)], (4,)).predict(np.ones((0, 4), "float32")), "x"),
    ],
)
def test_what_cannot_be_is_refused(make, word):
    with pytest.raises(ArrayError, match=f"^{word}.*expected|call forward first"):
        make()


def test_a_softmax_of_one_unit_is_refused():
    with pytest.raises(ArrayError, match="^loss: 'softmax' over one output.*loss='sigmoid'"):
        Network([Dense(1)], (4,))
    for function, backward in ((softmax, softmax_backward), (log_softmax, log_softmax_backward)):
        with pytest.raises(ArrayError, match="^layer 1 .*a softmax of one unit"):
            Network([Dense(1), Layer(function, backward)], (4,), loss="squared")
        Network([Dense(2), Layer(function, backward)], (4,), loss="squared")


def test_an_error_while_running_says_which_layer():
    x, y = images(6, (4,), 2)
    network = Network([Dense(3), ReLU(), Dense(2)], (4,))
    network.layers[2].parameters["kernel"][0, 0] = np.nan
    with pytest.raises(ArrayError, match=r"^layer 2 \(Dense\): kernel: .*nan"):
        network.forward(x)

    def broken(x):
        raise KeyError("weights")

    network = Network([Dense(3), ReLU(), Dense(2)], (4,))
    network.layers[1].function = broken
    with pytest.raises(ArrayError, match=r"^layer 1 \(broken\): KeyError: 'weights'") as caught:
        network.forward(x)
    assert isinstance(caught.value.__cause__, KeyError)
    network = Network([Dense(3), ReLU(), Dense(2)], (4,))
    network.layers[0].function_backward = lambda grad, x, kernel, bias: (grad, kernel)
    with pytest.raises(
        ArrayError, match=r"^layer 0 \(Dense\): backward: gave 2 gradients, but expected 3"
    ):
        network.learn(x, y)


def test_labels_that_are_not_numbers_are_told():
    x, _ = images(6, (4,), 2)
    network = Network([Dense(1)], (4,), loss="squared")
    with pytest.raises(
        ArrayError, match=r"^y: shape \(6,\) with 1 labels nan or infinite, the first at row 2"
    ):
        network.learn(x, np.array([0, 1, np.nan, 1, 0, 1]))


class Scaled(Layer):
    """A gain, noise in training, and a count of the batches seen."""

    def __init__(self):
        super().__init__(None, None)

    def build(self, shape, rng, dtype="float32"):
        self.rng = np.random.default_rng(0)
        self.parameters = {"gain": np.ones(shape[-1], dtype)}
        self.state = {"seen": np.zeros((), dtype)}
        return shape

    def forward(self, x):
        self.x = x
        self.noise = self.rng.normal(size=x.shape).astype(x.dtype) if self.training else 0
        if self.training:
            self.state["seen"] = self.state["seen"] + 1
        return x * self.parameters["gain"] + self.noise

    def backward(self, grad):
        self.gradients = {"gain": (grad * self.x).sum(axis=0)}
        return grad * self.parameters["gain"]


def test_a_layer_with_parameters_running_state_and_chance_fits_in():
    x, y = images(8, (4,), 2)
    network = Network([Dense(3), Scaled(), GELU(), Dense(2)], (4,))
    assert (
        max(gradient_check(network, x, y).values()) < 1e-6 and network.layers[1].state["seen"] == 0
    )
    assert [value.shape for value in get_weights(network)] == [(4, 3), (3,), (3,), (), (3, 2), (2,)]
    still = network.predict(x)
    train(network, x, y, batch_size=4, report=None)
    assert network.layers[1].state["seen"] == 2 and (network.predict(x) == network.predict(x)).all()
    assert (network.predict(x) != still).any()
    twin = Network([Dense(3), Scaled(), GELU(), Dense(2)], (4,), seed=9)
    set_weights(twin, get_weights(network))
    assert (twin.predict(x) == network.predict(x)).all()


def test_leaky_relu_and_gelu_as_layers_equal_keras():
    x, y = images(12, (6,), 2)
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(5),
            keras.layers.LeakyReLU(),
            keras.layers.Dense(4),
            keras.layers.Activation("gelu"),
            keras.layers.Dense(2),
        ]
    )
    network = Network([Dense(5), LeakyReLU(), Dense(4), GELU(), Dense(2)], (6,))
    set_weights(network, model.get_weights())
    assert network.forward(x) == pytest.approx(model(x).numpy(), abs=1e-5)
    assert max(gradient_check(network, x, y).values()) < 1e-6
    assert (
        max(
            gradient_check(
                Network([Dense(5), GELU(approximate=True), Dense(2)], (6,)), x, y
            ).values()
        )
        < 1e-6
    )


def test_a_seed_is_a_whole_number_or_a_generator():
    rng = np.random.default_rng(3)
    assert generator(rng) is rng and generator(3).random() == np.random.default_rng(3).random()
    assert isinstance(generator(None), np.random.Generator)
    for seed in ("1", 1.0, -1, True, [1]):
        with pytest.raises(ArrayError, match="^seed: .*expected a whole number"):
            generator(seed)
