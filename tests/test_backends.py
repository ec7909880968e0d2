"""Part 5 on JAX and PyTorch: the tests marked `backends` run once more on each.

Each touches another function that depends on the backend; all others ask the same of Keras alone.
"""
import importlib.util
import os
import subprocess
import sys

import pytest

from tests.run_notebooks import ROOT

pytestmark = pytest.mark.slow

NAMES = (
    "inspection_backend inputs layers feature_maps targets gradients activation_maps masks trust "
    "pixel pixel_layers explorer"
)
FILES = [f"tests/test_{name}.py" for name in NAMES.split()]

# JAX compiles every network anew: it is spared random ones, which ask nothing else of it
SPARED = {"jax": ["-k", "not total_is"], "torch": []}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_part_five_on(name):
    if importlib.util.find_spec(name) is None:
        assert not os.environ.get("CI"), f"{name} is missing: make backends"
        pytest.skip(f"{name} is not installed: make backends")
    files = [file for file in FILES if (ROOT / file).exists()]
    options = ["-m", "backends", "-o", "addopts=", "-q", "-p", "no:cacheprovider", *SPARED[name]]
    command = [sys.executable, "-m", "pytest", *files, *options]
    environment = os.environ | {"KERAS_BACKEND": name, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
