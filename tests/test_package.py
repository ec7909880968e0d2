"""The package as a whole: light to import, version from its metadata, notebooks and library in step."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import medbook

PROBE = """
import sys, time
start = time.perf_counter()
import medbook
print(time.perf_counter() - start, *sorted({"keras", "tensorflow", "matplotlib", "seaborn", "pandas", "numpy"} & set(sys.modules)))
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
    for part in (medbook.images, medbook.foundations, medbook.evaluation, medbook.training):
        for name in part.__all__:
            assert getattr(part, name) is not None


def test_every_public_thing_says_what_it_does():
    import importlib
    import inspect

    silent = []
    for path in Path(medbook.__file__).parent.rglob("*.py"):
        if path.name.startswith("_"):
            continue
        module = importlib.import_module(
            ".".join(
                ["medbook", *path.relative_to(Path(medbook.__file__).parent).with_suffix("").parts]
            )
        )
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if (
                (inspect.isfunction(thing) or inspect.isclass(thing))
                and thing.__module__ == module.__name__
                and not thing.__doc__
            ):
                silent.append(f"{module.__name__}.{name}")
    assert silent == []
