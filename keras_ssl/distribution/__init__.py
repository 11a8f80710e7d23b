"""Strategies by name, and the collectives that make many replicas compute what one would."""

from keras_ssl.distribution.collectives import (
    gather,
    global_max,
    global_mean,
    global_sum,
    num_replicas,
    replica_id,
)
from keras_ssl.distribution.strategies import STRATEGIES, StrategyError, create_strategy

__all__ = [
    "STRATEGIES",
    "StrategyError",
    "create_strategy",
    "gather",
    "global_max",
    "global_mean",
    "global_sum",
    "num_replicas",
    "replica_id",
]
