"""Strategies by name, and the collectives that make many replicas compute what one would."""

from keras_ssl.distribution.cluster import Cluster, StrategyError, read_cluster
from keras_ssl.distribution.collectives import (
    gather,
    global_max,
    global_mean,
    global_sum,
    num_replicas,
    replica_id,
)
from keras_ssl.distribution.strategies import STRATEGIES, create_strategy, planned_replicas

__all__ = [
    "STRATEGIES",
    "Cluster",
    "StrategyError",
    "create_strategy",
    "gather",
    "global_max",
    "global_mean",
    "global_sum",
    "num_replicas",
    "planned_replicas",
    "read_cluster",
    "replica_id",
]
