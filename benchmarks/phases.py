"""Time the phases of a download, by wrapping functions of the provider once they have been imported.

This slows the download a little, so the runs that are compared do without it.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_PACKAGE = "airflow_provider_hkex_rap."
_FUNCTIONS = (
    ("check of the lake", "lake.preflight", "check_lake"),
    ("keys", "keystore.login_keys", "LoginKeys.choose"),
    ("keys", "keystore.login_keys", "LoginKeys.note_login"),
    ("connect", "transport.session", "connect"),
    ("connect", "transport.session", "RapSession.start"),
    ("list", "transport.session", "RapSession.list_folder"),
    ("ledger", "lake.landing", "Landing.load_ledger"),
    ("ledger", "lake.landing", "Landing.extend_ledger"),
    ("plan", "operators.ingest", "plan"),
    ("read", "transport.session", "RapSession.read"),
    ("commit", "lake.store", "Lake.commit"),
    ("manifest", "lake.manifest_writer", "create_once"),
    ("log out", "transport.session", "RapSession.close"),
)
"""Phase, module, and function or method. A function that does not exist is left out of the report."""


@dataclass
class _Span:
    """When the first call of a phase began and the last one ended, and the time in all calls together."""

    begins: float
    ends: float = 0.0
    busy: float = 0.0
    calls: int = 0


class Phases:
    """Measures the phases of the calls inside of the block, in seconds from its beginning."""

    def __init__(self) -> None:
        self._spans: dict[str, _Span] = {}
        self._left = list(_FUNCTIONS)
        self._undo: list[tuple[Any, str, Any]] = []
        self._import = builtins.__import__
        self._depth = threading.local()
        self._lock = threading.Lock()

    def __enter__(self) -> Phases:
        self._started = time.perf_counter()
        builtins.__import__ = self._importing  # type: ignore[assignment]
        self._wrap_imported()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        builtins.__import__ = self._import
        for owner, name, function in self._undo:
            setattr(owner, name, function)
        self._spans["whole"] = _Span(0.0, time.perf_counter() - self._started, calls=1)

    def report(self) -> dict[str, dict[str, float]]:
        """Return the phases in the order in which they began."""
        spans = sorted(self._spans.items(), key=lambda item: (item[0] == "whole", item[1].begins))
        return {name: vars(span) for name, span in spans}

    def _importing(self, *args: Any, **kwargs: Any) -> Any:
        """Time the imports that are not part of another import."""
        if getattr(self._depth, "inside", False):
            return self._import(*args, **kwargs)
        self._depth.inside = True
        known, begun = len(sys.modules), time.perf_counter()
        try:
            return self._import(*args, **kwargs)
        finally:
            self._depth.inside = False
            if len(sys.modules) > known:
                self._add("import", begun)
                self._wrap_imported()

    def _add(self, phase: str, begun: float) -> None:
        ended = time.perf_counter()
        with self._lock:
            span = self._spans.setdefault(phase, _Span(begun - self._started))
            span.begins = min(span.begins, begun - self._started)
            span.ends = max(span.ends, ended - self._started)
            span.busy += ended - begun
            span.calls += 1

    def _wrap_imported(self) -> None:
        for phase, module_name, path in list(self._left):
            module = sys.modules.get(_PACKAGE + module_name)
            *classes, name = path.split(".")
            owner = getattr(module, classes[0], None) if classes else module
            function = getattr(owner, name, None)
            if module and function and not getattr(module.__spec__, "_initializing", False):
                self._left.remove((phase, module_name, path))
                self._undo.append((owner, name, function))
                setattr(owner, name, self._wrapped(phase, function))

    def _wrapped(self, phase: str, function: Any) -> Any:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                begun = time.perf_counter()
                try:
                    return await function(*args, **kwargs)
                finally:
                    self._add(phase, begun)

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                begun = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    self._add(phase, begun)

        return wrapped
