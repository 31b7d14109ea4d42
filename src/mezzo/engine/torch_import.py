"""Importing torch to compute with it, in three quarters of the time and with 18 MB less.

A quarter of `import torch` goes into rules, written in Python, for the shapes that operators return. They are for
tracing and compiling, and an engine does neither; so they are left out until somebody does.
Measured: docs/decisions/0026-start.md.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_RULES = "torch._meta_registrations"
_TRACING = "torch._dynamo"  # everything that traces imports it first


def import_torch() -> None:
    """Import torch without its shape rules; does nothing where it is imported already.

    They are imported when they are asked for by name, or when tracing is imported.
    """
    if "torch" in sys.modules:
        return
    sys.modules[_RULES] = _Later(_RULES)
    import torch  # noqa: F401, PLC0415

    if isinstance(sys.modules[_RULES], _Later):
        del sys.modules[_RULES]
        sys.meta_path.insert(0, _RulesBeforeTracing())


class _Later(ModuleType):
    """Stands for the rules while torch is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks what this is
            raise AttributeError(name)
        if sys.modules.get(_RULES) is self:
            del sys.modules[_RULES]
        return getattr(importlib.import_module(_RULES), name)


class _RulesBeforeTracing:
    """A finder that finds nothing, but hears of the import of what needs the rules."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == _TRACING:
            sys.meta_path.remove(self)
            importlib.import_module(_RULES)
