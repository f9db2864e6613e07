"""What a registered version tells of itself: tags, a description, a model card in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fieldwise.features.terminal import printable
from fieldwise.pipelines.train.measured import NAMES, TABLE

_MOST = 5_000
"""Characters of a tag or a description that stores take."""


class Told:
    """What is said of a trained model, from the result of its training alone."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._result = result
        metrics = result["metrics"]
        self._role = next((role for role in ("test", "valid", "train") if role in metrics), "")
        self._metrics: Mapping[str, float] = metrics.get(self._role, {})

    @property
    def parent(self) -> str | None:
        """What the model went on from."""
        init = self._result.get("init")
        if not init:
            return None
        return f"models:/{init['name']}/{init['version']}" if init.get("version") else str(init["digest"])[:12]

    @property
    def tags(self) -> dict[str, str]:
        """Of the version, all texts: to search and to sort by."""
        found = {"fieldwise.kind": str(self._result["kind"])}
        if self._result.get("snapshots"):
            found["fieldwise.snapshot"] = ", ".join(self._snapshots)[:_MOST]
        if self.parent:
            found["fieldwise.parent"] = self.parent
        for name in TABLE:
            value = self._metrics.get(name, math.nan)
            if math.isfinite(value):
                found[f"fieldwise.{self._role}.{name}"] = f"{value:.5f}"
        return found

    @property
    def description(self) -> str:
        """One paragraph, which MLflow reads as Markdown."""
        parts = [f"{_escaped(self._result['kind'])} trained on {_escaped(', '.join(self._snapshots) or 'snapshots')}"]
        if self.parent:
            parts.append(f"from {_escaped(self.parent)}")
        measured = ", ".join(f"{NAMES[name]} {self._interval(name)}" for name in TABLE if self._finite(name))
        told = f"{' '.join(parts)}. On {self._role}: {measured or 'not measurable'}."
        return f"{told} The run holds report.html and model_card.md."[:_MOST]

    @property
    def _snapshots(self) -> list[str]:
        return [f"{name} {digest[:12]}" for name, digest in (self._result.get("snapshots") or {}).items()]

    def _finite(self, name: str) -> bool:
        return math.isfinite(self._metrics.get(name, math.nan))

    def _interval(self, name: str) -> str:
        """With the ends between which it lies in 95 of 100 samples of rows."""
        value, error = self._metrics[name], self._metrics.get(f"{name}_se", math.nan)
        if not math.isfinite(error):
            return f"{value:.5f}"
        return f"{value:.5f} ({value - 1.96 * error:.5f} to {value + 1.96 * error:.5f})"

    def card(self, *, name: str, label: str, fields: Mapping[str, str], command: str, few: Mapping[str, str]) -> str:
        """The model card.

        Args:
            name: of the pipeline.
            label: what a positive is.
            fields: their kinds by name.
            command: that makes the model again.
            few: by role, what is missing there for metrics to say much.
        """
        metrics = self._result["metrics"]
        lines = [
            f"# {_escaped(name)}: {_escaped(self._result['kind'])} {self._result['bundle_digest'][:12]}",
            "",
            f"Probability that `{_code(label)}` holds for a row, and order of items by it.",
            "",
            "## Data",
            "",
            f"Snapshots: {_escaped(', '.join(self._snapshots) or 'unknown')}."
            + (f" Goes on from {_escaped(self.parent)}." if self.parent else ""),
            "",
            "| field | kind |",
            "|---|---|",
            *(f"| {_escaped(field)} | {_escaped(kind)} |" for field, kind in fields.items()),
            "",
            "## Quality",
            "",
            "| rows of | rows | positives | " + " | ".join(NAMES[each] for each in TABLE) + " |",
            "|---" * (3 + len(TABLE)) + "|",
        ]
        for role, found in metrics.items():
            numbers = (f"{found[each]:.5f} ± {1.96 * found[f'{each}_se']:.5f}" for each in TABLE)
            lines.append(f"| {role} | {found['rows']:,.0f} | {found['positives']:,.0f} | {' | '.join(numbers)} |")
        lines += [
            "",
            "Intervals of 95 % over samples of rows like these; they say nothing of what another training would give. "
            "NE below 1 is better than the rate of positives alone; calibration is predicted over observed positives.",
            "",
            "## Intended use",
            "",
            "Ranking and probabilities for rows like those it was trained on, read by the same fields. Not for rows of "
            "another source, and not for decisions on persons that need other reasons than shares of a logit.",
            "",
            "## Limits",
            "",
            *(f"- {role}: {said}." for role, said in few.items()),
            "- Values that training has not seen share one row of a field, or a bucket with others.",
            "- It knows what was shown, not what would have been clicked had it been shown.",
            "",
            "## To make it again",
            "",
            *(f"    {line}" for line in printable(command).splitlines()),
            "",
        ]
        return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text as Markdown that shows it as it is, and no HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&-])", r"\\\1", printable(str(text)))


def _code(text: str) -> str:
    return printable(str(text)).replace("`", "'")
