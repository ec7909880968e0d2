"""Part 3, how good is it, and how sure are we."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["metrics", "intervals", "resampling", "comparison", "calibration", "decision", "interactive", "report", "table",
                "figures", "page", "predictions", "inputs", "one_pass"],
    submod_attrs={
        "intervals": ["wilson", "auc_interval"],
        "resampling": ["bootstrap", "redraw", "percentile_interval", "IntervalWarning"],
        "comparison": ["compare", "Comparison"],
        "calibration": ["brier", "ece", "calibration_line", "prior_correction", "TemperatureScaling", "PlattScaling", "IsotonicScaling"],
        "decision": ["choose_threshold", "net_benefit", "decision_curve"],
        "interactive": ["CurveExplorer", "curve_point", "score_steps"],
        "report": ["evaluate", "Evaluation"],
        "figures": ["reliability", "draw"],
        "page": ["checklists"],
        "predictions": ["read_predictions", "evaluate_table", "check_table", "TableError"],
    },
)
