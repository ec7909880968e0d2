"""Run every benchmark and write BENCHMARKS.md: `python -m tests.bench [MODULE ...]`."""

import importlib
import os
import pkgutil
import platform
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.pop(
    "OPENBLAS_CORETYPE", None
)  # NumPy's kernels are those for this processor, as Keras's are

import tests.bench as bench  # noqa: E402

GPU = "## On a GPU"  # python -m tests.gpu writes what follows


def main(names):
    chosen = names or [
        module.name for module in pkgutil.iter_modules(bench.__path__) if module.name != "__main__"
    ]
    lines = [
        "# Benchmarks",
        "",
        "Ratios measured in one run by `make bench`; above 1, medbook is faster. NumPy's matrix",
        "kernels are those for this processor, whatever `OPENBLAS_CORETYPE` says.",
        "",
        f"Python {platform.python_version()}, NumPy {version('numpy')}, "
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores.",
        "",
        "| comparison | medbook | other | ratio | target | met |",
        "|---|---:|---:|---:|---|---|",
    ]
    for name in chosen:
        for row in importlib.import_module(f"tests.bench.{name}").rows():
            met = "yes" if row.met else "**no**"
            numbers = f"{row.ours:.4g} | {row.theirs:.4g} | {row.ratio:.2f}"
            line = f"| {row.what} | {numbers} | {row.target} | {met} |"
            print(line, flush=True)
            lines.append(line)
    if not names:
        page = Path("BENCHMARKS.md")
        _, title, gpu = page.read_text(encoding="utf-8").partition(GPU)
        page.write_text(
            "\n".join([*lines, ""]) + (f"\n{title}{gpu}" if title else ""), encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
