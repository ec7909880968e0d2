"""Names of medbook 0.1 that have moved. They work for one version more, with a `DeprecationWarning`; then this file goes.

`NAMES` maps each old dotted name to the new one. A finder in front of Python's own gives the modules that had them a `__getattr__`,
and stands in for modules that are no longer there.
"""
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings

NAMES = {
}
MODULES = {name.rpartition(".")[0] for name in NAMES}


def _moved(module, name):
    """What `module.name` is now, with a warning; AttributeError where it never was."""
    new = NAMES.get(f"{module}.{name}")
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now {new}", DeprecationWarning, stacklevel=3)
    home, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(home), attribute)


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader would (an empty one where there is none), and lets it answer for its old names."""

    def __init__(self, own=None):
        self.own = own

    def create_module(self, spec):
        return self.own.create_module(spec) if self.own else None

    def exec_module(self, module):
        if self.own:
            self.own.exec_module(module)
        ask = vars(module).get("__getattr__")

        def __getattr__(name):
            if ask is None or f"{module.__name__}.{name}" in NAMES:
                return _moved(module.__name__, name)
            return ask(name)

        module.__getattr__ = __getattr__


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of `NAMES`, those that are there and those that are gone."""

    def find_spec(self, name, path=None, target=None):
        if name not in MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return importlib.machinery.ModuleSpec(name, _Loader())
        spec.loader = _Loader(spec.loader)
        return spec


def install():
    """Put the finder first, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
