"""Says from a run's numbers whether learning has failed, why, and what to try.

Nothing here reads a run or prints; a run measures, calls `diagnose` and shows the findings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Steps before "the loss has not moved" means something: losses start at their trivial value, and the learning rate
# is still warming up in the first tenth of the usual recipes.
PATIENCE_STEPS, PATIENCE_SHARE = 100, 0.1
# Share of |trivial loss| (at least of 1) within which the loss counts as parked there: 0.06 for NT-Xent with N = 256
# (6.24), 0.014 for four rotations (1.386). Learning passes it within an epoch; batch noise does not reach it.
PARKED = 0.01
# Standard deviation of the unit embeddings over 1 / sqrt(dim). Its square is 1 - mean pairwise cosine, so 0.1 means
# a mean cosine of 0.99 and 0.3 one of 0.91.
STD_COLLAPSED, STD_LOW = 0.1, 0.3
# Effective rank over its largest possible value; a random network's features already reach about 0.02, trained
# embeddings 0.1 to 0.6. Two directions or fewer cannot hold more than a handful of classes.
RANK_LOW, RANK_COLLAPSED = 0.05, 2.0
# Mean absolute difference of two views, images in [0, 1]: 0.01 is 2.5 gray levels, the size of JPEG noise; crops with
# flips give above 0.1.
VIEW_DIFFERENCE_LOW = 0.01
# Probability that an image's own other view is the more alike. On 64 batches of 64 CIFAR-10 images SimCLR's views gave
# 0.68 to 0.82, views of unrelated images 0.42 to 0.60.
VIEW_AGREEMENT_LOW = 0.6
# Standard deviation of the pixels inside a view: 0.02 is 5 gray levels, a blank picture to the eye.
VIEW_CONTRAST_LOW = 0.02
# Share of prototypes without a sample over an epoch: a few are normal, most means the codes have collapsed.
UNUSED_LOW, UNUSED_COLLAPSED = 0.5, 0.9
# Teacher entropy over ln K: below 0.01 it is one-hot for all samples, above 0.99 uniform.
ENTROPY_LOW, ENTROPY_HIGH, DIVERGENCE_LOW = 0.01, 0.99, 0.01

STATS = {
    "step": "int. Steps taken so far.",
    "total_steps": "int. Steps of the whole run.",
    "loss": "float. Mean over the latest steps.",
    "trivial_loss": "float or dict from name to float. What the loss is when nothing is learned.",
    "collapsed_loss": "float or dict from name to float. What the loss is when the output is constant.",
    "gradient_norm": "float. Global norm, before clipping.",
    "nonfinite_steps": "int. Recent steps whose loss or gradient was NaN or infinite.",
    "embedding_std": "float. `measures.embedding_std` of the projections.",
    "embedding_dim": "int. Dimension of those embeddings.",
    "effective_rank": "float. `measures.effective_rank` of the projections.",
    "num_embeddings": "int. Samples that the effective rank was measured on.",
    "view_difference": "float. Mean absolute difference of two views of one image, in [0, 1].",
    "view_agreement": "float in [0, 1]. How often an image's own other view is the more alike: `measures.view_stats`.",
    "view_contrast": "float. Mean standard deviation of the pixels inside a view.",
    "unused_prototypes": "float in [0, 1]. Share of prototypes that no sample was assigned to.",
    "teacher_entropy": "float. Mean entropy of the teacher's softmax, in nats.",
    "teacher_student_kl": "float. Mean KL(teacher || student), in nats.",
    "num_outputs": "int. K, the number of softmax outputs.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: str. Short and fixed, for logs and tests.
        severity: `"error"` when the run is not learning, `"warning"` when it should be looked at.
        sentence: str. What was seen, with the numbers.
        remedy: str. What to try.
    """

    name: str
    severity: Literal["error", "warning"]
    sentence: str
    remedy: str


