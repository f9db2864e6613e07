"""fieldwise: raw click logs to ranked recommendations with factorization models.

Everything is imported by this one name: ``fieldwise.features``, ``fieldwise.training``, ``fieldwise.pipelines``,
``fieldwise.jobs``. In a checkout these folders lie beside this one, at the top level; an installation has them inside.

In Python, ``Pipeline``, ``fit`` and ``load`` do what the commands do (see docs/python.md). They are imported when they
are first named: to import fieldwise costs nothing, and what a registered model brings of it holds no commands.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path

PLACE = _Path(__file__).resolve().parents[1]
"""The directory that a process needs on its path to import this package."""

if (PLACE / "pyproject.toml").is_file():
    __path__.append(str(PLACE))

__all__ = ["Model", "Pipeline", "fit", "load"]
__version__: str
"""Of the installation, or of the checkout."""


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(_import_module("fieldwise.api"), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, "__version__"})


def _version() -> str:
    if (PLACE / "pyproject.toml").is_file():
        project = _import_module("tomllib").loads((PLACE / "pyproject.toml").read_text("utf-8"))["project"]
        return str(project["version"])
    metadata = _import_module("importlib.metadata")
    try:
        return str(metadata.version("fieldwise"))
    except metadata.PackageNotFoundError:  # what a registered model brings of it
        return "unknown"
