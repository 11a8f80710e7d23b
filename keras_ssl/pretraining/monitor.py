"""Whether the run learns: views before the first step, features every few epochs, findings with remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_ssl import evaluation, views
from keras_ssl.data import Source, open_source
from keras_ssl.evaluation import Finding
from keras_ssl.pretraining.build import views_of
from keras_ssl.pretraining.errors import writing

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run

_VIEW_IMAGES = 64
_ROWS = 8


class Monitor:
    """Looks at the encoder while it trains; changes nothing.

    RankMe and a sheet of nearest neighbors always; leave-one-out k-NN accuracy when there are labels.

    Args:
        run: Run. Set up; its journal and reporter exist.
    """

    def __init__(self, run: Run):
        self.run = run
        options, recipe = run.options, run.recipe
        self.every = options.monitor_every
        if self.every is None:
            self.every = max(1, recipe.epochs // 10)
        if not run.chief:  # the others wait for it in the next step
            self.every = 0
        self.last: dict[str, float] = {}
        self._said: set[str] = set()
        self._probe = self._open_probe() if self.every else None
        if self._probe is not None:
            rng = np.random.default_rng(0)
            count = min(options.probe_limit, self._probe.num_samples)
            self._ids = np.sort(rng.permutation(self._probe.num_samples)[:count])
            self._extract = evaluation.FeatureExtractor(
                run.model.encoders()["image"],
                image_size=recipe.image_size,
                batch_size=min(256, count),
            )

    def _open_probe(self) -> Source:
        options, recipe = self.run.options, self.run.recipe
        if options.probe_data is None:
            return self.run.stream.source
        return open_source(
            options.probe_data, data_dir=recipe.data_dir, view_size=recipe.image_size
        )

    # Looks ---------------------------------------------------------------------------------------------------

    def show_views(self) -> None:
        """Writes the contact sheet of views, and judges them, before the first step."""
        if not self.run.chief:
            return
        made = self._make_views(_VIEW_IMAGES)
        sheet = views.contact_sheet(made)
        self.run.journal.image("views", 0, sheet)
        with writing(self.run.workdir / "views.png"):
            evaluation.write_png(self.run.workdir / "views.png", sheet)
        name = next(iter(self.run.model.view_spec))
        group = made[name].numpy()
        pair = name == "global" and len(group) > 1  # only these are meant to show the same thing
        stats = evaluation.view_stats(group[0], group[1] if pair else group[0])
        if not pair:
            stats = {"view_contrast": stats["view_contrast"]}
        self._report(0, evaluation.diagnose(stats))

    def end_of_epoch(self, step: int) -> None:
        """Looks when it is time, and at the end."""
        epoch = step // self.run.stream.steps_per_epoch
        if self.every and (epoch % self.every == 0 or step == self.run.total_steps):
            self.look(step)
        self.run.meter.skip()

    def look(self, step: int) -> None:
        """Measures the encoder and reports what is wrong."""
        if self._probe is None:
            return
        run = self.run
        features, labels = self._extract(self._probe, indices=self._ids)
        self.last = {"rankme": evaluation.rankme(features)}
        if labels is not None:
            accuracy = evaluation.knn_accuracy(features, labels, ks=(20,))
            self.last |= {"knn_accuracy": accuracy[20]} if accuracy else {}  # needs 21 images
        stats = {
            "effective_rank": evaluation.effective_rank(features),
            "num_embeddings": len(features),
            "embedding_dim": features.shape[1],
        }
        self.last["effective_rank"] = stats["effective_rank"]
        run.journal.write("monitor", step, **self.last)
        images, _, _ = self._probe.read_batch(self._ids)
        sheet = evaluation.neighbor_sheet(images, features, num_queries=_ROWS)
        run.journal.image("neighbors", step, sheet)
        if step > 0:
            findings = [*evaluation.diagnose(stats), *evaluation.diagnose(self._loss_stats(step))]
            self._report(step, findings)
        run.reporter.line(f"monitor   step {step}{self.text()}")

    def text(self) -> str:
        """Returns the last look in a few words."""
        words = {"rankme": "RankMe {:.1f}", "knn_accuracy": "20-NN {:.1%}"}
        return "".join(
            "  " + form.format(self.last[name]) for name, form in words.items() if name in self.last
        )

    # Parts ---------------------------------------------------------------------------------------------------

    def _make_views(self, count: int) -> dict[str, tf.Tensor]:
        source = self.run.stream.source
        ids = np.arange(min(count, source.num_samples))
        return views_of(source, self.run.model, ids, ids, self.run.recipe.crops)

    def _loss_stats(self, step: int) -> dict[str, object]:
        recent = self.run.recent
        norm = recent.get("gradient_norm")
        if recent.get("loss_scale", 0.0) > 1.0 and not np.isfinite(norm):
            norm = None  # float16 skipped the step and lowers its scale, as it should
        stats = {
            "step": step,
            "total_steps": self.run.total_steps,
            "loss": recent.get("loss"),
            "gradient_norm": norm,
            "embedding_std": recent.get("embedding_std"),
            "embedding_dim": self.run.model.embedding_dim,
            "trivial_loss": self.run.model.trivial_loss() or None,
            "collapsed_loss": self.run.model.collapsed_loss() or None,
        }
        names = ("unused_prototypes", "teacher_entropy", "teacher_student_kl")
        stats |= {name: recent[name] for name in names if name in recent}
        if "teacher_entropy" in recent:
            stats["num_outputs"] = self.run.model.num_prototypes
        return stats

    def _report(self, step: int, findings: list[Finding]) -> None:
        """Says each finding once, writes it every time."""
        for finding in findings:
            self.run.journal.write(
                "finding",
                step,
                name=finding.name,
                severity=finding.severity,
                sentence=finding.sentence,
                remedy=finding.remedy,
            )
            if finding.name not in self._said:
                self._said.add(finding.name)
                self.run.reporter.line(f"{finding.severity:9s} {finding.sentence} {finding.remedy}")