def diagnose(stats: Mapping[str, Any]) -> list[Finding]:
    """Names what is wrong with a run.

    A check whose numbers are absent or None is left out. Checks that compare with a starting value wait for
    100 steps, or a tenth of the run if that is longer.

    Args:
        stats: dict. Any of the keys of `STATS`, which says what each one means.

    Returns:
        list of `Finding`, errors first; empty when nothing was found.

    Raises:
        ValueError: If a key is not one of `STATS`.
    """
    unknown = sorted(set(stats) - set(STATS))
    if unknown:
        raise ValueError(f"Statistics must be among {sorted(STATS)}. Received: {unknown}")
    given = {name: value for name, value in stats.items() if value is not None}
    bad = [name for name, value in given.items() if not _is_finite(value)]
    usable = {name: value for name, value in given.items() if name not in bad}
    findings = [_not_finite(given, bad)] + [check(usable) for check in _CHECKS]
    found = [finding for finding in findings if finding is not None]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _named_values(value: Any) -> dict[str, float]:
    """Returns `{name: value}` for a number or a dict of numbers."""
    return dict(value) if isinstance(value, Mapping) else {"trivial": float(value)}


def _patience_over(stats: Mapping[str, Any]) -> bool:
    """Returns whether enough steps were taken; without a step count the caller has decided."""
    patience = max(PATIENCE_STEPS, PATIENCE_SHARE * stats.get("total_steps", 0))
    return stats.get("step", math.inf) >= patience


def _is_finite(value: Any) -> bool:
    return isinstance(value, Mapping) or math.isfinite(value)


def _not_finite(stats: Mapping[str, Any], bad: list[str]) -> Finding | None:
    steps = int(stats.get("nonfinite_steps", 0))
    if not bad and not steps:
        return None
    sources = ([f"{steps} recent step(s)"] if steps else []) + bad
    return Finding(
        "not_finite",
        "error",
        f"NaN or infinity appeared in {', '.join(sources)}.",
        "Begin again with a lower learning rate or a longer warm-up, and clip the gradient; "
        "in float16 use bfloat16 or float32 instead.",
    )


def _embeddings_collapsed(stats: Mapping[str, Any]) -> Finding | None:
    if not {"embedding_std", "embedding_dim"} <= stats.keys():
        return None
    healthy = 1.0 / math.sqrt(stats["embedding_dim"])
    share = stats["embedding_std"] / healthy
    if share >= STD_LOW:
        return None
    collapsed = share < STD_COLLAPSED
    return Finding(
        "embedding_collapse" if collapsed else "embedding_crowded",
        "error" if collapsed else "warning",
        f"The embeddings {'are nearly' if collapsed else 'tend to'} one point: their standard deviation is "
        f"{stats['embedding_std']:.2g}, spread evenly it would be {healthy:.2g}.",
        "Check that the teacher or the stop-gradient is in place, keep batch-norm in the projector and the predictor, "
        "raise the weight of the negatives or of the variance term, lower the learning rate.",
    )


def _dimensions_collapsed(stats: Mapping[str, Any]) -> Finding | None:
    if not {"effective_rank", "embedding_dim"} <= stats.keys() or not _patience_over(stats):
        return None
    largest = min(stats["embedding_dim"], stats.get("num_embeddings", math.inf) - 1)
    rank = stats["effective_rank"]
    if rank >= max(RANK_LOW * largest, RANK_COLLAPSED) or largest <= RANK_COLLAPSED:
        return None
    return Finding(
        "dimensional_collapse",
        "error" if rank < RANK_COLLAPSED else "warning",
        f"The embeddings use about {rank:.1f} of {largest:.0f} dimensions.",
        "Use a wider or deeper projector, stronger views, a higher temperature or a larger decorrelation term; "
        "a longer warm-up helps when it happens early.",
    )


def _loss_parked(stats: Mapping[str, Any]) -> Finding | None:
    if not {"loss", "trivial_loss"} <= stats.keys() or not _patience_over(stats):
        return None
    for name, value in _named_values(stats["trivial_loss"]).items():
        if abs(stats["loss"] - value) <= PARKED * max(abs(value), 1.0):
            return Finding(
                "loss_parked",
                "error",
                f"The loss is {stats['loss']:.4g}: what it is when nothing is learned ({name} = {value:.4g}).",
                "Raise the learning rate or shorten the warm-up, check that gradients reach the backbone, weaken "
                "the views or raise the temperature if the task is too hard.",
            )
    return None


