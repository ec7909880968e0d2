"""What all tests share: the real data, one browser,
one JupyterLab and one Voila for all tests that need them."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

# all that drives the browser runs in one worker, so that it is started once
IN_THE_BROWSER = {"browser", "servers"}


def pytest_collection_modifyitems(items):
    """Whatever uses the browser is slow, and runs in the worker that has it."""
    for item in items:
        if IN_THE_BROWSER & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from tests.pictures import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def servers():
    """A function that gives the running JupyterLab ("lab") or Voila ("voila"),
    started when first asked for."""
    from tests.browser import desk

    with contextlib.ExitStack() as stack:
        started = {}

        def server(front):
            if front not in started:
                started[front] = stack.enter_context(desk(front))
            return started[front]

        yield server


@pytest.fixture(scope="session")
def shared():
    """The folder of real data that MEDBOOK_DATA names; without it a test is skipped, in CI it
    fails."""
    folder = os.environ.get("MEDBOOK_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    if os.environ.get("CI"):
        pytest.fail("MEDBOOK_DATA names no folder; continuous integration needs the real data")
    pytest.skip("set MEDBOOK_DATA to the folder of real data")


@pytest.fixture(scope="module")
def without_reports():
    """Runs in folders write no report: it is drawn for a second each, and is tested with `fit`."""
    from medbook.training import runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_report", lambda run, folder, dataset=None: None)
        yield


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """An .npz of 300 noisy 16 × 16 images; class 1 has a faint square at a random place."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [200, 100]))
    images = rng.normal(100, 25, (300, 16, 16))
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 11, 2)
        image[row : row + 5, column : column + 5] += 45 * label
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    np.savez(path, images=images.clip(0, 255).astype("uint8"), labels=labels)
    return path
