"""The report of a training as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fieldwise.features.report.chart import Line, Picture, chart
from fieldwise.features.report.markup import render
from fieldwise.pipelines.train.importance import shown, told
from fieldwise.pipelines.train.measured import NAMES, with_error
from fieldwise.pipelines.train.report import Facts, SnapshotFacts
from fieldwise.training.evaluation.apart import Slice
from fieldwise.training.evaluation.evaluate import Evaluation

_RARE = 0.05
"""Rate of positives below which reliability is drawn in powers of ten."""
_SLICES = 20
"""That are shown."""


def page(facts: Facts) -> str:
    """Quality, what the model follows from, data, speed, and how to make it again."""
    evaluations = facts.result.evaluations
    return render(
        Path(__file__).with_name("page.html"),
        title=facts.title,
        facts=facts,
        summary=_summary(facts),
        metrics=list(NAMES.values()),
        measured=[_measured(*each) for each in evaluations.items()],
        pictures=list(pictures(facts).values()),
        slices=[_slice(each) for each in facts.slices[:_SLICES]],
        importance=shown(told(facts.importance, facts.spec)),
        snapshots=[_snapshot(each) for each in facts.snapshots],
        spec=list(_spec(facts)),
        epochs=list(_epochs(facts)),
        settings=[(key, f"{value}") for key, value in facts.settings.items()],
    )


def pictures(facts: Facts) -> dict[str, Picture]:
    """By name; each is a file in MLflow, too."""
    evaluations = facts.result.evaluations
    return {
        "learning_curves": _learning(facts),
        "reliability": _reliability(evaluations),
        "roc": _roc(evaluations),
        "precision_recall": _precision(evaluations),
        "logits": _scores(facts.seen_on, evaluations[facts.seen_on]),
    }


def _summary(facts: Facts) -> str:
    found = facts.result.evaluations[facts.seen_on]
    entropy, calibration = found.values["normalized_entropy"], found.values["calibration"]
    if not math.isfinite(entropy):
        return f"Rows of {facts.seen_on} are of one class: they measure nothing."
    better = f"{1 - entropy:.2%} better" if entropy < 1 else f"{entropy - 1:.2%} worse"
    how = "as many clicks as come" if abs(calibration - 1) < 0.02 else f"{calibration:.3f} times as many clicks as come"
    return (
        f"On rows of {facts.seen_on} the logloss is {better} than that of the rate of positives alone, and the "
        f"model predicts {how}. Best after epoch {facts.result.best_epoch + 1} of {len(facts.result.history)}."
    )


def _measured(role: str, found: Evaluation) -> tuple[str, ...]:
    return (role, f"{found.rows:,}", f"{found.positives:,}", *(with_error(found.values, name) for name in NAMES))


def _learning(facts: Facts) -> Picture:
    history = facts.result.history
    epochs = [float(record.epoch + 1) for record in history]
    lines = [Line("train, each batch before it is learned from", epochs, [r.train_logloss for r in history], dots=True)]
    if all("logloss" in record.valid for record in history):
        lines.append(Line("valid", epochs, [record.valid["logloss"] for record in history], dots=True))
    return chart("Learning curves", "epoch", "logloss", lines)


def _reliability(evaluations: Mapping[str, Evaluation]) -> Picture:
    rates = [found.positives / max(1, found.rows) for found in evaluations.values()]
    rare = max(rates) < _RARE
    lines = [Line(r, e.curve.predicted, e.curve.observed, dots=True) for r, e in evaluations.items()]
    ends = [value for line in lines for part in (line.x, line.y) for value in part if value > 0 or not rare]
    even = [min(ends, default=0.0), max(ends, default=1.0)]
    title = "Reliability, in powers of ten" if rare else "Reliability"
    return chart(title, "predicted", "observed", [Line("", even, even, grey=True), *lines], log=rare, square=True)


def _roc(evaluations: Mapping[str, Evaluation]) -> Picture:
    lines = [Line(role, *found.roc) for role, found in evaluations.items()]
    even = [0.0, 1.0]
    return chart("ROC", "false positive rate", "true positive rate", [Line("", even, even, grey=True), *lines])


def _precision(evaluations: Mapping[str, Evaluation]) -> Picture:
    lines = [Line(role, *found.precision_recall) for role, found in evaluations.items()]
    return chart("Precision by recall", "recall", "precision", lines)


def _scores(role: str, found: Evaluation) -> Picture:
    scores = found.scores
    steps = list(zip(scores.edges, scores.edges[1:], strict=False))
    x = [edge for step in steps for edge in step]
    lines = [
        Line(name, x, [100 * share for share in shares for _ in range(2)])
        for name, shares in (("negatives", scores.negative), ("positives", scores.positive))
    ]
    return chart(f"Logits by class, {role}", "logit", "% of the class", lines)


def _slice(each: Slice) -> tuple[str, ...]:
    entropy, ratio = ("-" if v is None else f"{v:.5f}" for v in (each.normalized_entropy, each.calibration))
    ends = "-" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
    return (each.name, f"{each.rows:,}", f"{each.label_rate:.2%}", f"{each.logloss:.5f}", entropy, ratio, ends)


def _snapshot(each: SnapshotFacts) -> dict[str, Any]:
    moved = sorted(each.drift.items(), key=lambda pair: -pair[1])[:3]
    return {
        "id": each.id,
        "digest": each.digest[:12],
        "quarantined": each.quarantined,
        "moved": [(name, f"{psi:.3f}") for name, psi in moved],
        "rows": [(r, f"{n:,}", f"{each.positives[r]:,}", f"{each.positives[r] / n:.3%}") for r, n in each.rows.items()],
    }


def _spec(facts: Facts) -> Iterator[tuple[str, ...]]:
    counts = facts.snapshots[0].fields if facts.snapshots else {}
    for field in facts.spec.fields:
        shares = counts.get(field.name)
        told = ("-", "-") if shares is None else tuple(f"{share:.2%}" for share in shares)
        yield (field.name, field.kind, f"{field.values:,}", *told)


def _epochs(facts: Facts) -> Iterator[tuple[str, ...]]:
    for record in facts.result.history:
        valid = f"{record.valid['logloss']:.5f}" if record.valid else "-"
        counts = (record.rows_planned, record.rows_read, record.rows_trained)
        yield (
            f"{record.epoch + 1}", f"{record.train_logloss:.5f}", valid, *(f"{count:,}" for count in counts),
            f"{record.seconds:.2f}",
        )  # fmt: skip
