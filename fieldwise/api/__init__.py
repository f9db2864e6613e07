"""What the commands do, from Python: every call composes the same pipelines, on tables of pandas, polars or Arrow."""

from fieldwise.api.fitting import fit
from fieldwise.api.model import Model, load
from fieldwise.api.pipeline import Pipeline

__all__ = ["Model", "Pipeline", "fit", "load"]
