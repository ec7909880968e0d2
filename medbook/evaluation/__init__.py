"""Part 3, how good is it, and how sure are we."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["metrics", "intervals", "comparison", "calibration", "decision", "interactive", "report", "predictions"],
    submod_attrs={
        "intervals": ["wilson", "auc_interval", "bootstrap"],
        "comparison": ["compare", "Comparison"],
        "calibration": ["brier", "ece", "calibration_line", "prior_correction", "TemperatureScaling", "PlattScaling", "IsotonicScaling"],
        "decision": ["choose_threshold", "net_benefit", "decision_curve"],
        "interactive": ["CurveExplorer"],
        "report": ["evaluate", "Evaluation"],
        "predictions": ["read_predictions", "evaluate_table"],
    },
)
