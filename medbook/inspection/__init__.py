"""Part 5, inspection: look inside any Keras model.

`feature_maps` is a module that can be called: `medbook.inspection.feature_maps(model, images)`
calls the function of that name in it.
"""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "backend", "feature_maps", "layers", "gradients", "activation_maps", "masks", "trust",
        "targets", "inputs", "arithmetic", "pixel", "pixel_layers", "perturbation", "explorer",
        "explorer_parts", "explorer_controls", "slices",
    ],
    submod_attrs={
        "backend": ["InspectionError", "compile_function", "gradient", "to_numpy"],
        "feature_maps": [
            "quantised_maps", "mosaic", "show_maps", "map_statistics", "kernel_pictures",
            "example_network",
        ],
        "layers": ["layer_outputs", "find_layer", "forget"],
        "gradients": [
            "saliency", "gradient_times_input", "integrated_gradients", "completeness",
            "smooth_grad", "overlay", "show_attribution",
        ],
        "activation_maps": ["grad_cam", "grad_cam_plus_plus", "hires_cam"],
        "masks": ["occlusion", "rise", "score_cam"],
        "trust": ["pointing_game", "deletion_insertion", "randomisation_check"],
        "targets": ["scores"],
        "perturbation": ["Perturbation", "perturb", "sweep"],
        "arithmetic": ["Explanation", "draw_pixel"],
        "explorer": ["FeatureExplorer", "prepare_image"],
        "pixel": ["explain_pixel", "receptive_field"],
        "slices": ["SliceViewer"],
    },
)
