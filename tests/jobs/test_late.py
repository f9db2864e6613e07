"""What waits is loaded once it is asked for, and models are built without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from fieldwise.jobs.late import MODULES, load_late
load_late()
import torch
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.layout import Layout

waiting = [name for name in MODULES if type(sys.modules[name]).__name__ == "_Late"]
assert waiting == [*MODULES], waiting
with torch.device("meta"):  # as bundles are compared with their model
    for kind in MODELS:
        assert build_model(settings_of(kind, dim=2, pair_buckets=5), Layout.single([4, 5])).bias.is_meta
import inspect
inspect.getmodule(object())
assert type(torch._meta_registrations).__name__ == "_Late"
assert callable(torch._meta_registrations.register_meta)
assert type(torch._meta_registrations).__name__ == "module"
assert torch._meta_registrations.__spec__.name == "torch._meta_registrations"
"""


def test_a_module_waits_until_something_is_asked_of_it() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
