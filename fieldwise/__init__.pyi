"""What ``fieldwise`` offers, for type checkers and editors: the module itself imports it when it is first named."""

from pathlib import Path

from fieldwise.api import Model, Pipeline, fit, load

__all__ = ["Model", "Pipeline", "fit", "load"]

PLACE: Path
