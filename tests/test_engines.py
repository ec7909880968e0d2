"""Part 5 on JAX and PyTorch: the tests that name no engine run once more on each."""
import importlib.util
import os
import subprocess
import sys

import pytest

from tests.run_notebooks import ROOT

FILES = [f"tests/test_{name}.py" for name in ("inspection_backend", "feature_maps", "attribution", "pixel", "explorer")]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_part_five_on(engine):
    if importlib.util.find_spec(engine) is None:
        assert not os.environ.get("CI"), f"{engine} is missing: make engines"
        pytest.skip(f"{engine} is not installed: make engines")
    command = [sys.executable, "-m", "pytest", *FILES, "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": engine}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
