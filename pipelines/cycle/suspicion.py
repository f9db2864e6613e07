"""Whether a day is suspicious: its data report against those of recent sound days, whose own variation is the measure.

With statistics x_1 .. x_k of recent days (mean m, variance S^2 between them), a day is expected within

    m +- t sqrt(s(r)^2 + s(1)^2 / k),    s(r)^2 = (d (s0^2 + r u) + (k - 1) r S^2) / (d + k - 1)

u is the variance that chance alone gives to days of as many rows as the recent ones, r >= 1 by how much the day's own
rows, if fewer, have more; s0 a spread that every log has, worth d = ``PRIOR`` days of evidence (G. K. Smyth, Linear
models and empirical Bayes methods, Statistical Applications in Genetics and Molecular Biology 3(1), 2004); t is
Student's quantile at d + k - 1 degrees of freedom. So rows that cluster (a user's come together) widen the interval by
what recent days show of it, and with few days only what is gross lies outside. x is

    rows                                              ln n, chance 1 / n
    share of positives                                logit, chance 1 / (n p (1 - p)) at the expected p
    missing, unseen, repeated, quarantined, outside   asin sqrt share, chance 1 / (4 n); only more of it is suspicious
    a field's values, hours of the day                ln (stability index against the other days)

What grows slowly (values that are new since the spec was fitted) widens its own interval: that is drift, not poison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from fieldwise.features import store
from fieldwise.features.arrays import Float64
from fieldwise.features.columns.moment import PARTS
from fieldwise.features.errors import FieldwiseError, InputError, RefusedError
from fieldwise.features.report.drift import Distribution, shift_of_groups
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.snapshot.manifest import Manifest
from fieldwise.features.source.log import days_read
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.config.suspicion import SuspicionConfig

PRIOR = 4
"""Days of evidence that the usual spread is worth."""
SPREAD = 0.15
"""Usual spread of ln rows and of the logit of the label rate between days."""
SHARE_SPREAD = 0.03
"""Of asin sqrt of a share."""
SHIFT_SPREAD = 0.35
"""Of the logarithm of a stability index."""
SHARE = 0.05
"""A share that grew by less harms no training."""
SHIFT = 0.25
"""Stability index (chance left out) below which a shift is not a large one."""
METRIC_SPREAD = 0.1
"""Of the logit of AUC, of the logarithms of normalized entropy and calibration."""
MODEL_METRICS = (("auc", "AUC", 0.05), ("normalized_entropy", "normalized entropy", 0.05),
                 ("calibration", "calibration", 0.25))  # fmt: skip
"""Name, words, and the least difference that is told: of AUC itself, relative for others."""
MODEL_CHECKS = len(MODEL_METRICS)
CHECKS = 9
"""Among which the threshold is divided; then among the fields that a check has."""


@dataclass(frozen=True)
class Finding:
    """One reason not to trust a day, with both figures in its words."""

    check: str
    field: str
    """Empty where it concerns whole rows."""
    words: str

    def __str__(self) -> str:
        return f"field {self.field!r}: {self.words}" if self.field else self.words


@dataclass(frozen=True)
class Day:
    """The data report of a day's snapshot."""

    date: str
    report: Report
    since: str = ""
    """The first day that its rows may be of, where ``label_delay`` holds them back."""

    @staticmethod
    def open(config: Config, date: str, snapshot: str) -> Day:
        """Of a published snapshot. Raises ArtifactError where it or its report does not read."""
        data = store.join(snapshot, Manifest.load(snapshot).data)
        return Day(date, Report.load(store.join(data, REPORT)), days_read(config, [date])[0])

    @property
    def outside(self) -> int:
        """Rows whose moment lies in another day; 0 for a log without time."""
        return sum(day.rows for day in self.report.days if not (self.since or self.date) <= day.day <= self.date)


def refused_day(error: FieldwiseError) -> Finding:
    """The finding of a day whose rows the feature build does not take: InputError, RefusedError.

    Raises the error itself where something else than the day's source must be mended, or tried again.
    """
    if not isinstance(error, InputError | RefusedError):
        raise error
    return Finding("build", "", f"{error.where}: expected {error.expected}, found {error.found.removesuffix('.')}")


def findings(
    day: Day, recent: Sequence[Day], config: SuspicionConfig, *, expected: Distribution | None = None
) -> list[Finding]:
    """What is suspicious about a day, whole rows first; empty for a healthy one.

    Args:
        recent: sound days before it, in order; the last ``config.days`` of them count.
        expected: the rows that the spec was fitted on. They stand in while there are fewer than ``config.min_days``.
    """
    recent = recent[-config.days :]
    enough, chance = len(recent) >= config.min_days, config.threshold / CHECKS
    first = [] if expected is None or enough else [expected]
    rows = _rows(day, recent, chance) if enough else None
    found = [rows, _labels(day, recent, first, chance), *_whole_shares(day, recent, chance)]
    if enough:
        hours = [of.report.hours for of in recent if of.report.hours]
        found.append(_moved("hours of the day", "", day.report.hours, hours, config.min_days, chance))
    for name in day.report.fields:
        found.append(_field(name, day, recent, first, config.min_days, chance / len(day.report.fields)))
    return [finding for finding in found if finding is not None]


