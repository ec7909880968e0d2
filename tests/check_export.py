"""Fail when the library in medbook/ is not what the notebooks in nbs/ export,
or a notebook carries stray metadata."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def fingerprint():
    files = sorted([*ROOT.glob("medbook/**/*.py"), *ROOT.glob("nbs/**/*.ipynb")])
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if ".ipynb_checkpoints" not in file.parts
    }


def main():
    before = fingerprint()
    for command in ("nbdev-export", "nbdev-clean"):
        subprocess.run([Path(sys.executable).with_name(command)], cwd=ROOT, check=True)
    after = fingerprint()
    changed = [
        str(file.relative_to(ROOT))
        for file in after.keys() | before.keys()
        if before.get(file) != after.get(file)
    ]
    if changed:
        sys.exit(
            "export changed these files; run `make export` and commit them: "
            + ", ".join(sorted(changed))
        )
    print(f"export leaves {len(after)} files as they are")


if __name__ == "__main__":
    main()
