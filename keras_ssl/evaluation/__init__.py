"""What an encoder is worth: k-NN, linear probe, label-free measures, and the doctor."""

from keras_ssl.evaluation.doctor import STATS, Finding, diagnose
from keras_ssl.evaluation.features import (
    FeatureExtractor,
    default_crop_ratio,
    extract_features,
    probe_features,
)
from keras_ssl.evaluation.knn import knn_accuracy, knn_classify, nearest_neighbors
from keras_ssl.evaluation.linear import LinearProbeResult, SweepRow, linear_probe
from keras_ssl.evaluation.maps import attention_maps, patch_pca, pca_colors, save_maps
from keras_ssl.evaluation.measures import (
    alignment,
    effective_rank,
    embedding_std,
    label_free_report,
    mean_pairwise_cosine,
    rankme,
    uniformity,
    unused_share,
    view_stats,
)
from keras_ssl.evaluation.neighbors import neighbor_sheet, write_png
from keras_ssl.evaluation.report import (
    evaluate_encoder,
    print_results,
    results_table,
    split_indices,
    write_json,
)

__all__ = [
    "STATS",
    "FeatureExtractor",
    "Finding",
    "LinearProbeResult",
    "SweepRow",
    "alignment",
    "attention_maps",
    "default_crop_ratio",
    "diagnose",
    "effective_rank",
    "embedding_std",
    "evaluate_encoder",
    "extract_features",
    "knn_accuracy",
    "knn_classify",
    "label_free_report",
    "linear_probe",
    "mean_pairwise_cosine",
    "nearest_neighbors",
    "neighbor_sheet",
    "patch_pca",
    "pca_colors",
    "print_results",
    "probe_features",
    "rankme",
    "results_table",
    "save_maps",
    "split_indices",
    "uniformity",
    "unused_share",
    "view_stats",
    "write_json",
    "write_png",
]