def model_findings(
    now: Mapping[str, float], recent: Sequence[Mapping[str, float]], config: SuspicionConfig
) -> list[Finding]:
    """What is suspicious about a day by the champion's metrics on it: flipped labels of a balanced log show here alone.

    Its AUC against its own on recent days (logit, v by Hanley and McNeil, Radiology 143(1), 1982), normalized entropy
    (logarithm) and calibration (logarithm, either way); without recent days, an AUC below that of chance.

    Args:
        now, recent: of ``Evaluation.told()`` on days before the champion of that time had learned from them. What is
            nan (a day of one class) is left out.
    """
    chance, found = config.threshold / MODEL_CHECKS, []
    recent = recent[-config.days :]
    for name, words, least in MODEL_METRICS:
        past = [of for of in recent if math.isfinite(of[name])]
        value = now[name]
        if not math.isfinite(value) or not (past or name == "auc"):
            continue
        usual = np.array([of[name] for of in past] or [0.5])
        x, scale = (_logit, 1.0) if name == "auc" else (np.log, usual.mean())
        v = [_metric_variance(name, of, float(usual.mean())) for of in [now, *(past or [now])]]
        spread = METRIC_SPREAD if past else 0.0
        far = _beyond(float(x(value)), x(usual), v[0], np.array(v[1:]), spread, chance / (1 + (name == "calibration")))
        bad = {"auc": -far, "normalized_entropy": far, "calibration": abs(far)}[name]
        if bad > 1 and abs(value - usual.mean()) >= least * scale:
            days = f"recent days {_span(usual, '{:.4f}')}" if past else "0.5 is what chance gives"
            found.append(Finding(name, "", f"the champion's {words} {value:.4f}, {days}"))
    return found


def _metric_variance(name: str, of: Mapping[str, float], usual: float) -> float:
    """Of the metric's x by chance; that of AUC at the usual AUC: a tiny day's own says it has none."""
    if name != "auc":
        return (of[f"{name}_se"] / of[name]) ** 2
    a, n, m = min(max(usual, 0.01), 0.99), of["positives"], of["rows"] - of["positives"]
    pairs = a * (1 - a) + (n - 1) * (a / (2 - a) - a * a) + (m - 1) * (2 * a * a / (1 + a) - a * a)
    return pairs / (n * m) / (a * (1 - a)) ** 2


def _logit(p: Any) -> Any:
    p = np.clip(p, 0.01, 0.99)
    return np.log(p / (1 - p))


def _rows(day: Day, recent: Sequence[Day], chance: float) -> Finding | None:
    now, past = day.report.rows, np.array([of.report.rows for of in recent], np.float64)
    if abs(_beyond(math.log(now), np.log(past), 1 / now, 1 / past, SPREAD, chance / 2)) <= 1:
        return None
    return Finding("rows", "", f"{now:,} rows, recent days {_span(past, '{:,.0f}')}")


def _labels(day: Day, recent: Sequence[Day], first: Sequence[Distribution], chance: float) -> Finding | None:
    now = np.array(day.report.distribution.label)
    past = np.array([of.label for of in [*(of.report.distribution for of in recent), *first]]).reshape(-1, 2)
    told = f"label rate {now[1] / now.sum():.4%}"
    if not len(past):
        return None if now.all() else Finding("one class", "", f"{told}: {now.sum():,} rows of one class only")
    logits = np.log((past[:, 1] + 0.5) / (past[:, 0] + 0.5))
    rate = 1 / (1 + math.exp(-logits.mean()))
    v = 1 / (np.maximum(1, [now.sum(), *past.sum(1)]) * rate * (1 - rate))
    x = math.log((now[1] + 0.5) / (now[0] + 0.5))
    if abs(_beyond(x, logits, float(v[0]), v[1:], SPREAD, chance / 2)) <= 1:
        return None
    only = "" if now.all() else f", all {now.sum():,} rows of one class"
    usual = past[:, 1] / past.sum(1)
    return Finding("label rate" if now.all() else "one class", "", f"{told}{only}, {_days(usual, first, '{:.4%}')}")


