"""Part 1, from scanner to array."""
import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "dicom", "preprocess",
        "quality", "auditing", "augmentation", "datasets", "image_files", "sources", "phantoms",
        "data_cards", "assembly", "xray", "copies", "label_check", "findings", "patients",
    ],
    submod_attrs={
        "dicom": ["read_image", "read_series", "read_waveform", "write_image", "index_folder",
                  "window", "WINDOWS", "MedicalImage", "Waveform", "DicomError"],
        "quality": ["add_noise", "noise_level", "denoise", "denoise_dataset", "map_images",
                    "lesion_contrast", "inpaint", "even_slices", "fill_series",
                    "series_with_mask", "time_since"],
        "auditing": ["audit", "audit_summary", "show_problems", "without_leaks", "rehearse",
                     "plant_faults"],
        "augmentation": ["augmenter", "RandomAffine", "RandomIntensity", "RandomErase",
                         "affine_matrix", "warp", "transform_together", "move_boxes", "mask_box"],
        "datasets": ["Dataset", "split", "shared_patients"],
        "image_files": ["DataError", "ImageFiles", "MappedFiles", "pixel_hashes"],
        "sources": ["load", "from_folder", "from_table", "from_npz"],
        "phantoms": ["chest_radiograph", "ct_slice", "ecg", "study", "write_study", "Phantom"],
        "data_cards": ["Card", "cards", "card_table"],
        "assembly": ["from_arrays"],
        "xray": ["hounsfield"],
        "copies": ["close_pairs", "odd_views"],
        "label_check": ["doubtful_labels", "out_of_fold"],
        "patients": ["Patient", "Nodule", "draw_patient", "draw_pose"],
    },
)
