"""Recurrent networks: an LSTM scan against Keras's layer called eagerly,
and how time grows with steps and with sequences."""

import time

import keras
import numpy as np

from medbook.foundations.gated import gru, lstm
from medbook.foundations.recurrent import rnn
from tests.bench import Row, faster

UNITS = 64


def signals(batch, time, inputs):
    return np.random.default_rng(0).normal(size=(batch, time, inputs)).astype("float32")


def against_keras(make, scan, inputs, target):
    x, layer = signals(32, 250, inputs), make(UNITS, return_sequences=True, return_state=True)
    layer.build(x.shape)
    weights = layer.get_weights()
    what = (
        f"{scan.__name__}, 32 × 250 steps × {inputs} inputs, {UNITS} units, seconds, "
        "against Keras's layer called eagerly"
    )
    return faster(
        what, lambda: scan(x, *weights), lambda: [np.asarray(part) for part in layer(x)], target
    )


def weights_of(inputs):
    layer = keras.layers.LSTM(UNITS)
    layer.build((1, 1, inputs))
    return layer.get_weights()


def best(small, large, repeats=15):
    """Fewest seconds of two callables, called in turn:
    what the work itself takes, whatever else the machine does."""
    times = ([], [])
    for _ in range(repeats):
        for call, kept in zip((small, large), times, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


def growth(what, small, large, times):
    """Seconds a unit of work of the larger against the smaller: 1 when time grows in proportion."""
    less, more = best(small, large)
    return Row(what, more / times, less, more / times / less, "<= 1.25")


def rows():
    yield against_keras(keras.layers.LSTM, lstm, 12, ">= 1")
    yield against_keras(keras.layers.LSTM, lstm, 64, ">= 1")
    yield against_keras(keras.layers.GRU, gru, 12, ">= 1")
    yield against_keras(keras.layers.SimpleRNN, rnn, 12, ">= 1")
    weights = weights_of(12)
    short, long = signals(32, 100, 12), signals(32, 1000, 12)
    yield growth(
        "lstm, seconds a 100 steps: 1,000 steps against 100",
        lambda: lstm(short, *weights),
        lambda: lstm(long, *weights),
        10,
    )
    few, many = signals(64, 100, 12), signals(256, 100, 12)
    yield growth(
        "lstm, seconds for 64 sequences: 256 against 64",
        lambda: lstm(few, *weights),
        lambda: lstm(many, *weights),
        4,
    )
