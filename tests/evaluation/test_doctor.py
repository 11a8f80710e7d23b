"""Each finding of the doctor, once where it must appear and once where it must not."""

import math

import numpy as np
import pytest

from keras_ssl.evaluation import doctor, measures

LATE = {"step": 5000, "total_steps": 10_000}


def names(stats):
    return [finding.name for finding in doctor.diagnose(stats)]


# name, severity, statistics that show it, statistics that do not
CASES = [
    ("not_finite", "error", {"loss": math.nan}, {"loss": 1.0}),
    ("not_finite", "error", {"gradient_norm": math.inf}, {"gradient_norm": 3.0}),
    ("not_finite", "error", {"nonfinite_steps": 2}, {"nonfinite_steps": 0}),
    (
        "embedding_collapse",
        "error",
        {"embedding_std": 0.005, "embedding_dim": 128},
        {"embedding_std": 0.08, "embedding_dim": 128},
    ),
    (
        "embedding_crowded",
        "warning",
        {"embedding_std": 0.02, "embedding_dim": 128},
        {"embedding_std": 0.02, "embedding_dim": 2048},
    ),
    (
        "dimensional_collapse",
        "error",
        {"effective_rank": 1.2, "embedding_dim": 128, **LATE},
        {"effective_rank": 40.0, "embedding_dim": 128, **LATE},
    ),
    (
        "dimensional_collapse",
        "warning",
        {"effective_rank": 5.0, "embedding_dim": 128, **LATE},
        {"effective_rank": 5.0, "embedding_dim": 128, "num_embeddings": 33, **LATE},
    ),
    (
        "loss_parked",
        "error",
        {"loss": 6.22, "trivial_loss": {"ln(2N - 1)": math.log(511)}, **LATE},
        {"loss": 5.9, "trivial_loss": {"ln(2N - 1)": math.log(511)}, **LATE},
    ),
    (
        "loss_parked",
        "error",
        {"loss": -0.004, "trivial_loss": {"unrelated views": 0.0}, **LATE},
        {"loss": -0.9, "trivial_loss": {"unrelated views": 0.0}, **LATE},
    ),
    (
        "loss_parked",
        "error",
        {"loss": 0.995, "trivial_loss": 1.0, **LATE},
        {"loss": 0.45, "trivial_loss": 1.0, **LATE},
    ),
    (
        "loss_collapsed",
        "warning",
        {"loss": 0.01, "trivial_loss": 4.0, "collapsed_loss": {"equal outputs": 0.0}},
        {"loss": 0.2, "trivial_loss": 4.0, "collapsed_loss": {"equal outputs": 0.0}},
    ),
    (
        "loss_collapsed",
        "warning",
        {"loss": -0.999, "collapsed_loss": -1.0},
        {"loss": -0.92, "collapsed_loss": -1.0},
    ),
    ("no_gradient", "error", {"gradient_norm": 0.0}, {"gradient_norm": 1e-3}),
    ("views_inert", "error", {"view_difference": 0.001}, {"view_difference": 0.15}),
    ("views_unrelated", "warning", {"view_agreement": 0.51}, {"view_agreement": 0.75}),
    ("views_blank", "error", {"view_contrast": 0.004}, {"view_contrast": 0.2}),
    (
        "prototypes_unused",
        "warning",
        {"unused_prototypes": 0.6, **LATE},
        {"unused_prototypes": 0.3, **LATE},
    ),
    (
        "prototypes_unused",
        "error",
        {"unused_prototypes": 0.99, **LATE},
        {"unused_prototypes": 0.99, "step": 10},
    ),
    (
        "teacher_one_hot",
        "error",
        {"teacher_entropy": 1e-3, "num_outputs": 4096, **LATE},
        {"teacher_entropy": 4.0, "num_outputs": 4096, **LATE},
    ),
    (
        "teacher_uniform",
        "error",
        {
            "teacher_entropy": math.log(4096),
            "teacher_student_kl": 1e-4,
            "num_outputs": 4096,
            **LATE,
        },
        {
            "teacher_entropy": math.log(4096),
            "teacher_student_kl": 0.5,
            "num_outputs": 4096,
            **LATE,
        },
    ),
]


@pytest.mark.parametrize(("name", "severity", "sick", "healthy"), CASES)
def test_finding_appears_and_stays_away(name, severity, sick, healthy):
    [finding] = doctor.diagnose(sick)
    assert (finding.name, finding.severity) == (name, severity)
    assert finding.sentence.endswith(".")
    assert finding.remedy.endswith(".")
    assert doctor.diagnose(healthy) == []


