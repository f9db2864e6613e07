"""fieldwise: raw click logs to ranked recommendations with factorization models.

Everything is imported by this one name: ``fieldwise.features``, ``fieldwise.training``, ``fieldwise.pipelines``,
``fieldwise.jobs``. In a checkout these folders lie beside this one, at the top level; an installation has them inside.
"""

from pathlib import Path

PLACE = Path(__file__).resolve().parents[1]
"""The directory that a process needs on its path to import this package."""

if (PLACE / "pyproject.toml").is_file():
    __path__.append(str(PLACE))
