"""Part 5, inspection: look inside any Keras model.

`feature_maps` is a module that can be called: `medbook.inspection.feature_maps(model, images)` calls the function of that name in it.
"""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["backend", "feature_maps", "attribution", "arithmetic", "pixel", "pixel_layers", "perturbation",
                "explorer", "explorer_parts", "explorer_controls", "slices"],
    submod_attrs={
        "backend": ["InspectionError", "device"],
        "feature_maps": ["layer_outputs", "quantised_maps", "mosaic", "show_maps", "map_statistics", "kernel_pictures", "example_network",
                         "forget"],
        "attribution": ["saliency", "gradient_times_input", "smooth_grad", "integrated_gradients", "grad_cam", "grad_cam_plus_plus",
                        "hires_cam", "score_cam", "occlusion", "rise", "scores", "completeness", "deletion_insertion", "pointing_game",
                        "randomisation_check", "show_attribution"],
        "explorer": ["FeatureExplorer", "prepare_image"],
        "arithmetic": ["Explanation", "draw_pixel"],
        "pixel": ["explain_pixel", "receptive_field"],
        "perturbation": ["Perturbation", "perturb", "sweep"],
        "slices": ["SliceViewer"],
    },
)
