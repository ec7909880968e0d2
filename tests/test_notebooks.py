"""Every notebook runs from a fresh kernel, and what is stored in it is fit to be read."""
import re

import nbformat
import pytest

from tests.run_notebooks import ROOT, chapters, execute
from tests.test_sliders_browser import CHAPTERS as RUN_IN_A_BROWSER

NAMES = [str(path.relative_to(ROOT)) for path in chapters()]


@pytest.mark.parametrize("name", [name for name in NAMES if ROOT / name not in RUN_IN_A_BROWSER])
def test_runs_from_a_fresh_kernel(name, monkeypatch):
    monkeypatch.delenv("MEDBOOK_DATA", raising=False)
    errors = [output for cell in execute(ROOT / name).cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert errors == []


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs(name):
    book = nbformat.read(ROOT / name, as_version=4)
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert outputs, "no stored output: make run"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert (ROOT / name).stat().st_size < 1_500_000
    assert not re.search(r"[\"' ]/(root|tmp|home|Users|work)/", (ROOT / name).read_text(encoding="utf-8")), "a path of one machine"


@pytest.mark.parametrize("name", [name for name in NAMES if re.match(r"\d\d_", name.split("/")[-1])])
def test_anatomy_of_a_chapter(name):
    cells = nbformat.read(ROOT / name, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = {line.lstrip("# ") for line in text.splitlines() if line.startswith("##")}
    assert {"What goes wrong", "Summary", "Exercises", "References"} <= headings
    assert re.fullmatch(r"# .+\n\n> .+", cells[0].source)
    assert not any(re.search(r"^from \S+ import \*", cell.source, re.M) for cell in cells if cell.cell_type == "code")
