"""Inspection on a GPU, checked against the CPU and timed.

`python -m tests.gpu [--cpu] [--models NAME ...] [--write]`

It runs on the backend that KERAS_BACKEND names. On a machine without a GPU the table says
"not measured"; with `--cpu` the CPU
is timed instead.
"""

import argparse
import datetime
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

from medbook.core import device
from medbook.inspection.activation_maps import grad_cam
from medbook.inspection.backend import compile_function, to_numpy
from medbook.inspection.feature_maps import device_maps, feature_maps, mosaic, quantised_maps
from medbook.inspection.layers import layer_outputs

MODELS = ("MobileNetV2", "ResNet50", "VGG16")
POLICIES = ("float32", "mixed_bfloat16")
CLOSE = {
    "float32": 1e-2,
    "mixed_bfloat16": 2e-1,
}  # float32 allows for the short products (TF32) of a GPU's convolutions
COLUMNS = (
    "model",
    "numbers",
    "forward, ms",
    "all maps, ms",
    "Grad-CAM, ms",
    "image to mosaic, slowest layer, ms",
    "largest maps to host, ms",
    "images/s, batch 32",
    "worst map against the CPU",
)
TITLE = "## On a GPU"


def build(name, policy):
    """The network of keras.applications with random weights, the same ones for every policy."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        return getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3), classes=2)
    finally:
        keras.config.set_dtype_policy("float32")


def milliseconds(call, repeats):
    """Median time of a call that ends with its result on the host."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def some_layers(outputs, count=6):
    """Layers from first to last, and the one with the largest map."""
    maps = [path for path, output in outputs.items() if len(output.shape) == 4]
    chosen = [maps[place] for place in np.linspace(0, len(maps) - 1, count).astype(int)]
    return list(dict.fromkeys([largest(outputs), *chosen]))


def largest(outputs):
    """The layer whose maps hold most numbers."""
    return max(outputs, key=lambda path: np.prod(outputs[path].shape[1:]))


def worst_difference(model, reference, image):
    """The largest difference of a map from the CPU's, as a share of its largest value."""
    ours = feature_maps(model, image)
    with keras.device("cpu:0"):
        theirs = feature_maps(reference, image)
    pairs = zip(ours.items(), theirs.values(), strict=True)
    return max(
        (float(np.abs(mine - other).max() / max(np.abs(other).max(), 1e-6)), path)
        for (path, mine), other in pairs
    )


def reference_of(model, name):
    """The same network in float32 on the CPU with the same weights."""
    with keras.device("cpu:0"):
        reference = build(name, "float32")
        reference.set_weights(model.get_weights())
    return reference


def picture(model, image, path):
    """From an image to the mosaic of one layer's maps."""
    return mosaic(quantised_maps(model, image, [path])[1][path].values[0])


def row(*cells):
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def measure(name, policy, repeats):
    """One row of the table, and whether every map agrees with the CPU's."""
    image = np.random.default_rng(0).random((1, 224, 224, 3), dtype="float32")
    batch = np.repeat(image, 32, axis=0)
    model = build(name, policy)
    outputs = layer_outputs(model, image)
    forward = compile_function(lambda images: model(images, training=False), model)
    big = device_maps(model, image, [largest(outputs)])[1][largest(outputs)]
    times = [
        milliseconds(lambda: to_numpy(forward(image)), repeats),
        milliseconds(lambda: to_numpy(device_maps(model, image)[0]), repeats),
        milliseconds(lambda: grad_cam(model, image, target=0), repeats),
        max(
            milliseconds(lambda path=path: picture(model, image, path), repeats)
            for path in some_layers(outputs)
        ),
        milliseconds(lambda: to_numpy(big), repeats),
    ]
    rate = 32_000 / milliseconds(lambda: to_numpy(forward(batch)), max(2, repeats // 3))
    worst, path = worst_difference(model, reference_of(model, name), image)
    return row(
        name, policy, *(f"{one:.2f}" for one in times), f"{rate:.0f}", f"{worst:.1e} ({path})"
    ), worst <= CLOSE[policy]


def table(models, policies, repeats, measured):
    """The table's lines, one row at a time, and whether all maps agreed."""
    yield row(*COLUMNS), True
    yield "|---|---|" + "---:|" * 7, True
    for name in models:
        for policy in policies:
            yield (
                measure(name, policy, repeats)
                if measured
                else (row(name, policy, *["not measured"] * 7), True)
            )


def write(lines):
    """Put the table at the end of BENCHMARKS.md, in place of the one that stands there."""
    page = Path("BENCHMARKS.md")
    before = page.read_text(encoding="utf-8").split(TITLE)[0].rstrip()
    page.write_text("\n".join([before, "", TITLE, "", *lines, ""]), encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="time the CPU where there is no GPU")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into BENCHMARKS.md")
    options = parser.parse_args(arguments)
    there = device()
    measured = options.cpu or " on CPU" not in there
    what = f"{there}, batch 1, 224 × 224, medians of {options.repeats}, {datetime.date.today()}."
    if not measured:
        what = (
            "`python -m tests.gpu --write` fills this table on a machine with a GPU; "
            "it has not run on one yet."
        )
    lines = [what, ""]
    agreed = True
    print(what)
    for line, close in table(options.models, options.policies, options.repeats, measured):
        print(line, flush=True)
        lines = [*lines, line]
        agreed = agreed and close
    if options.write:
        write(lines)
    return 0 if agreed else f"maps differ from the CPU's by more than the bounds {CLOSE}"


if __name__ == "__main__":
    sys.exit(main())
