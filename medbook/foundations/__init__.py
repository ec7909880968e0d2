"""Part 2, the mathematics in plain NumPy, forward and backward, each function checked against Keras."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["arrays"],
    submod_attrs={
        "arrays": ["ArrayError", "numerical_gradient"],
    },
)
