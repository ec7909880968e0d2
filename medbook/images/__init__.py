"""Part 1, from scanner to array."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "dicom", "decoding", "series", "headers", "waveforms", "writing", "preprocess",
        "quality", "augmentation", "datasets", "phantoms",
    ],
    submod_attrs={
        "dicom": ["read_image", "MedicalImage", "rescale", "window", "WINDOWS", "mirror",
                  "slice_normal", "slice_distance"],
        "decoding": ["DicomError"],
        "series": ["read_series", "slice_order", "uneven_gaps"],
        "headers": ["index_folder"],
        "waveforms": ["read_waveform", "Waveform", "show_ecg"],
        "writing": ["write_image"],
        "preprocess": ["load_image", "resize", "crop", "center_crop", "pad_to_square",
                       "normalise", "standardise", "to_channels", "to_uint8", "block_mean",
                       "linear_weights", "ImageError"],
        "datasets": ["Dataset", "load", "from_folder", "from_table", "from_npz", "split"],
        "quality": ["audit", "audit_summary", "show_problems", "without_leaks", "rehearse", "denoise", "inpaint"],
    },
)
