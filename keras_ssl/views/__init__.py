"""What the network is shown: batched, stateless, XLA-compilable augmentation."""

from keras_ssl.views.crop import center_crop
from keras_ssl.views.customize import check, customize, describe
from keras_ssl.views.engine import ViewEngine, contact_sheet
from keras_ssl.views.recipes import RECIPES, ViewConfig, ViewRecipe, get, main_size, names

__all__ = [
    "RECIPES",
    "ViewConfig",
    "ViewEngine",
    "ViewRecipe",
    "center_crop",
    "check",
    "contact_sheet",
    "customize",
    "describe",
    "get",
    "main_size",
    "names",
]
