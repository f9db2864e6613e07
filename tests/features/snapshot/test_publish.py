from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.snapshot import publish
from fieldwise.features.snapshot.manifest import MANIFEST, standing
from tests.features.snapshots import published

OTHER = "f" * 64


def test_publishing_is_the_last_act_and_leaves_no_lease(tmp_path):
    place = str(tmp_path)
    with publish.Attempt(place) as attempt:
        manifest = published(place, attempt.data)
        store.remove(store.join(place, MANIFEST))
        assert standing(place) is None
        assert attempt.publish(manifest, replace=False) == manifest
    assert set(store.list_sizes(place)) == {MANIFEST, attempt.data}


def test_a_failed_job_leaves_nothing(tmp_path):
    def fail() -> None:
        with publish.Attempt(str(tmp_path)) as attempt:
            store.write_new(store.join(attempt.data_dir, "part"), b"x")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert os.listdir(tmp_path) == []


def test_the_second_of_two_equal_jobs_returns_the_first_ones_snapshot(tmp_path):
    place = str(tmp_path)
    manifest = published(place)
    with publish.Attempt(place) as attempt:
        shutil.copytree(store.join(place, "data-0"), attempt.data_dir, dirs_exist_ok=True)
        assert attempt.publish(manifest.model_copy(update={"data": attempt.data}), replace=False) == manifest
    assert set(store.list_sizes(place)) == {MANIFEST, "data-0"}


def test_another_request_is_refused_unless_replacing(tmp_path):
    place = str(tmp_path)
    manifest = published(place)
    other = manifest.model_copy(update={"request": OTHER})
    with publish.Attempt(place) as attempt:
        shutil.copytree(store.join(place, "data-0"), attempt.data_dir, dirs_exist_ok=True)
        with pytest.raises(ArtifactError, match="--replace") as refusal:
            attempt.publish(other, replace=False)
        assert refusal.value.exit_code == 2
        attempt.publish(other.model_copy(update={"data": attempt.data}), replace=True)
    assert publish.clean(place) == ["data-0"]
    assert standing(place).data == attempt.data


def test_cleaning_spares_the_living_and_the_published(tmp_path):
    place = str(tmp_path)
    published(place)
    store.make_dir(store.join(place, "data-orphan"))
    with publish.Attempt(place) as attempt:
        assert publish.clean(place) == ["data-orphan"]
        assert set(store.list_sizes(place)) >= {attempt.data, "data-0"}


@pytest.mark.parametrize(("host", "age", "dead"), [("elsewhere", 0, False), ("elsewhere", 3600, True)])
def test_a_lease_of_another_machine_dies_by_age(tmp_path, host, age, dead):
    lease = tmp_path / "lease-x.json"
    lease.write_text(json.dumps({"host": host, "pid": 1}))
    os.utime(lease, (time.time() - age,) * 2)
    (tmp_path / "data-x").mkdir()
    assert publish.clean(str(tmp_path)) == (["data-x"] if dead else [])


def test_a_killed_jobs_data_goes_at_once_on_the_same_machine(tmp_path):
    code = (
        "import os, signal, sys; from fieldwise.features.snapshot.publish import Attempt\n"
        "with Attempt(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(os.listdir(tmp_path)) == 2  # lease and data
    assert len(publish.clean(str(tmp_path))) == 1
    assert os.listdir(tmp_path) == []


def test_a_file_half_written_when_its_job_was_killed_goes_and_one_being_written_stays(tmp_path):
    code = (
        "import os, signal, sys; from fieldwise.features import store\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.create_exclusive(sys.argv[1], b'half')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "manifest.json")], check=False)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".manifest.json.writer-")
    living = store._write_beside(str(tmp_path / "manifest.json"), b"more")
    publish.clean(str(tmp_path))
    assert os.listdir(tmp_path) == [os.path.basename(living)]
