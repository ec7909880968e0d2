"""Execute notebooks, each in a fresh kernel, and store their outputs:
`python tests/run_notebooks.py [NOTEBOOK ...]`."""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def chapters():
    return sorted(
        path for path in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts
    )


LOADER_NOISE = re.compile(
    r"^([IWEF]\d{4} |WARNING: All log messages before absl|To enable the following instr).*\n?",
    re.MULTILINE,
)


def drop_noise(book):
    """Remove what TensorFlow's C++ logger says while it loads;
    everything else on standard error stays to be seen."""
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                output["text"] = LOADER_NOISE.sub("", output["text"])
        if "outputs" in cell:
            cell["outputs"] = [
                output
                for output in cell["outputs"]
                if output.get("name") != "stderr" or output["text"].strip()
            ]


def drop_blanks(book):
    """Remove displays that show nothing: what a progress bar leaves when it has gone."""
    for cell in book.cells:
        if "outputs" in cell:
            cell["outputs"] = [
                output
                for output in cell["outputs"]
                if output.output_type != "display_data"
                or set(output["data"]) - {"text/html", "text/plain"}
                or output["data"].get("text/plain", "-").strip()
            ]


def drop_widgets(book):
    """Remove what only a running kernel can draw;
    a widget's still picture stays, and the figure beside a slider is what a page shows."""
    view = "application/vnd.jupyter.widget-view+json"
    for cell in book.cells:
        if "outputs" in cell:
            alive = [output for output in cell["outputs"] if view in output.get("data", {})]
            cell["outputs"] = [
                output
                for output in cell["outputs"]
                if output not in alive or "image/png" in output["data"]
            ]
            for output in alive:
                del output["data"][view]
    book.metadata.pop("widgets", None)


def execute(path):
    """The notebook at `path` after a run in a fresh kernel,
    started in the notebook's own folder."""
    book = nbformat.read(path, as_version=4)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    drop_noise(book)
    drop_widgets(book)
    drop_blanks(book)
    return book


def main(paths):
    for path in paths or chapters():
        start = time.perf_counter()
        nbformat.write(execute(Path(path).resolve()), path)
        print(f"{path}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
