"""Rows of VISSL's model zoo: names, accuracies as VISSL measured them, paths below its address.

The eight digits in the names of folders are an experiment's number, not a hash.
"""

from __future__ import annotations

IN1K, IN22K, YFCC = "ImageNet-1K", "ImageNet-22K", "YFCC100M"
_JIGSAW = "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_"
FINAL = "/model_final_checkpoint_phase"
_PERMUTATIONS = "All three Jigsaw folders are named after 2K permutations; the label is the table's, the path decides."
CAFFE2 = "Converted from a Caffe2 file of the 2019 benchmark."
_VIEWS = "2x224+6x96, batch size {}."

# name, method, backbone, width, data, epochs, linear, path, notes
RESNETS = (
    (
        "vissl_jigsaw_rn50_perm100",
        "jigsaw",
        "resnet50",
        1,
        IN1K,
        105,
        48.57,
        f"{_JIGSAW}17_07_20.db174a43{FINAL}104.torch",
        _PERMUTATIONS,
    ),
    (
        "vissl_jigsaw_rn50_perm2k",
        "jigsaw",
        "resnet50",
        1,
        IN1K,
        105,
        46.73,
        f"{_JIGSAW}17_07_20.cccee144{FINAL}104.torch",
        _PERMUTATIONS,
    ),
    (
        "vissl_jigsaw_rn50_perm10k",
        "jigsaw",
        "resnet50",
        1,
        IN1K,
        105,
        48.11,
        f"{_JIGSAW}20_07_20.3d706467{FINAL}104.torch",
        _PERMUTATIONS,
    ),
    (
        "vissl_jigsaw_rn50_perm2k_in22k",
        "jigsaw",
        "resnet50",
        1,
        IN22K,
        105,
        44.84,
        "converted_vissl_jigsaw_rn50_perm2k_in22k_8gpu_ep105.torch",
    ),
    *(
        (
            f"vissl_jigsaw_rn50_goyal19_{tag}",
            "jigsaw",
            "resnet50",
            1,
            data,
            None,
            linear,
            f"converted_vissl_rn50_jigsaw_{tag}_goyal19.torch",
            CAFFE2,
        )
        for tag, data, linear in (
            ("in1k", IN1K, 46.58),
            ("in22k", IN22K, 53.09),
            ("yfcc100m", YFCC, 51.37),
        )
    ),
    (
        "vissl_rotnet_rn50",
        "rotnet",
        "resnet50",
        1,
        IN1K,
        105,
        48.2,
        f"rotnet_rn50_in1k_ep105_rotnet_8gpu_resnet_17_07_20.46bada9f{FINAL}125.torch",
    ),
    (
        "vissl_rotnet_rn50_in22k",
        "rotnet",
        "resnet50",
        1,
        IN22K,
        105,
        54.89,
        "converted_vissl_rn50_rotnet_in22k_ep105.torch",
    ),
    (
        "vissl_clusterfit_rn50",
        "clusterfit",
        "resnet50",
        1,
        IN1K,
        105,
        53.63,
        "converted_vissl_rn50_rotnet_16kclusters_in1k_ep105.torch",
        "16K clusters of RotNet's features.",
    ),
    (
        "vissl_npid_rn50_converted",
        "npid",
        "resnet50",
        1,
        IN1K,
        None,
        54.99,
        "converted_vissl_rn50_npid_lemniscate_neg4k_stepLR_8gpu.torch",
        "Converted from the authors' file.",
    ),
    (
        "vissl_npid_rn50",
        "npid",
        "resnet50",
        1,
        IN1K,
        200,
        52.73,
        f"npid_1node_200ep_4kneg_npid_8gpu_resnet_23_07_20.9eb36512{FINAL}199.torch",
        "4k negatives.",
    ),
    (
        "vissl_npidpp_rn50",
        "npid_pp",
        "resnet50",
        1,
        IN1K,
        800,
        56.68,
        f"npid_pp/4node_800ep_32kneg_cosine_resnet_23_07_20.75432662{FINAL}799.torch",
        "32k negatives.",
    ),
    (
        "vissl_npidpp_rn50w2",
        "npid_pp",
        "resnet50",
        2,
        IN1K,
        800,
        62.73,
        "npid_4node_800ep_32kneg_cosine_rn50w2_npid++_4nodes_resnet_27_07_20.b7f4016c"
        f"{FINAL}799.torch",
        "32k negatives.",
    ),
    (
        "vissl_pirl_rn50_200ep",
        "pirl",
        "resnet50",
        1,
        IN1K,
        200,
        62.55,
        f"pirl_jigsaw_4node_200ep_pirl_jigsaw_4node_resnet_22_07_20.ffd17b75{FINAL}199.torch",
    ),
    (
        "vissl_pirl_rn50",
        "pirl",
        "resnet50",
        1,
        IN1K,
        800,
        64.29,
        f"pirl_jigsaw_4node_pirl_jigsaw_4node_resnet_22_07_20.34377f59{FINAL}799.torch",
    ),
    *(
        (f"pirl_{tag}", "pirl", "resnet50", width, IN1K, epochs, linear, path, "PIRL's own page.")
        for tag, width, epochs, linear, path in (
            ("rn50_200ep", 1, 200, 62.9, f"pirl/r50_200ep{FINAL}199.torch"),
            ("rn50_200ep_mlp", 1, 200, 65.8, f"pirl/r50_200ep_mlp_gblur{FINAL}199.torch"),
            ("rn50_800ep_mlp", 1, 800, 69.9, f"pirl/r50_800ep_mlphead_gblur{FINAL}799.torch"),
            ("rn50w2_400ep", 2, 400, 69.3, f"pirl/w2_400ep{FINAL}399.torch"),
            ("rn50w2_400ep_mlp", 2, 400, 70.9, f"pirl/r50w2_400ep_mlphead_gblur{FINAL}399.torch"),
        )
    ),
    *(
        (
            f"vissl_simclr_{model}_{epochs}ep",
            "simclr",
            {"rn101": "resnet101"}.get(model, "resnet50"),
            {"rn50w2": 2, "rn50w4": 4}.get(model, 1),
            IN1K,
            epochs,
            linear,
            f"simclr_{model}_{epochs}ep_{tail}{FINAL}{epochs - 1}.torch",
        )
        for model, epochs, linear, tail in (
            ("rn50", 100, 64.4, "simclr_8node_resnet_16_07_20.8edb093e"),
            ("rn50", 200, 66.61, "simclr_8node_resnet_16_07_20.a816c0ef"),
            ("rn50", 400, 67.71, "simclr_8node_resnet_16_07_20.36b338ef"),
            ("rn50", 800, 69.68, "simclr_8node_resnet_16_07_20.7e8feed1"),
            ("rn50", 1000, 68.8, "simclr_8node_resnet_16_07_20.afe428c7"),
            ("rn50w2", 100, 69.82, "simclr_8node_resnet_16_07_20.05b37ec3"),
            ("rn50w2", 1000, 73.84, "simclr_8node_resnet_16_07_20.e1e3bbf0"),
            ("rn50w4", 1000, 71.61, "bs32_16node_simclr_8node_resnet_28_07_20.9e20b0ae"),
            ("rn101", 100, 62.76, "simclr_8node_resnet_16_07_20.1ff6cb4b"),
            ("rn101", 1000, 71.56, "simclr_8node_resnet_16_07_20.35063cea"),
        )
    ),
    *(
        (
            f"vissl_swav_rn50_{epochs}ep{tag}",
            "swav",
            "resnet50",
            1,
            IN1K,
            epochs,
            linear,
            f"{path}{FINAL}{epochs - 1}.torch",
            _VIEWS.format(256 if "bs256" in tag else 4096) if tag != "_2x224" else "2x224.",
        )
        for epochs, tag, linear, path in (
            (100, "", 71.99, "swav_in1k_rn50_100ep_swav_8node_resnet_27_07_20.7e6fc6bf"),
            (200, "", 73.85, "swav_in1k_rn50_200ep_swav_8node_resnet_27_07_20.bd595bb0"),
            (400, "", 74.81, "swav_in1k_rn50_400ep_swav_8node_resnet_27_07_20.a5990fc9"),
            (800, "", 74.92, "swav_in1k_rn50_800ep_swav_8node_resnet_27_07_20.a0a6b676"),
            (
                200,
                "_bs256",
                73.07,
                "swav_4gpu_bs64_200ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.a8f2c735",
            ),
            (
                400,
                "_bs256",
                74.3,
                "swav_4gpu_bs64_400ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.5e967ca0",
            ),
            (
                400,
                "_2x224",
                69.53,
                "swav_8node_2x224_rn50_in1k_swav_8node_resnet_30_07_20.c8fd7169",
            ),
        )
    ),
    (
        "vissl_swav_rn50w2_400ep",
        "swav",
        "resnet50",
        2,
        IN1K,
        400,
        77.01,
        f"swav_rn50w2_in1k_bs32_16node_400ep_swav_8node_resnet_30_07_20.93563e51{FINAL}399.torch",
        _VIEWS.format(4096),
    ),
    (
        "vissl_swav_rn50w4_400ep",
        "swav",
        "resnet50",
        4,
        IN1K,
        400,
        77.03,
        f"swav_rn50w4_in1k_bs40_8node_400ep_swav_8node_resnet_30_07_20.1736135b{FINAL}399.torch",
        _VIEWS.format(2560),
    ),
    (
        "vissl_moco_v2_rn50_200ep",
        "moco_v2",
        "resnet50",
        1,
        IN1K,
        200,
        66.4,
        f"moco_v2_1node_lr.03_step_b32_zero_init{FINAL}199.torch",
        "Batch size 256.",
    ),
    *(
        (
            f"vissl_barlowtwins_rn50_{epochs}ep",
            "barlow_twins",
            "resnet50",
            1,
            IN1K,
            epochs,
            linear,
            f"barlow_twins/barlow_twins_32gpus_4node_imagenet1k_{epochs}ep_resnet50.torch",
            "Batch size 2048.",
        )
        for epochs, linear in ((300, 70.75), (1000, 71.80))
    ),
)
