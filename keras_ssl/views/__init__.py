"""What the network is shown: batched, stateless, XLA-compilable augmentation."""

from keras_ssl.views.config import ViewConfig, ViewRecipe
from keras_ssl.views.crop import center_crop
from keras_ssl.views.customize import check, customize, describe
from keras_ssl.views.engine import ViewEngine
from keras_ssl.views.exact import ExactCrops
from keras_ssl.views.multi_crop import multi_crop
from keras_ssl.views.recipes import RECIPES, get, main_size, names
from keras_ssl.views.sheet import contact_sheet
from keras_ssl.views.tiles import TileConfig

__all__ = [
    "RECIPES",
    "ExactCrops",
    "TileConfig",
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
    "multi_crop",
    "names",
]
