"""Part 3, how good is it, and how sure are we."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["metrics", "intervals", "report", "predictions"],
    submod_attrs={
        "intervals": ["wilson", "auc_interval", "bootstrap"],
        "report": ["evaluate", "Evaluation"],
        "predictions": ["read_predictions", "evaluate_table"],
    },
)
