"""torch without its shape rules: the engine does without them, and whoever traces gets them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from mezzo.engine.torch_import import import_torch
import_torch()
import torch
rules = "torch._meta_registrations"
assert rules not in sys.modules
assert torch.nn.functional.silu(torch.ones(2, 2)).shape == (2, 2)
import_torch()  # once is enough
{then}
assert rules in sys.modules
"""
TRACED = """
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    ids, table = torch.zeros(3, dtype=torch.long), torch.zeros(5, 4)
    assert torch.nn.functional.embedding(ids, table).shape == (3, 4)
"""
BY_NAME = "assert callable(torch._meta_registrations.meta_index_Tensor)"


@pytest.mark.parametrize("then", [TRACED, BY_NAME])
def test_the_rules_come_when_they_are_needed(then: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM.format(then=then)], check=True, timeout=120)
