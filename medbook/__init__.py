"""Deep learning for medical image diagnosis: a book that runs and a library that reads like a book.

Importing `medbook` loads nothing heavy: each part, and Keras behind it, loads when it is first used.
"""
import lazy_loader as _lazy

from . import _renamed

_renamed.install()
_load, __dir__, __all__ = _lazy.attach(__name__, submodules=[
    "core", "images", "foundations", "evaluation", "training", "inspection", "cli"])


def __getattr__(name):
    if name == "__version__":
        from importlib.metadata import version
        return version("medbook")
    return _load(name)