def test_every_check_has_a_case():
    covered = {name for name, *_ in CASES}
    source = set()
    for check in doctor._CHECKS:
        source |= {
            text for text in check.__code__.co_consts if isinstance(text, str) and text in covered
        }
    assert source | {"not_finite"} == covered
    assert len(doctor._CHECKS) == 10


@pytest.mark.parametrize(
    ("step", "total_steps", "parked"),
    [(50, 300, False), (100, 300, True), (900, 10_000, False), (1000, 10_000, True)],
)
def test_a_trivial_loss_is_excused_at_the_start(step, total_steps, parked):
    stats = {"loss": 1.386, "trivial_loss": math.log(4), "step": step, "total_steps": total_steps}
    assert names(stats) == (["loss_parked"] if parked else [])


def test_collapsed_embeddings_are_found_at_the_first_step():
    assert names({"embedding_std": 0.0, "embedding_dim": 8, "step": 0}) == ["embedding_collapse"]


def test_several_findings_list_errors_first():
    stats = {"view_agreement": 0.5, "loss": math.nan}
    assert names(stats) == ["not_finite", "views_unrelated"]


def test_absent_numbers_find_nothing_and_wrong_names_are_refused():
    assert doctor.diagnose({}) == []
    assert doctor.diagnose({"loss": None, "trivial_loss": 1.0}) == []
    with pytest.raises(ValueError, match=r"Received: \['embeding_std'\]"):
        doctor.diagnose({"embeding_std": 0.0})


def test_a_sentence_holds_the_numbers():
    [finding] = doctor.diagnose({"loss": 6.236, "trivial_loss": {"ln(2N - 1)": 6.2364}, **LATE})
    assert "6.236" in finding.sentence
    assert "ln(2N - 1)" in finding.sentence


def test_measured_embeddings_reach_the_right_verdict():
    generator = np.random.default_rng(0)
    healthy = generator.normal(size=(512, 64))
    point = np.ones(64) + 1e-3 * generator.normal(size=(512, 64))
    line = generator.normal(size=(512, 1)) * np.ones(64) + 1e-3 * healthy

    def verdict(embeddings):
        return names(
            {
                "embedding_std": measures.embedding_std(embeddings),
                "effective_rank": measures.effective_rank(embeddings),
                "embedding_dim": 64,
                "num_embeddings": 512,
            }
        )

    assert verdict(healthy) == []
    assert verdict(point) == ["embedding_collapse"]
    assert verdict(line) == ["dimensional_collapse"]


def smooth_images(count=64):
    generator = np.random.default_rng(1)
    return np.repeat(np.repeat(generator.random((count, 4, 4, 3)), 4, axis=1), 4, axis=2)


def test_view_stats_by_hand():
    """View b adds 0.25 to a; half of the pixels are 0 and half 1, so their standard deviation is 0.5."""
    a = np.concatenate([np.zeros((2, 2, 4, 3)), np.ones((2, 2, 4, 3))], axis=1)
    assert measures.view_stats(a, a + 0.25) == {"view_difference": 0.25, "view_contrast": 0.5}
    with pytest.raises(ValueError, match=r"one shape.*view_b.shape=\(1, 4, 4, 3\)"):
        measures.view_stats(a, a[:1])


def test_view_agreement_equals_a_slow_loop():
    generator = np.random.default_rng(0)
    a, b = smooth_images(33), smooth_images(33) + generator.random((33, 16, 16, 3))
    b[:5] = generator.random((5, 16, 16, 3))
    wins = 0
    for i in range(33):
        scores = []
        for j in range(33):
            pair = [x.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3)).ravel() for x in (a[i], b[j])]
            scores.append(np.corrcoef(pair)[0, 1])
        wins += sum(scores[i] > scores[j] for j in range(33) if j != i)
    expected = wins / (33 * 32)
    assert 0.5 < expected < 1.0
    assert measures.view_stats(a, b)["view_agreement"] == pytest.approx(expected)


def test_views_reach_the_right_verdict():
    a = smooth_images()
    assert names(measures.view_stats(a, 0.7 * np.roll(a, 2, axis=2))) == []
    assert names(measures.view_stats(a, a)) == ["views_inert"]
    assert names(measures.view_stats(a, np.roll(a, 1, axis=0))) == ["views_unrelated"]
    gray = np.full_like(a, 0.5)
    assert "views_blank" in names(measures.view_stats(gray, gray + 0.05))
