"""Leases: processes and the store's clock decide who lives; this machine's clock, a full disk or a stop do not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fieldwise.features import store
from fieldwise.features.errors import BusyError
from fieldwise.features.process import began, machine
from fieldwise.features.snapshot import publish
from fieldwise.features.snapshot.manifest import MANIFEST, standing
from fieldwise.features.store import lease
from fieldwise.features.store.lease import Lease, alive
from tests.features.snapshots import published


def written(path: Path, *, age: float = 0.0, **holder: object) -> str:
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_on_one_machine_the_process_decides_and_no_clock(tmp_path: Path) -> None:
    here, pid = machine(), os.getpid()
    path = tmp_path / "lease"
    for age in (0.0, 1e6, -1e6):
        assert alive(written(path, age=age, host=here, pid=pid, start=began(pid)))
        assert not alive(written(path, age=age, host=here, pid=pid, start=began(pid) - 1))  # a later process of its id
        assert not alive(written(path, age=age, host=here, pid=2**30, start=1))


def test_a_process_that_nobody_waited_for_has_ended(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(written(tmp_path / "lease", host=machine(), pid=child.pid, start=None))
    child.wait()


def test_from_elsewhere_the_age_decides_by_the_clock_of_the_store(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is wrong by decades
    path = tmp_path / "lease"
    path.write_text('{"host": "elsewhere", "pid": 1}')
    assert alive(str(path))
    stamp = path.stat().st_mtime - lease.LEASE_SECONDS - 5
    os.utime(path, (stamp, stamp))
    assert not alive(str(path))
    assert os.listdir(tmp_path) == ["lease"]  # nothing is left of asking the time


def test_a_lease_of_the_future_is_counted_from_now_on(tmp_path: Path) -> None:
    path = written(tmp_path / "lease", age=-1e6, host="elsewhere", pid=1)
    assert alive(path)
    assert abs(os.stat(path).st_mtime - time.time()) < 60


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"host": 3}', "null", '{"pid": {}, "host": "HERE"}'])
def test_a_damaged_lease_is_judged_by_its_age(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease"
    path.write_text(text.replace("HERE", machine()))
    assert alive(str(path))
    os.utime(path, (0, 0))
    assert not alive(str(path))


def test_a_beat_that_fails_is_followed_by_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    path = str(tmp_path / "lease")
    calls: list[str] = []
    write = store.write_atomic

    def full_for_a_moment(target: str, data: bytes) -> None:
        calls.append(target)
        if 1 < len(calls) < 5:
            raise OSError(28, "No space left on device")
        write(target, data)

    monkeypatch.setattr(store, "write_atomic", full_for_a_moment)
    with Lease(path):
        deadline = time.monotonic() + 20
        while len(calls) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(calls) >= 8
    assert not os.path.exists(path)


def test_a_job_taken_for_dead_publishes_nothing(tmp_path: Path) -> None:
    place = str(tmp_path)
    manifest = published(place)
    store.remove(store.join(place, MANIFEST))
    with publish.Attempt(place) as attempt:
        shutil.copytree(store.join(place, "data-0"), attempt.data_dir, dirs_exist_ok=True)
        os.unlink(tmp_path / f"lease-{attempt.id}.json")
        with pytest.raises(BusyError, match="took this one for dead"):
            attempt.publish(manifest.model_copy(update={"data": attempt.data}), replace=False)
    gone = pytest.raises(BusyError, match=r"train-00000-\w+.parquet gone or changed")
    with publish.Attempt(place) as attempt, gone:
        attempt.publish(manifest.model_copy(update={"data": attempt.data}), replace=True)
    assert standing(place) is None


def test_what_was_published_in_the_last_moment_comes_back(tmp_path: Path) -> None:
    place = str(tmp_path)
    manifest = published(place)
    os.rename(tmp_path / "data-0", tmp_path / "dead-0")  # a cleaner was killed between its rename and its look
    assert publish.clean(place) == []
    assert standing(place) == manifest
    assert set(store.list_sizes(place)) == {MANIFEST, "data-0"}


def test_a_stopped_job_of_this_machine_keeps_its_data(tmp_path: Path, monkeypatch) -> None:
    code = (
        "import sys, time; from fieldwise.features.snapshot.publish import Attempt\n"
        "with Attempt(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)
        try:
            assert publish.clean(str(tmp_path)) == []
            assert len(os.listdir(tmp_path)) == 2
        finally:
            child.kill()
            child.wait()
    assert len(publish.clean(str(tmp_path))) == 1