def _whole_shares(day: Day, recent: Sequence[Day], chance: float) -> list[Finding | None]:
    """Repeated and quarantined rows, moments outside the day."""
    found: list[Finding | None] = []
    counts: tuple[tuple[str, str, Callable[[Day], int | None]], ...] = (
        ("repeated rows", "of the rows repeat another one", lambda of: of.report.repeated),
        ("quarantined rows", "of the rows are quarantined", lambda of: sum(p.rows for p in of.report.quarantined)),
        ("moments", f"of the rows have moments outside {day.date}", lambda of: of.outside),
    )
    for check, words, count in counts:
        now, past = count(day), [(n, of.report.rows) for of in recent if (n := count(of)) is not None]
        if now is not None:
            found.append(_share(check, "", words, (now, day.report.rows), past, [], chance))
            if check == "moments" and not past and now > day.report.rows / 2:  # needs no history: a file holds its day
                found.append(Finding(check, "", f"{now / day.report.rows:.2%} {words}"))
    return found


def _field(
    name: str, day: Day, recent: Sequence[Day], first: Sequence[Distribution], least: int, chance: float
) -> Finding | None:
    """One finding a field, the plainest: an emptied field has another distribution, too."""
    here = day.report.fields[name].tally
    known = [of for of in recent if name in of.report.fields]
    tallies = [of.report.fields[name].tally for of in known]
    first = [of for of in first if name in of.fields]
    now, past = (here.missing, here.values), [(tally.missing, tally.values) for tally in tallies]
    past += [(of.fields[name][0], sum(of.fields[name])) for of in first]
    if found := _share("missing", name, "missing", now, past, first, chance):
        return found
    spec = day.report.distribution.spec_digest  # under another spec, other values are unseen and bins are other ones
    same = [of.report for of in known if of.report.distribution.spec_digest == spec]
    tallies = [of.fields[name].tally for of in same]
    past = [(tally.unseen, tally.values) for tally in tallies]
    if len(past) >= least and (found := _share("unseen", name, "unseen", (here.unseen, here.values), past, [], chance)):
        return found
    if day.report.fields[name].kind == "time" and len(here.groups) - 2 not in (PARTS["minute"], PARTS["hour"]):
        return None  # of the calendar: the first of a month has none of the days before it
    return _moved("distribution", name, here.groups, [tally.groups for tally in tallies], least, chance)


def _share(
    check: str, field: str, words: str, now: tuple[int, int], past: Sequence[tuple[int, int]],
    first: Sequence[Distribution], chance: float,
) -> Finding | None:  # fmt: skip
    """A share of (count, all) that has grown."""
    if not past:
        return None
    counts, of = np.array(past, np.float64).T
    shares, share = counts / np.maximum(1, of), now[0] / max(1, now[1])
    x, chances = np.arcsin(np.sqrt(shares)), 1 / (4 * np.maximum(1, of))
    far = _beyond(math.asin(math.sqrt(share)), x, 1 / (4 * max(1, now[1])), chances, SHARE_SPREAD, chance)
    if far <= 1 or share - shares.mean() < SHARE:
        return None
    return Finding(check, field, f"{share:.2%} {words}, {_days(shares, first, '{:.2%}')}")


def _moved(
    check: str, field: str, now: Sequence[int], past: Sequence[Sequence[int]], least: int, chance: float
) -> Finding | None:
    """Counts that lie farther from those of all recent days than any of these lies from the others."""
    if len(past) < least or not sum(now):
        return None
    counts = np.array(past, np.int64)
    total = counts.sum(0)
    here = shift_of_groups(total.tolist(), now)
    others = [shift_of_groups((total - one).tolist(), one.tolist()) for one in counts]
    usual = np.array([other.psi for other in others])
    # a day of fewer rows moves farther by chance, and rows that cluster do so in proportion
    psi = here.psi / max(1.0, here.chance / float(np.mean([other.chance for other in others])))
    far = _beyond(math.log(psi + 0.01), np.log(usual + 0.01), 0.0, np.zeros(len(usual)), SHIFT_SPREAD, chance)
    if far <= 1 or here.excess < SHIFT:
        return None
    what = "values" if field else check
    return Finding(
        check, field, f"{what} moved by {here.psi:.3f} (stability index), recent days by {_span(usual, '{:.3f}')}"
    )


def _beyond(now: float, recent: Float64, v: float, u: Float64, spread: float, chance: float) -> float:
    """(x - m) / (half of the interval) as the module's docstring has it; ``chance`` that a healthy day lies above 1."""
    k, usual = len(recent), float(u.mean())
    freedom, between = PRIOR + k - 1, float(((recent - recent.mean()) ** 2).sum())
    smaller = max(1.0, v / usual) if usual else 1.0
    of_day = PRIOR * (spread**2 + usual * smaller) + between * smaller
    of_mean = PRIOR * (spread**2 + usual) + between
    half = -float(stdtrit(freedom, chance)) * math.sqrt((of_day + of_mean / k) / freedom)
    return (now - float(recent.mean())) / half


def _span(values: Float64, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def _days(values: Float64, first: Sequence[Distribution], form: str) -> str:
    """The last of the values are of ``first``."""
    k = len(values) - len(first)
    told = [f"recent days {_span(values[:k], form)}"] if k else []
    return ", ".join(told + ([f"training rows {_span(values[k:], form)}"] if first else []))
