"""The house rules of CONTRIBUTING.md that a program can check; `make lint` runs it.
Prints what is over the guide, fails on what is over the limit."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat

from tests.run_notebooks import ROOT, chapters

GUIDE = {"cells": 120, "exported lines": 450}
LIMIT = {"cells": 150, "exported lines": 600}
WIDTH = 100
PAIRS = 0.02  # of all assignments, those of two values to two names at once


def source_of(cell):
    """A code cell's Python, without nbdev's directives and IPython's magics."""
    return "\n".join(
        "" if re.match(r"\s*(#\||[%!])", line) else line for line in cell.source.splitlines()
    )


def is_exported(cell):
    """Whether nbdev writes the cell into the library."""
    return cell.cell_type == "code" and re.match(r"\s*#\| exports?\b", cell.source) is not None


def is_machinery(book):
    """Whether the chapter says of itself, after its title, that it is machinery."""
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    return len(texts) > 1 and texts[1].lstrip("*_ ").startswith("Machinery")


def module_of(book):
    """The module that a notebook exports, such as "medbook.images.dicom"; "" for none."""
    for cell in book.cells:
        if found := re.search(r"^#\| default_exp (\S+)", cell.source, re.M):
            return f"medbook.{found[1]}"
    return ""


def imports_of(tree):
    """The modules that a piece of code imports,
    with the names it takes from them as dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pair(node):
    """Whether an assignment gives several values to several names at once."""
    many = (ast.Tuple, ast.List)
    return isinstance(node.value, many) and any(isinstance(target, many) for target in node.targets)


def size_faults(name, book):
    """What of a chapter is over the limit, and what is over the guide, each a list of sentences."""
    exported = [cell for cell in book.cells if is_exported(cell)]
    sizes = {
        "cells": len(book.cells),
        "exported lines": sum(len(cell.source.splitlines()) for cell in exported),
    }
    over = [
        f"{name}: {size} {what}, limit {LIMIT[what]}"
        for what, size in sizes.items()
        if size > LIMIT[what]
    ]
    long = [
        f"{name}: {size} {what}, guide {GUIDE[what]}"
        for what, size in sizes.items()
        if GUIDE[what] < size <= LIMIT[what]
    ]
    return over, long


def cell_faults(name, book):
    """Faults in single cells: wide lines, a chapter that imports itself,
    exported code behind the references."""
    module, ended = module_of(book), False
    for cell in book.cells:
        ended = ended or (
            cell.cell_type == "markdown"
            and re.search(r"^## References", cell.source, re.M) is not None
        )
        if cell.cell_type != "code":
            continue
        if ended and is_exported(cell):
            yield f"{name} [{cell.id}]: exports after its references"
        if max(map(len, cell.source.splitlines()), default=0) > WIDTH:
            yield f"{name} [{cell.id}]: a line of more than {WIDTH} characters"
        if module and module in imports_of(ast.parse(source_of(cell))):
            yield f"{name} [{cell.id}]: imports its own module {module}"


def assignments(book):
    """Counts of the assignments in the exported cells of a chapter:
    "all", and "pairs" of two at once."""
    nodes = [
        node
        for cell in book.cells
        if is_exported(cell)
        for node in ast.walk(ast.parse(source_of(cell)))
    ]
    found = [node for node in nodes if isinstance(node, ast.Assign)]
    return Counter(all=len(found), pairs=sum(map(is_pair, found)))


def undocumented(path):
    """Public functions of an exported module whose docstring is not in numpydoc form or leaves
    out a parameter."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        where = f"{path.relative_to(ROOT)}: {node.name}"
        if not text:
            yield f"{where} has no docstring"
        if isinstance(node, ast.ClassDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n---|\Z)", text, re.M | re.S)
        said = section[1] if section else ""
        lacking = [
            one.arg
            for one in arguments
            if not re.search(rf"^\s*[\w, *]*\b{one.arg}\b[\w, *]*\s*(:|$)", said, re.M)
        ]
        if lacking:
            yield f"{where} does not document {', '.join(lacking)}"


def main():
    faults = []
    notes = []
    counts = Counter()
    for path in chapters():
        name, book = str(path.relative_to(ROOT)), nbformat.read(path, as_version=4)
        over, long = size_faults(name, book)
        faults += [*over, *cell_faults(name, book)]
        notes += long
        counts += assignments(book)
    share = counts["pairs"] / counts["all"]
    if share > PAIRS:
        faults.append(
            f"{share:.1%} of all assignments give two values to two names; {PAIRS:.0%} at most"
        )
    for path in sorted(Path(ROOT / "medbook").rglob("*.py")):
        if not path.name.startswith("_") and path.name != "cli.py":  # there a docstring is the help
            faults += undocumented(path)
    print(f"{len(chapters())} notebooks; {share:.1%} of {counts['all']} assignments are pairs")
    print("\n".join(f"over the guide: {note}" for note in notes))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
