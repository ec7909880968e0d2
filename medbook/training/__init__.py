"""Part 4, Keras models and how they are fitted."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["balance", "cnn", "cross_validation", "ensembles", "fitting", "imbalance",
                "learning_curves", "precision", "runs", "selection"],
    submod_attrs={
        "balance": ["STRATEGIES", "ShiftedFocalLoss", "Strategy", "class_weights",
                    "draw_by_patient", "effective_weights", "find_strategy", "inverse_weights"],
        "cnn": ["ARCHITECTURES", "RECIPES", "Recipe", "build", "build_cnn", "compact",
                "load_model"],
        "cross_validation": ["CrossValidation", "cross_validate", "folds", "held_out",
                             "selection_optimism"],
        "ensembles": ["ambiguity", "average", "disagreement", "ensemble"],
        "fitting": ["Batches", "fit", "predict", "scores"],
        "imbalance": ["compare_strategies", "imbalance_study", "thin"],
        "learning_curves": ["LearningCurve", "learning_curve", "power_law"],
        "precision": ["set_precision"],
        "runs": ["Run", "TrainingError"],
        "selection": ["Search", "candidate", "search"],
    },
)
