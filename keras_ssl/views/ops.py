"""All view operations under one name; see the files they come from."""

from keras_ssl.views.boxes import center_boxes, full_boxes, random_boxes
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
from keras_ssl.views.planes import as_float
from keras_ssl.views.spatial import blur_radius, flip, gaussian_blur, pad_and_crop, rotate

__all__ = [
    "as_float",
    "blur_radius",
    "brightness",
    "center_boxes",
    "center_crop",
    "color_jitter",
    "contrast",
    "crop_and_resize",
    "flip",
    "full_boxes",
    "gaussian_blur",
    "grayscale",
    "hue",
    "pad_and_crop",
    "random_boxes",
    "resize_weights",
    "rotate",
    "saturation",
    "solarize",
]
