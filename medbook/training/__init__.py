"""Part 4, Keras models and how they are fitted."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["cnn", "fitting", "imbalance", "selection"],
    submod_attrs={
        "cnn": ["build_cnn", "ARCHITECTURES"],
        "fitting": ["fit", "Run"],
        "imbalance": ["compare_strategies", "STRATEGIES"],
        "selection": ["search", "folds", "cross_validate", "learning_curve", "ensemble"],
    },
)
