"""Part 3, how good is it, and how sure are we."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "metrics", "ranking", "intervals", "comparison", "calibration", "calibration_slope",
        "recalibration", "decision", "decision_curves", "interactive", "report", "table", "figures",
        "page", "predictions", "cases", "all_metrics", "inputs", "one_pass", "resampling",
    ],
    submod_attrs={
        "metrics": [
            "Counts", "accuracy", "balanced_accuracy", "confusion_matrix",
            "diagnostic_odds_ratio", "exact_match", "f1", "f_beta", "kappa", "mcc",
            "negative_likelihood_ratio", "npv", "npv_at", "positive_likelihood_ratio", "ppv",
            "ppv_at", "prevalence", "recall_per_class", "sensitivity", "specificity",
            "two_by_two",
        ],
        "ranking": [
            "Ranking", "auc", "average_precision", "partial_auc", "pr_curve", "roc_curve",
            "sensitivity_at", "specificity_at",
        ],
        "intervals": [
            "auc_interval", "delong", "effective_size", "share_interval", "wilson",
        ],
        "resampling": ["IntervalWarning", "bootstrap", "percentile_interval", "redraw"],
        "comparison": [
            "Comparison", "compare", "compare_tables", "mcnemar", "non_inferiority",
            "paired_bootstrap", "paired_delong", "paired_share",
        ],
        "calibration": [
            "brier", "brier_decomposition", "ece", "ece_expected", "ece_test", "log_loss",
            "plot_reliability", "reliability_curve", "reliability_intervals",
        ],
        "calibration_slope": [
            "CalibrationWarning", "calibration_in_the_large", "calibration_line", "log_odds",
            "sigmoid",
        ],
        "recalibration": [
            "IsotonicScaling", "PlattScaling", "TemperatureScaling", "estimate_prior",
            "prior_correction", "weighted_prior",
        ],
        "decision": [
            "ThresholdWarning", "calibrated_threshold", "choose_threshold", "cost_threshold",
            "expected_cost", "least_cost_class", "threshold_for_sensitivity",
            "threshold_for_specificity", "threshold_interval", "youden",
        ],
        "decision_curves": [
            "avoided_interventions", "decision_curve", "net_benefit", "net_benefit_difference",
            "plot_decision_curve", "treat_all",
        ],
        "interactive": ["CurveExplorer", "curve_point", "score_steps"],
        "report": ["Evaluation", "evaluate"],
        "figures": ["draw", "reliability"],
        "page": ["checklists"],
        "predictions": ["TableError", "check_table", "evaluate_table", "read_predictions"],
        "cases": ["UndefinedMetric", "check_cases", "value_and_reason"],
        "all_metrics": ["METRICS"],
    },
)
