"""Execute notebooks, each in a fresh kernel, and store their outputs: `python tests/run_notebooks.py [NOTEBOOK ...]`."""
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def chapters():
    return sorted(path for path in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def execute(path):
    """The notebook at `path` after a run in a fresh kernel, started in the notebook's own folder."""
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    return book


def main(paths):
    for path in paths or chapters():
        start = time.perf_counter()
        nbformat.write(execute(Path(path).resolve()), path)
        print(f"{path}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
