"""Part 1, from scanner to array."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["dicom", "preprocess", "quality", "augmentation", "datasets", "phantoms"],
    submod_attrs={
        "dicom": ["read_image", "read_series", "read_waveform", "write_image", "index_folder", "window", "WINDOWS",
                  "MedicalImage", "Waveform", "DicomError"],
        "datasets": ["Dataset", "load", "from_folder", "from_table", "from_npz", "split"],
        "quality": ["audit", "audit_summary", "show_problems", "without_leaks", "rehearse", "denoise", "inpaint"],
    },
)
