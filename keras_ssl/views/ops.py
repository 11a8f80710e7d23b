"""All view operations under one name; see the files they come from."""

from keras_ssl.views.boxes import center_boxes, full_boxes, random_boxes, random_squares
from keras_ssl.views.color import (
    brightness,
    color_jitter,
    contrast,
    grayscale,
    hue,
    saturation,
    solarize,
)
from keras_ssl.views.crop import center_crop, crop_and_resize, resize_weights
from keras_ssl.views.lab import (
    bin_weights,
    color_bins,
    decode_bins,
    lab_to_rgb,
    lightness_bins,
    nearest_bin,
    rgb_to_lab,
    soft_bins,
    split_lab,
)
from keras_ssl.views.masks import (
    block_mask,
    context_and_targets,
    mask_counts,
    random_mask,
    stratified_mask_counts,
)
from keras_ssl.views.permutations import jigsaw_permutations
from keras_ssl.views.photometric import autocontrast, photometric, posterize, sharpness
from keras_ssl.views.planes import as_float
from keras_ssl.views.pretext import (
    downsample,
    drop_colors,
    project_colors,
    random_sides,
    sobel,
    standardize,
)
from keras_ssl.views.spatial import blur_radius, flip, gaussian_blur, pad_and_crop, rotate
from keras_ssl.views.tiles import (
    TileConfig,
    cut_patches,
    grid_tiles,
    neighbor_pairs,
    patch_grid,
    permute_tiles,
    random_pair,
)

__all__ = [
    "TileConfig",
    "as_float",
    "autocontrast",
    "bin_weights",
    "block_mask",
    "blur_radius",
    "brightness",
    "center_boxes",
    "center_crop",
    "color_bins",
    "color_jitter",
    "context_and_targets",
    "contrast",
    "crop_and_resize",
    "cut_patches",
    "decode_bins",
    "downsample",
    "drop_colors",
    "flip",
    "full_boxes",
    "gaussian_blur",
    "grayscale",
    "grid_tiles",
    "hue",
    "jigsaw_permutations",
    "lab_to_rgb",
    "lightness_bins",
    "mask_counts",
    "nearest_bin",
    "neighbor_pairs",
    "pad_and_crop",
    "patch_grid",
    "permute_tiles",
    "photometric",
    "posterize",
    "project_colors",
    "random_boxes",
    "random_mask",
    "random_pair",
    "random_sides",
    "random_squares",
    "resize_weights",
    "rgb_to_lab",
    "rotate",
    "saturation",
    "sharpness",
    "sobel",
    "soft_bins",
    "solarize",
    "split_lab",
    "standardize",
    "stratified_mask_counts",
]
