"""Part 5 on JAX and PyTorch: the tests that name no engine run once more on each."""
import importlib.util
import os
import subprocess
import sys

import pytest

from tests.run_notebooks import ROOT

FILES = [f"tests/test_{name}.py" for name in ("inspection_backend", "feature_maps", "attribution", "pixel", "explorer")]

# JAX compiles every network anew, minutes in all: it is spared what asks nothing else of the engine, and the compiler's last efforts
SPARED = {"jax": "total_is or receptive_field or one_layer_alone or names_shapes"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_part_five_on(engine):
    if importlib.util.find_spec(engine) is None:
        assert not os.environ.get("CI"), f"{engine} is missing: make engines"
        pytest.skip(f"{engine} is not installed: make engines")
    command = [sys.executable, "-m", "pytest", *FILES, "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    command += ["-k", f"not ({SPARED[engine]})"] if engine in SPARED else []
    environment = os.environ | {"KERAS_BACKEND": engine, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
