"""Part 5, inspection: look inside any Keras model."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["backend", "feature_maps", "attribution", "explorer", "pixel", "viewers"],
    submod_attrs={
        "backend": ["InspectionError"],
    },
)
