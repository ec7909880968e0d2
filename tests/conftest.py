import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared():
    """The folder of real data that MEDBOOK_DATA names; without it a test is skipped, in CI it fails."""
    folder = os.environ.get("MEDBOOK_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    if os.environ.get("CI"):
        pytest.fail("MEDBOOK_DATA names no folder; continuous integration needs the real data")
    pytest.skip("set MEDBOOK_DATA to the folder of real data")


@pytest.fixture(scope="module")
def without_reports():
    """Runs in folders write no report: it is drawn for a second each, and is tested with `fit`."""
    from medbook.training import fitting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "write_report", lambda run, folder, dataset=None: None)
        yield
