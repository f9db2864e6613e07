"""The report of a training as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from fieldwise.features.report.chart import Line, chart, heat, shown
from fieldwise.features.report.page import head
from fieldwise.pipelines.train.measured import NAMES, with_error
from fieldwise.pipelines.train.report import Facts, SnapshotFacts
from fieldwise.training.evaluation.apart import Slice
from fieldwise.training.evaluation.evaluate import Evaluation

_RARE = 0.05
"""Rate of positives below which reliability is drawn in powers of ten."""
_FIELDS, _PAIRS, _SLICES = 40, 15, 20
"""That are shown."""


def page(facts: Facts) -> str:
    """Quality, what the model follows from, data, speed, and how to make it again."""
    evaluations = facts.result.evaluations
    parts = [
        head(facts.title),
        f"<p>{_summary(facts)}</p>",
        _table(("", "rows", "positives", *NAMES.values()), [_measured(*each) for each in evaluations.items()]),
        "<h2>Quality</h2><div class=charts>",
        _learning(facts),
        _reliability(evaluations),
        _roc(evaluations),
        _precision(evaluations),
        _scores(facts.seen_on, evaluations[facts.seen_on]),
        "</div>",
        _slices(facts),
        _importance(facts),
        "<h2>Data</h2>",
        *(_snapshot(each) for each in facts.snapshots),
        _fields(facts),
        "<h2>Speed and memory</h2>",
        _table(("", ""), list(facts.speed.items())),
        _epochs(facts),
        f"<h2>To make it again</h2><pre>{shown(facts.command)}</pre>",
        _table(("setting", ""), [(key, f"{value}") for key, value in facts.settings.items()]),
        "</html>\n",
    ]
    return "".join(parts)


def _summary(facts: Facts) -> str:
    found = facts.result.evaluations[facts.seen_on]
    entropy, calibration = found.values["normalized_entropy"], found.values["calibration"]
    if not math.isfinite(entropy):
        return f"Rows of {shown(facts.seen_on)} are of one class: they measure nothing."
    better = f"{1 - entropy:.2%} better" if entropy < 1 else f"{entropy - 1:.2%} worse"
    how = "as many clicks as come" if abs(calibration - 1) < 0.02 else f"{calibration:.3f} times as many clicks as come"
    return (
        f"On rows of {shown(facts.seen_on)} the logloss is {better} than that of the rate of positives alone, and the "
        f"model predicts {how}. Best after epoch {facts.result.best_epoch + 1} of {len(facts.result.history)}."
    )


def _measured(role: str, found: Evaluation) -> tuple[str, ...]:
    return (role, f"{found.rows:,}", f"{found.positives:,}", *(with_error(found.values, name) for name in NAMES))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 1) -> str:
    """Columns from ``numbers`` on are of numbers. All of it is escaped."""
    kind = [" class=n" if at >= numbers else "" for at in range(len(titles))]
    top = "".join(f"<th{k}>{shown(text)}" for k, text in zip(kind, titles, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{shown(text)}" for k, text in zip(kind, row, strict=True)) + "</tr>" for row in rows
    )
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _learning(facts: Facts) -> str:
    history = facts.result.history
    epochs = [float(record.epoch + 1) for record in history]
    lines = [Line("train, each batch before it is learned from", epochs, [r.train_logloss for r in history], dots=True)]
    if all("logloss" in record.valid for record in history):
        lines.append(Line("valid", epochs, [record.valid["logloss"] for record in history], dots=True))
    return chart("Learning curves", "epoch", "logloss", lines)


def _reliability(evaluations: Mapping[str, Evaluation]) -> str:
    rates = [found.positives / max(1, found.rows) for found in evaluations.values()]
    rare = max(rates) < _RARE
    lines = [Line(r, e.curve.predicted, e.curve.observed, dots=True) for r, e in evaluations.items()]
    ends = [value for line in lines for part in (line.x, line.y) for value in part if value > 0 or not rare]
    even = [min(ends, default=0.0), max(ends, default=1.0)]
    title = "Reliability, in powers of ten" if rare else "Reliability"
    return chart(title, "predicted", "observed", [Line("", even, even, grey=True), *lines], log=rare, square=True)


def _roc(evaluations: Mapping[str, Evaluation]) -> str:
    lines = [Line(role, *found.roc) for role, found in evaluations.items()]
    even = [0.0, 1.0]
    return chart("ROC", "false positive rate", "true positive rate", [Line("", even, even, grey=True), *lines])


def _precision(evaluations: Mapping[str, Evaluation]) -> str:
    lines = [Line(role, *found.precision_recall) for role, found in evaluations.items()]
    return chart("Precision by recall", "recall", "precision", lines)


def _scores(role: str, found: Evaluation) -> str:
    scores = found.scores
    steps = list(zip(scores.edges, scores.edges[1:], strict=False))
    x = [edge for step in steps for edge in step]
    lines = [
        Line(name, x, [100 * share for share in shares for _ in range(2)])
        for name, shares in (("negatives", scores.negative), ("positives", scores.positive))
    ]
    return chart(f"Logits by class, {role}", "logit", "% of the class", lines)


def _slices(facts: Facts) -> str:
    if not facts.slices:
        return ""
    rows = [_slice(each) for each in facts.slices[:_SLICES]]
    titles = ("slice", "rows", "rate", "logloss", "NE", "calibration", "95 % interval")
    return (
        f"<h2>Slices, the worst first</h2><p><small>Of {facts.sampled:,} rows of {shown(facts.seen_on)}; "
        f"`evaluation.slices` names fields.</small></p>{_table(titles, rows)}"
    )


def _slice(each: Slice) -> tuple[str, ...]:
    entropy, ratio = ("-" if v is None else f"{v:.5f}" for v in (each.normalized_entropy, each.calibration))
    ends = "-" if each.low is None or each.high is None else f"{each.low:.3f} to {each.high:.3f}"
    return (each.name, f"{each.rows:,}", f"{each.label_rate:.2%}", f"{each.logloss:.5f}", entropy, ratio, ends)


def _importance(facts: Facts) -> str:
    found, names = facts.importance, [field.name for field in facts.spec.fields]
    share, pairs, alone = found.fields, found.pairs, found.alone
    order = sorted(range(len(names)), key=lambda f: -(found.hidden if share is None else share)[f])
    why = f"Over {found.rows:,} rows of {shown(facts.seen_on)}."
    if share is None or pairs is None or alone is None:
        why += " The logit of this model is no sum over fields and pairs of fields, or the same for all rows."
        hidden = [(names[f], f"{found.hidden[f]:+.5f}") for f in order[:_FIELDS]]
        return f"<h2>Fields</h2><p><small>{why}</small></p>{_table(('field', 'logloss without it'), hidden)}"
    rows = [(names[f], _percent(share[f]), _percent(alone[f]), f"{found.hidden[f]:+.5f}") for f in order[:_FIELDS]]
    shown_fields = order[:_FIELDS]
    cells = [[float(alone[f] if f == g else pairs[min(f, g), max(f, g)]) for g in shown_fields] for f in shown_fields]
    strongest = [(f"{names[f]} x {names[g]}", _percent(pairs[f, g])) for f, g in found.strongest[:_PAIRS]]
    why += (
        " A field's share of the logits' variance is its own and half of each of its pairs'; all add up to 100 %. "
        "The last column is what the logloss rises by where the field is hidden, nothing trained anew."
    )
    return (
        f"<h2>Fields and pairs of fields</h2><p><small>{why}</small></p>"
        f"{_table(('field', 'share', 'alone', 'logloss without it'), rows)}<div class=charts>"
        + heat("Pairs; the diagonal: fields alone", [names[f] for f in shown_fields], cells, _percent)
        + f"</div><h3>Strongest pairs</h3>{_table(('pair', 'share'), strongest)}"
    )


def _percent(share: float) -> str:
    """Without the sign of a share that is none."""
    return f"{round(share, 4) + 0.0:.2%}"


def _snapshot(each: SnapshotFacts) -> str:
    rows = [(r, f"{n:,}", f"{each.positives[r]:,}", f"{each.positives[r] / n:.3%}") for r, n in each.rows.items()]
    bad = f"; {each.quarantined:,} rows were set aside" if each.quarantined else ""
    moved = sorted(each.drift.items(), key=lambda pair: -pair[1])[:3]
    drift = f" Moved most: {', '.join(f'{shown(name)} {psi:.3f}' for name, psi in moved)} (PSI)." if moved else ""
    return f"<p>Snapshot {shown(each.id)}, digest <code>{shown(each.digest[:12])}</code>{bad}.{drift}</p>" + _table(
        ("role", "rows", "positives", "rate"), rows
    )


def _fields(facts: Facts) -> str:
    counts = facts.snapshots[0].fields if facts.snapshots else {}
    rows = []
    for field in facts.spec.fields:
        shares = counts.get(field.name)
        told = ("-", "-") if shares is None else tuple(f"{share:.2%}" for share in shares)
        rows.append((field.name, field.kind, f"{field.values:,}", *told))
    return _table(("field", "kind", "values", "missing", "unseen"), rows, 2)


def _epochs(facts: Facts) -> str:
    rows = [
        (
            f"{record.epoch + 1}", f"{record.train_logloss:.5f}",
            f"{record.valid['logloss']:.5f}" if record.valid else "-", f"{record.rows_planned:,}",
            f"{record.rows_read:,}", f"{record.rows_trained:,}", f"{record.seconds:.2f}",
        )
        for record in facts.result.history
    ]  # fmt: skip
    titles = ("epoch", "train", "valid", "rows planned", "read", "trained", "seconds")
    return f"<h3>Epochs</h3>{_table(titles, rows)}"
