"""The package as a whole: light to import, version from its metadata,
notebooks and library in step."""

import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import medbook
from medbook._renamed import MODULES, NAMES

PARTS = (
    medbook.images,
    medbook.foundations,
    medbook.evaluation,
    medbook.training,
    medbook.inspection,
)

PROBE = """
import sys, time
start = time.perf_counter()
import medbook
heavy = {"keras", "tensorflow", "matplotlib", "seaborn", "pandas", "numpy"}
print(time.perf_counter() - start, *sorted(heavy & set(sys.modules)))
"""


def test_import_is_light():
    """No heavy library comes with `import medbook`; that keeps it far below a tenth of a second."""
    seconds, *loaded = subprocess.run(
        [sys.executable, "-c", PROBE], check=True, capture_output=True, text=True
    ).stdout.split()
    assert loaded == [] and float(seconds) < 1


def test_links_in_the_pages_lead_somewhere():
    root = Path(medbook.__file__).parents[1]
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RESULTS.md"):
        for link in re.findall(
            r"\]\((?!https?:)([^)#]+)", (root / page).read_text(encoding="utf-8")
        ):
            assert (root / link).exists(), f"{page} links {link}"


def test_version():
    assert medbook.__version__ == version("medbook")


def test_every_public_name_is_there():
    for part in PARTS:
        for name in part.__all__:
            assert getattr(part, name) is not None


OFFERED = {
    "images": "read_image read_series read_waveform index_folder load audit normalise resize "
    "chest_radiograph",
    "foundations": "conv2d max_pool2d rnn lstm gru scaled_dot_product_attention batch_norm dropout",
    "evaluation": "evaluate auc auc_interval sensitivity specificity bootstrap compare wilson",
    "training": "build_cnn ARCHITECTURES fit predict class_weights compare_strategies search",
    "inspection": "feature_maps grad_cam saliency integrated_gradients occlusion FeatureExplorer",
}


@pytest.mark.parametrize("part", OFFERED)
def test_a_part_offers_what_its_readers_would_guess(part):
    module = importlib.import_module(f"medbook.{part}")
    for name in OFFERED[part].split():
        assert callable(getattr(module, name)) or name.isupper()
        assert name in dir(module)


@pytest.mark.parametrize("old, new", sorted(NAMES.items()))
def test_names_of_the_last_version_work_with_a_warning(old, new):
    home, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        found = getattr(importlib.import_module(home), name)
    target, _, attribute = new.rpartition(".")
    assert found is getattr(importlib.import_module(target), attribute)


def test_a_name_that_never_was_is_still_an_error():
    for module in sorted(MODULES):
        with pytest.raises(AttributeError, match="never_was"):
            importlib.import_module(module).never_was  # noqa: B018
