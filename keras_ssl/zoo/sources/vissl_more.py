"""Rows of VISSL's model zoo: RegNets, SEER, AlexNets and the ResNets of colorization, with VISSL's accuracies."""

from __future__ import annotations

from keras_ssl.zoo.sources.vissl_rows import FINAL, IN1K, IN22K, YFCC

# name, method, backbone, data, epochs, linear, path
REGNETS = (
    (
        "vissl_swav_regnety16gf",
        "swav",
        "regnety_16gf",
        IN1K,
        800,
        76.15,
        "swav_regnet16_in1k/swav_in1k_regnet16gf_model_final_checkpoint_phase799.torch",
    ),
    (
        "vissl_swav_regnety128gf",
        "swav",
        "regnety_128gf",
        IN1K,
        400,
        78.36,
        "swav_regnet128_in1k/model_phase230.torch",
    ),
)

# name, backbone, linear, path
SEER = (
    (
        "seer_regnety32gf",
        "regnety_32gf",
        74.03,
        "seer_regnet32d/seer_regnet32gf_model_iteration244000.torch",
    ),
    (
        "seer_regnety64gf",
        "regnety_64gf",
        75.25,
        "seer_regnet64/seer_regnet64gf_model_final_checkpoint_phase0.torch",
    ),
    (
        "seer_regnety128gf",
        "regnety_128gf",
        75.96,
        "swav_ig1b_regnet128Gf_cnstant_bs32_node16_sinkhorn10_proto16k_syncBN64_warmup8k"
        f"{FINAL}0.torch",
    ),
    (
        "seer_regnety256gf",
        "regnety_256gf",
        77.51,
        "swav_ig1b_cosine_rg256gf_noBNhead_wd1e5_fairstore_bs16_node64_sinkhorn10_proto16k_apex_"
        f"syncBN64_warmup8k{FINAL}0.torch",
    ),
)

# name, backbone, path
SEER_TUNED = tuple(
    (
        f"seer_regnety{size}gf_finetuned",
        f"regnety_{size}gf",
        f"seer_finetuned/seer_regnet{size}_finetuned_in1k_model_final_checkpoint_phase{phase}.torch",
    )
    for size, phase in ((32, 78), (64, 78), (128, 78), (256, 38))
)

_GROUPED = {"first_border": 0, "groups": (1, 2, 1, 2, 2)}
ALEXNET_SETTINGS = {
    "jigsaw": {
        **_GROUPED,
        "stride": 2,
        "response_norm": True,
        "first_norm": 3,
    },
    "colorization": {**_GROUPED, "lightness": True},
    "deepcluster": {"sobel": True},
}
# name, method, layout, data, linear, path
ALEXNETS = tuple(
    (
        f"vissl_{method}_alexnet_{tag}",
        method,
        f"vissl_alexnet_{method}",
        data,
        linear,
        f"converted_alexnet_{method}_{tag}_pretext.torch",
    )
    for method, tag, data, linear in (
        ("jigsaw", "in1k", IN1K, 34.82),
        ("jigsaw", "in22k", IN22K, 37.5),
        ("jigsaw", "yfcc100m", YFCC, 37.01),
        ("colorization", "in1k", IN1K, 30.39),
        ("colorization", "in22k", IN22K, 36.83),
        ("colorization", "yfcc100m", YFCC, 34.19),
    )
) + (
    (
        "vissl_deepcluster_alexnet",
        "deepcluster",
        "vissl_alexnet_deepcluster",
        IN1K,
        37.88,
        "deepcluster_alexnet_checkpoint.torch",
    ),
)

# name, data, linear, path
COLORIZATION = tuple(
    (
        f"vissl_colorization_rn50_goyal19_{tag}",
        data,
        linear,
        f"converted_vissl_rn50_colorization_{tag}_goyal19.torch",
    )
    for tag, data, linear in (
        ("in1k", IN1K, 40.11),
        ("in22k", IN22K, 49.24),
        ("yfcc100m", YFCC, 47.46),
    )
)
