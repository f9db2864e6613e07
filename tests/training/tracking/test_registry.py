"""The champion moves once at a time, whole or repaired, and only forward."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ArtifactError, BusyError, FieldwiseError, RefusedError
from fieldwise.features.store.lock import locked
from fieldwise.training.tracking import registry as module
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.fetch import bundle_of
from fieldwise.training.tracking.registry import DATE, MOVE, REJECTED, Registry
from tests.commands import together

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One workspace for all tests of this file: making a store takes seconds."""
    return str(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def shop(place: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A model of four versions; the first is champion."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs.connect(None, place)
    return shop_of(place)


def shop_of(place: str) -> Registry:
    name = f"shop{next(_NAMES)}"
    client = MlflowClient()
    client.create_registered_model(name)
    for version in "1234":
        client.create_model_version(name, f"file://{place}/{name}/{version}")
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "challenger", "4")
    return Registry(name, place)


def tags(shop: Registry) -> dict[str, str]:
    return dict(MlflowClient().get_registered_model(shop.name).tags)


def test_a_champion_that_changed_meanwhile(shop: Registry) -> None:
    assert shop.promote("2", expected="1") == {"model": shop.name, "champion": "2", "former": "1"}
    with pytest.raises(BusyError) as told:
        shop.promote("3", expected="1")
    assert str(told.value) == (
        f"models:/{shop.name}@champion: expected version 1, against which was decided, found version 2. Another "
        "decision came first and stands. Run it again: it decides against the champion of then."
    )
    assert told.value.exit_code == 1
    with pytest.raises(BusyError, match="expected version 1, against which was decided, found version 2"):
        shop.rollback(expected="1")
    assert shop.promote("2", expected="1")["former"] == "1", "what was done stays done"
    assert (shop.version_of("champion"), shop.history()) == ("2", ["1"])


def test_two_processes_promote_at_once(shop: Registry, place: str) -> None:
    code = (
        "import sys\nfrom fieldwise.training.tracking import runs\n"
        "from fieldwise.training.tracking.registry import Registry\n"
        "runs.connect(None, sys.argv[1])\nshop = Registry(sys.argv[2], sys.argv[1])\nshop.version_of('champion')\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "try: print(shop.promote(sys.argv[3], expected='1')['champion'])\nexcept ValueError as error: print(error)"
    )
    told = together(code, [[place, shop.name, version] for version in ("2", "3")])
    won = shop.version_of("champion")
    assert sorted(told, key=len)[0] == won
    assert f"expected version 1, against which was decided, found version {won}" in max(told, key=len)
    assert shop.history() == ["1"]


class Killed(BaseException):
    """As a kill would end a process."""


def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the ``call``-th question to the store on, or order, nothing is asked or told."""
    left = itertools.count(call, -1)

    def dies(works: Callable[..., Any]) -> Callable[..., Any]:
        def tried(what: Callable[[], Any]) -> Any:
            if next(left) <= 0:
                raise Killed
            return works(what)

        return tried

    monkeypatch.setattr(module, "ask", dies(module.ask))
    monkeypatch.setattr(module, "tell", dies(module.tell))


@pytest.mark.slow  # dozens of kill points
def test_a_move_killed_anywhere_is_finished_by_the_next_one(place: str, shop: Registry) -> None:
    wanted: dict[str, Callable[[Registry], Any]] = {
        "promote": lambda it: it.promote("3", expected="2", date="2026-01-05", tags={"why": "better"}),
        "rollback": lambda it: it.rollback(reason="worse"),
    }
    ended = {
        "promote": ("3", ["1", "2"], "2026-01-05", ("better", None)),
        "rollback": ("1", [], "2026-01-01", (None, "worse")),
    }
    for name, move in wanted.items():
        states = set()
        for call in itertools.count():
            shop = shop_of(place)
            shop.promote("2", date="2026-01-01")
            with pytest.MonkeyPatch.context() as patch:
                killed_at(call, patch)
                try:
                    move(shop)
                    break
                except Killed:
                    pass
            began = MOVE in tags(shop)
            if not began and shop.version_of("champion") == "2":
                assert shop.history() == ["1"]
                states.add("not begun")
                continue
            with pytest.raises(BusyError, match="against which was decided"):
                shop.promote("4", expected="2")  # finishes what it finds, then finds another champion
            version = MlflowClient().get_model_version(shop.name, "3" if name == "promote" else "2").tags
            state = (
                shop.version_of("champion"),
                shop.history(),
                tags(shop)[DATE],
                (version.get("why"), version.get(REJECTED)),
            )
            assert state == ended[name], call
            assert MOVE not in tags(shop)
            states.add("begun" if began else "done")
        assert {"not begun", "begun"} <= states


def test_an_interrupted_move_to_a_version_that_was_deleted_since(shop: Registry) -> None:
    move = {"champion": "3", "history": ["1"], "date": None, "tags": {}}
    MlflowClient().set_registered_model_tag(shop.name, MOVE, json.dumps(move))
    MlflowClient().delete_model_version(shop.name, "3")
    assert shop.promote("2", expected="1")["champion"] == "2"
    assert MOVE not in tags(shop)


def test_rollback_skips_deleted_versions_and_tells_when_none_is_left(shop: Registry) -> None:
    for version in "234":
        shop.promote(version)
    for version in "23":
        MlflowClient().delete_model_version(shop.name, version)
    assert shop.rollback() == {"model": shop.name, "champion": "1", "former": "4"}
    assert shop.history() == []
    with pytest.raises(ArtifactError, match=r"expected a former champion, found none recorded\. Only a promotion can"):
        shop.rollback()
    shop.promote("4", anew=True)
    MlflowClient().delete_model_version(shop.name, "1")
    with pytest.raises(
        ArtifactError, match=r"expected a former champion, found none: 1 deleted\. Name one that stands"
    ):
        shop.rollback()
    assert shop.version_of("champion") == "4"


def test_a_rejected_version_comes_back_by_a_persons_word_alone(shop: Registry) -> None:
    shop.promote("4")
    shop.rollback(reason="sold nothing")
    with pytest.raises(RefusedError) as told:
        shop.promote(expected="1")
    assert str(told.value) == (
        f"models:/{shop.name}/4: expected a version that was not rejected, found one that was: sold nothing. To bring "
        "it back all the same: `fieldwise promote --version 4`."
    )
    assert shop.promote("4", anew=True)["champion"] == "4"
    assert REJECTED not in MlflowClient().get_model_version(shop.name, "4").tags


def test_an_older_date_never_promotes(shop: Registry) -> None:
    shop.promote("2", date="2026-01-05")
    for version, date in (("3", "2026-01-04"), ("4", "2025-12-31")):
        with pytest.raises(RefusedError) as told:
            shop.promote(version, date=date)
        assert str(told.value) == (
            f"models:/{shop.name}/{version}: expected a day from 2026-01-05 on, for which a champion was promoted, "
            f"found {date}. What later days decided stands; `fieldwise promote --version` promotes whatever the day."
        )
    shop.rollback()
    with pytest.raises(RefusedError, match="a day from 2026-01-05 on"):
        shop.promote("3", date="2026-01-04")
    assert shop.promote("3", date="2026-01-05")["champion"] == "3"
    assert shop.promote("4")["champion"] == "4"
    assert tags(shop)[DATE] == "2026-01-05"


def test_a_lock_is_waited_for_and_its_holder_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    late = locked(path, "here", expected="one", fix="Wait.", patience=0)
    told = r"here: expected one, found process \d+ at it\. Wait\."
    with locked(path, "here", expected="one", fix="Wait."), pytest.raises(BusyError, match=told), late:
        pass
    with locked(path, "here", expected="one", fix="Wait.", patience=0):
        pass


@pytest.mark.parametrize(
    ("reference", "code", "found"),
    [
        ("abc://x", 2, "Could not find a registered artifact repository"),
        ("mlflow-artifacts:/x", 2, "must be a valid http or https URI"),
        ("https://host/x", 2, "a web address"),
        ("models:/shop/../../x", 2, "another form"),
        ("models:/shop", 2, "another form"),
        ("ftp://127.0.0.1:1/x", 1, "Connection refused"),
    ],
)
def test_places_elsewhere_are_blamed_by_their_own_name(tmp_path: Path, reference: str, code: int, found: str) -> None:
    runs.connect(None, str(tmp_path))
    with pytest.raises(FieldwiseError) as raised:
        bundle_of(reference)
    assert (raised.value.where, raised.value.exit_code) == (reference, code)
    assert found in raised.value.found