def _loss_collapsed(stats: Mapping[str, Any]) -> Finding | None:
    if not {"loss", "collapsed_loss"} <= stats.keys():
        return None
    for name, value in _named_values(stats["collapsed_loss"]).items():
        starts = _named_values(stats.get("trivial_loss", value + 1.0)).values()
        span = max(abs(start - value) for start in starts)
        if abs(stats["loss"] - value) <= PARKED * span:
            return Finding(
                "loss_collapsed",
                "warning",
                f"The loss is {stats['loss']:.4g}: what a constant output gives ({name} = {value:.4g}).",
                "Look at the standard deviation of the embeddings: near zero, the network has collapsed (check "
                "teacher, stop-gradient and batch-norm); if it is healthy, the views are too easy.",
            )
    return None


def _gradient_gone(stats: Mapping[str, Any]) -> Finding | None:
    if stats.get("gradient_norm", 1.0) != 0.0:
        return None
    return Finding(
        "no_gradient",
        "error",
        "The gradient is exactly zero.",
        "Check that the loss depends on trainable variables: a stop-gradient too many, a frozen backbone, or "
        "embeddings that are all equal.",
    )


def _views_inert(stats: Mapping[str, Any]) -> Finding | None:
    if stats.get("view_difference", 1.0) >= VIEW_DIFFERENCE_LOW:
        return None
    return Finding(
        "views_inert",
        "error",
        f"Two views of an image differ by {stats['view_difference']:.2g} on average: the augmentation does nothing.",
        "Check the view recipe's probabilities and strengths, and that each view gets its own random numbers.",
    )


def _views_unrelated(stats: Mapping[str, Any]) -> Finding | None:
    if stats.get("view_agreement", 1.0) >= VIEW_AGREEMENT_LOW:
        return None
    return Finding(
        "views_unrelated",
        "warning",
        f"A view of the same image is the more alike one in {stats['view_agreement']:.0%} of comparisons, chance is "
        "50%: little ties the two views together.",
        "Use larger crops and weaker color changes, and check that both views come from the same image.",
    )


def _views_blank(stats: Mapping[str, Any]) -> Finding | None:
    if stats.get("view_contrast", 1.0) >= VIEW_CONTRAST_LOW:
        return None
    return Finding(
        "views_blank",
        "error",
        f"The views are nearly constant: pixels inside a view vary by {stats['view_contrast']:.2g} on average.",
        "Check the range of the images (0 to 255 as uint8, or 0 to 1 as float) and the strength of crop, blur and "
        "brightness.",
    )


def _prototypes_unused(stats: Mapping[str, Any]) -> Finding | None:
    share = stats.get("unused_prototypes", 0.0)
    if share <= UNUSED_LOW or not _patience_over(stats):
        return None
    return Finding(
        "prototypes_unused",
        "error" if share > UNUSED_COLLAPSED else "warning",
        f"{share:.0%} of the prototypes have no sample.",
        "Use fewer prototypes, more Sinkhorn iterations or a larger epsilon, a larger batch or queue, and keep the "
        "prototypes frozen during the first epoch.",
    )


def _teacher_degenerate(stats: Mapping[str, Any]) -> Finding | None:
    if not {"teacher_entropy", "num_outputs"} <= stats.keys() or not _patience_over(stats):
        return None
    share = stats["teacher_entropy"] / math.log(stats["num_outputs"])
    uniform = share > ENTROPY_HIGH and stats.get("teacher_student_kl", math.inf) < DIVERGENCE_LOW
    if share >= ENTROPY_LOW and not uniform:
        return None
    return Finding(
        "teacher_uniform" if uniform else "teacher_one_hot",
        "error",
        f"The teacher's entropy is {share:.1%} of the largest possible: it "
        f"{'says nothing about any image' if uniform else 'gives each image one output with certainty'}.",
        "Lower the teacher temperature or the center's momentum."
        if uniform
        else "Turn centering on or make it faster, and raise the teacher temperature.",
    )


_CHECKS: tuple[Callable[[Mapping[str, Any]], Finding | None], ...] = (
    _embeddings_collapsed,
    _dimensions_collapsed,
    _loss_parked,
    _loss_collapsed,
    _gradient_gone,
    _views_inert,
    _views_unrelated,
    _views_blank,
    _prototypes_unused,
    _teacher_degenerate,
)
