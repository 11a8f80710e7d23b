"""Features of whole folders in one file, and the nearest images in it."""

from keras_ssl.embedding.embed import Embedded, embed_folder
from keras_ssl.embedding.files import Features, read_features
from keras_ssl.embedding.index import SearchIndex, build_index
from keras_ssl.embedding.search import Query, embed_queries, find_neighbors, neighbor_records
from keras_ssl.embedding.sheet import search_sheet

__all__ = [
    "Embedded",
    "Features",
    "Query",
    "SearchIndex",
    "build_index",
    "embed_folder",
    "embed_queries",
    "find_neighbors",
    "neighbor_records",
    "read_features",
    "search_sheet",
]
