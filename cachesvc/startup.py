"""CACHESVC_INTERCEPT=1: interception in a program that knows nothing of it.

Story: `cachesvc.pth`, beside the installed packages, is read by every start of the interpreter, and
imports this module if the variable is set. `arm` then waits, in the import system, until
botocore or fsspec is imported, if ever, and has the client installed behind it.

Rules: the standard library's smallest part, and nothing else, is imported here; nothing that is
raised reaches the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, cast

OFF = ("0", "false", "no", "off")  # what CACHESVC_INTERCEPT says where nothing is intercepted
_DOORS = {"botocore.session": "botocore", "fsspec": "fsspec"}  # by the module that opens it


class _Watch:
    """A finder that finds nothing by itself: it has the module that another one finds told of."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """As importlib asks: the spec of a module that is watched for, None for any other."""
        if name not in _DOORS:
            return None
        for finder in sys.meta_path:
            if not isinstance(finder, _Watch):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = cast(Any, _Told(spec.loader, name))
                    return spec
        return None


class _Told:
    """A loader that tells when its module is loaded."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader = loader
        self._name = name

    def __getattr__(self, what: str) -> Any:
        return getattr(self._loader, what)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Load the module, and open its door."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _open(self._name)


_watch = _Watch()


def arm() -> None:
    """Open each door when its library is imported, or now if it is, unless the variable says no.
    Again, as virtual environments read .pth files twice, is nothing.
    """
    if _watch in sys.meta_path or os.environ["CACHESVC_INTERCEPT"].lower() in OFF:
        return
    sys.meta_path.insert(0, _watch)
    for name in _DOORS:
        if name in sys.modules:
            _open(name)


def disarm() -> None:
    """Open no door any more."""
    if _watch in sys.meta_path:
        sys.meta_path.remove(_watch)


def _open(name: str) -> None:
    try:
        from cachesvc_client.install import install_from_environment

        install_from_environment(_DOORS[name])
    except Exception as error:
        sys.stderr.write(f"cachesvc: CACHESVC_INTERCEPT has no effect: {error}\n")
