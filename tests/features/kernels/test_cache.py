"""Where compiled kernels are kept: found wherever the sources lie, never stale, never in someone else's directory."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numba
import pytest

import fieldwise
from fieldwise.features.kernels import cache
from fieldwise.features.kernels.cache import COMPILED, GIVEN, CodeFiles, Shelf, name_of
from fieldwise.features.kernels.rows import to_rows

ROOT = Path(__file__).resolve().parents[3]
ROOM = """
from fieldwise.features.kernels.compile import inner, kernel
@inner
def part(x):
    return x + 1
@kernel
def twice(x):
    return 2 * part(x)
"""
USE = "import room.loops, fieldwise.features.kernels.cache as c; print(room.loops.twice(20), c.compile_seconds() > 0)"


def room(folder: Path, text: str = ROOM) -> Path:
    (folder / "room").mkdir(parents=True)
    (folder / "room" / "__init__.py").touch()
    (folder / "room" / "loops.py").write_text(text)
    return folder


def used(place: Path, **environment: str) -> tuple[str, str]:
    """What a process that calls a kernel of ``place`` prints; nothing of this one's environment but the path."""
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{place}{os.pathsep}{ROOT}", "TMPDIR": str(place.parent)}
    done = subprocess.run(
        [sys.executable, "-c", USE], env=own | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user's, and no other."""
    monkeypatch.delenv(GIVEN, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "cache" / "fieldwise"


def test_the_name_follows_every_source_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for number, text in enumerate(["a", "a", "b"]):
        folder = tmp_path / str(number)
        (folder / f"p{number}").mkdir(parents=True)
        (folder / f"p{number}" / "__init__.py").touch()
        (folder / f"p{number}" / "scores.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(cache, "files", lambda package, folder=folder: next(folder.iterdir()))
        names.append(name_of.__wrapped__("room"))
    assert names[0] == names[1] != names[2]
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert name_of.__wrapped__("room") not in names


def test_copies_compile_once_and_say_so_once(tmp_path: Path) -> None:
    """A model from MLflow is a copy; others are zips, installations that cannot be written, users without a home."""
    room(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    with zipfile.ZipFile(tmp_path / "room.zip", "w") as archive:
        for name in ("__init__.py", "loops.py"):
            archive.write(tmp_path / "first" / "room" / name, f"room/{name}")
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    out, err = used(tmp_path / "first", **own)
    assert out == "42 True"
    (place,) = (tmp_path / "cache" / "fieldwise").iterdir()
    assert err == f"compiling room, once for this user and machine: kept in {place} ...\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert used(tmp_path / "second", **own) == ("42 False", "")
    assert used(tmp_path / "room.zip", **own) == ("42 False", "")
    (kept,) = place.glob("[!.]*")
    kept.write_bytes(kept.read_bytes()[:-1])  # of a disk that lost power
    assert used(tmp_path / "second", **own) == ("42 True", "")
    assert used(tmp_path / "room.zip", HOME="/nowhere", **{GIVEN: str(tmp_path / "given")})[0] == "42 True"
    assert [each.name for each in (tmp_path / "given").iterdir()] == [place.name]
    assert used(tmp_path / "room.zip", HOME="/proc")[0] == "42 True"  # nothing is kept there
    assert [each.name for each in (tmp_path / f"fieldwise-{os.getuid()}").iterdir()] == [place.name]


def test_two_processes_compile_a_kernel_once(tmp_path: Path) -> None:
    """The second waits; and goes on by itself where the first is killed."""
    slow = ROOM + "\nimport time, fieldwise.features.kernels.cache as cache\nsave = cache.CodeFiles.save\n"
    slow += "def later(*args):\n    print('compiled', flush=True); time.sleep(pause)\n    save(*args)\n"
    slow += "cache.CodeFiles.save = later\n"
    room(tmp_path / "first", slow + "pause = 3")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/first{os.pathsep}{ROOT}", GIVEN: str(tmp_path / "given")}
    for killed in (False, True):
        first = subprocess.Popen([sys.executable, "-c", USE], env=environment, stdout=subprocess.PIPE, text=True)
        assert first.stdout is not None
        assert first.stdout.readline() == "compiled\n"
        second = subprocess.Popen([sys.executable, "-c", USE], env=environment, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        if killed:
            first.kill()
        assert second.communicate()[0] == ("compiled\n42 True\n" if killed else "42 False\n")
        assert first.communicate()[0] == ("" if killed else "42 True\n")
        shutil.rmtree(tmp_path / "given")


def test_nobody_waits_for_a_kernel_that_could_not_be_compiled(tmp_path: Path) -> None:
    """Nor for a process that has been stopped, for longer than a while."""
    room(tmp_path / "first", ROOM + "import fieldwise.features.kernels.cache as c\nc._PATIENCE_SECONDS = 2.0\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/first{os.pathsep}{ROOT}", GIVEN: str(tmp_path / "given")}
    cases = {
        "try: room.loops.twice('no number')\nexcept Exception: print('failed', flush=True)": ("failed", 0.0, 1.5),
        "import room.loops\nroom.loops.twice._cache.files.claim(); print('claimed', flush=True)": ("claimed", 2.0, 9.0),
    }
    for code, (said, least, most) in cases.items():
        code = f"import room.loops, sys\n{code}\nsys.stdin.read()"
        first = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert first.stdout is not None
        assert first.stdout.readline() == f"{said}\n"
        timed = (
            "import time, room.loops; started = time.monotonic(); "
            "cache = room.loops.twice._cache.files; cache.claim(); print(time.monotonic() - started)"
        )
        second = subprocess.run(
            [sys.executable, "-c", timed], env=environment, capture_output=True, text=True, check=True
        )  # fmt: skip
        assert least <= float(second.stdout) < most
        assert used(tmp_path / "first", **{GIVEN: str(tmp_path / "given")})[0] == "42 True"
        first.communicate("")
        shutil.rmtree(tmp_path / "given")


def test_an_entry_is_compiled_when_it_is_called_and_by_another_process_where_one_asks(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        GIVEN: str(tmp_path / "given"),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    code = """
import time, numpy as np
from fieldwise.features.kernels import cache, compile, rows, ahead
assert not compile.is_kept(rows.to_rows.dispatcher) and not compile.is_kept(rows.to_columns.dispatcher)
ahead.compile_ahead(rows.to_columns)
ahead.compile_ahead()  # nothing: no process
(other,) = ahead._started
assert other.wait(60) == 0 and cache.compile_seconds() == 0
cache.shelf_of.cache_clear()
(place,) = cache.shelf_of("fieldwise.features.kernels").readable
print([each.name.split(".")[1].split("-")[0] for each in place.glob("[!.]*")])
columns, out = np.arange(6, dtype=np.int32).reshape(2, 3), np.zeros((3, 2), np.int32)
columns.flags.writeable = False
print(rows.to_rows.__class__.__name__)
rows.to_rows(columns, out)
print(out.tolist(), cache.compile_seconds() > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['to_columns']\nEntry\n[[0, 3], [1, 4], [2, 5]] True\n"), done.stderr


def test_an_entry_is_sent_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(to_rows)) is to_rows
    assert "First columns of rows" in str(to_rows.__doc__)


def test_what_an_installation_brings_is_read_and_never_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fieldwise, "__path__", [str(tmp_path / "fieldwise")])
    brought = tmp_path / "fieldwise" / COMPILED / name_of("fieldwise.features.kernels")
    brought.mkdir(parents=True)
    CodeFiles(shelf_in(brought), "f").save("key", "code")
    brought.chmod(0o555)
    files = CodeFiles(Shelf("fieldwise.features.kernels"), "f")
    assert files.load("key") == "code"
    assert not home.exists()
    assert files.load("another") is None
    files.save("another", "code")
    assert [len(list(place.iterdir())) for place in (brought, home / brought.name)] == [1, 1]
    brought.chmod(0o777)
    assert Shelf("fieldwise.features.kernels").readable == [home / brought.name]


def shelf_in(place: Path) -> Shelf:
    shelf = Shelf("fieldwise.features.kernels")
    shelf.readable, shelf.writable = [place], place
    return shelf


def test_a_place_that_others_can_write_to_is_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, last = name_of("fieldwise.features.kernels"), tmp_path / f"fieldwise-{os.getuid()}"

    def chosen() -> Path | None:
        shelf = Shelf("fieldwise.features.kernels")
        place = shelf.writable
        assert place in Shelf("fieldwise.features.kernels").readable
        return place

    assert chosen() == home / name
    (home / name).chmod(0o770)
    assert chosen() == last / name
    assert Shelf("fieldwise.features.kernels").readable == [last / name]
    (home / name).rmdir()
    for target in ("nowhere", "elsewhere"):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (home / name).symlink_to(tmp_path / target)
        assert chosen() == last / name
        (home / name).unlink()
    home.chmod(0o777)  # anybody could put another directory there
    assert chosen() == last / name
    home.chmod(0o1777)  # as of /tmp: nobody but us
    assert chosen() == home / name
    monkeypatch.setenv(GIVEN, str(tmp_path / "given"))
    assert chosen() == tmp_path / "given" / name
    (tmp_path / "given").chmod(0o777)
    capsys.readouterr()
    assert chosen() == home / name
    assert f"warning: {GIVEN}={tmp_path}/given cannot keep compiled code" in capsys.readouterr().err
    monkeypatch.setattr(cache, "is_private", lambda *_: False)
    shelf = Shelf("fieldwise.features.kernels")
    assert shelf.writable is None
    CodeFiles(shelf, "f").save("key", "code")  # goes on without
    assert "anew" in capsys.readouterr().err


def test_someone_elses_directory_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shelf("fieldwise.features.kernels").writable is not None
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert Shelf("fieldwise.features.kernels").readable == []
    assert Shelf("fieldwise.features.kernels").writable is None


def test_code_that_nobody_looked_for_goes(home: Path) -> None:
    old, used_lately = home / "kernels-old", home / "kernels-used"
    for place, days in ((old, 31), (used_lately, 29)):
        place.mkdir(parents=True)
        os.utime(place, (time.time() - days * 86400,) * 2)
    assert Shelf("fieldwise.features.kernels").writable is not None
    assert not old.exists()
    assert used_lately.exists()


def test_processes_that_save_at_once_keep_their_code_apart(home: Path) -> None:
    """numba's own cache gives both the same file, and one of them the other's code."""
    first, second, third = (CodeFiles(Shelf("fieldwise.features.kernels"), "kernel") for _ in range(3))
    assert third.load(("int64", "a")) is None
    first.save(("int64", "a"), "code of a")
    second.save(("int64", "b"), "code of b")
    assert [third.load(("int64", name)) for name in "abc"] == ["code of a", "code of b", None]
    kept = {name: home / name_of("fieldwise.features.kernels") / first._name_of(("int64", name)) for name in "ab"}
    kept["a"].write_bytes(kept["b"].read_bytes())
    assert third.load(("int64", "a")) is None, "another key's"


CONSTANTS = """
import sys
import numba, numpy as np
from numba.extending import overload
from fieldwise.features.kernels.compile import kernel as kept

def part(n, x):
    raise NotImplementedError

def part_of(n):
    @numba.njit
    def code(x):
        total = 0.0
        for i in range(len(x)):
            total += np.sin(x[i]) * n if x[i] > 0 else np.cos(x[i] * n) + n
        for i in range(len(x)):
            total += np.exp(x[i] * n) + np.log(n + x[i] * x[i])
        return total
    return code

@overload(part, prefer_literal=True)
def _part(n, x):
    code = part_of(n.literal_value)
    return lambda n, x: code(x)

def kernel(n):
    @kept
    def run(x):
        return part(n, x) + part(n, x[1:]) + part(n, x[2:])
    return run

def told(*numbers):
    for n in numbers:
        print(n, round(kernel(int(n))(np.linspace(-1, 1, 7)), 3))
"""


def test_a_process_calls_the_code_that_it_loaded(tmp_path: Path) -> None:
    """Of code compiled by two processes for two constants; numba alone calls the first for both, by its symbol."""
    room(tmp_path, CONSTANTS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), GIVEN: str(tmp_path / "cache")}
    call = "import sys, room.loops; room.loops.told(*sys.argv[1:])"
    told = [
        subprocess.run(
            [sys.executable, "-c", call, *numbers], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=True,
        ).stdout
        for numbers in ("1", "2", "12", "21")
    ]  # fmt: skip
    one, two = told[:2]
    assert one[2:] != two[2:]
    assert told[2:] == [one + two, two + one]
