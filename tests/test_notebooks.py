"""Every notebook runs from a fresh kernel, and what is stored in it is fit to be read."""

import re

import nbformat
import pytest

from tests.check_house import is_machinery
from tests.run_notebooks import ROOT, chapters, execute
from tests.test_sliders_browser import CHAPTERS as RUN_IN_A_BROWSER

NAMES = [str(path.relative_to(ROOT)) for path in chapters()]
NUMBERED = [name for name in NAMES if re.match(r"nbs/\d_\w+/\d\d_", name)]
SECTIONS = {"What goes wrong", "Summary", "Exercises", "References"}


def read(name):
    """The notebook `name` as it is stored."""
    return nbformat.read(ROOT / name, as_version=4)


def outputs_of(book):
    """All outputs of a notebook's cells."""
    return [output for cell in book.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if ROOT / name not in RUN_IN_A_BROWSER])
def test_runs_from_a_fresh_kernel(name, monkeypatch):
    monkeypatch.delenv("MEDBOOK_DATA", raising=False)
    outputs = outputs_of(execute(ROOT / name))
    assert [output for output in outputs if output.output_type == "error"] == []


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs(name):
    outputs = outputs_of(read(name))
    text = (ROOT / name).read_text(encoding="utf-8")
    faults = [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert outputs, "no stored output: make run"
    assert faults == []
    assert len(text) < 1_500_000
    assert not re.search(r"[\"' ]/(root|tmp|home|Users|work)/", text), "a path of one machine"


@pytest.mark.parametrize("name", NUMBERED)
def test_anatomy_of_a_chapter(name):
    book = read(name)
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    headings = {line.lstrip("# ") for line in text.splitlines() if line.startswith("##")}
    assert is_machinery(book) or headings >= SECTIONS
    assert re.fullmatch(r"# .+\n\n> .+", book.cells[0].source)
    assert not any(re.search(r"^from \S+ import \*", source, re.M) for source in code)
    assert not re.search("first reading", text), "a chapter with parts to skip is two chapters"


def test_chapters_are_numbered_without_gaps_and_the_readme_lists_each():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for part in sorted({name.split("/")[1] for name in NUMBERED}):
        numbers = [int(name.split("/")[2][:2]) for name in NUMBERED if name.split("/")[1] == part]
        assert numbers == list(range(1, len(numbers) + 1)), part
    for name in NUMBERED:
        _, part, chapter = name.split("/")
        assert f"[{part[0]}.{int(chapter[:2])} " in readme and f"]({name})" in readme, name


@pytest.mark.parametrize("name", NAMES)
def test_links_between_chapters_lead_somewhere(name):
    for cell in read(name).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^):#]+\.(?:ipynb|md|png))\)", cell.source):
                assert ((ROOT / name).parent / link).exists(), f"{name} links {link}"
                check_number(cell.source, link)


def check_number(text, link):
    """A citation "chapter N.M" with a link names the chapter that it links."""
    number = re.search(rf"\[[Cc]hapter (\d)\.(\d+)\]\({re.escape(link)}\)", text)
    if number and (found := re.search(r"(?:(\d)_\w+/)?(\d\d)_\w+\.ipynb$", link)):
        assert int(number[2]) == int(found[2]), f"{number[0]} is another chapter"
        assert found[1] in (None, number[1]), f"{number[0]} is of another part"
