"""Small made-up studies that several tests of part 3 judge."""
import numpy as np

FAST = {"resamples": 200}
BINARY = [
    "auc", "average_precision", "partial_auc", "sensitivity_at_specificity_0.9",
    "specificity_at_sensitivity_0.9", "accuracy_largest_score", "accuracy", "balanced_accuracy",
    "sensitivity", "specificity", "ppv", "npv", "positive_likelihood_ratio",
    "negative_likelihood_ratio", "diagnostic_odds_ratio", "f1", "f2", "mcc", "kappa", "prevalence",
    "brier", "log_loss", "ece", "ece_if_perfect", "calibration_slope", "calibration_intercept",
    "mean_score_minus_prevalence", "net_benefit", "net_benefit_treat_all",
]


def two_classes(n=300, seed=0, prevalence=0.3):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(int)
    y[:2] = [0, 1]
    return y, 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * y - 1.5)))


def several_classes(n=300, seed=0, share=(0.7, 0.2, 0.1)):
    rng = np.random.default_rng(seed)
    y = rng.choice(len(share), n, p=share)
    scores = np.exp(rng.normal(size=(n, len(share))) + 2 * np.eye(len(share))[y])
    return y, scores / scores.sum(1, keepdims=True)


def several_labels(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 3)) < [0.5, 0.2, 0.1]).astype(int)
    return y, 1 / (1 + np.exp(-(rng.normal(size=y.shape) + 2 * y - 1)))


EXAMPLES = {"binary": two_classes, "multi-class": several_classes, "multi-label": several_labels}
