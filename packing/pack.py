"""The build backend: setuptools', and `cachesvc.pth` put into every wheel, editable ones too.

Story: setuptools has no way to place a file beside the installed packages, where the interpreter
reads .pth files at its start. So the finished wheel is written anew with that one file more, and a
line for it in RECORD (PEP 427).
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from setuptools.build_meta import (
    build_editable as _build_editable,
)
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.build_meta import (
    build_wheel as _build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PTH = Path(__file__).parent / "cachesvc.pth"


def build_wheel(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    """As PEP 517 asks: the name of a wheel in the directory."""
    name = _build_wheel(directory, settings, metadata)
    add_pth(Path(directory, name))
    return name


def build_editable(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    """As PEP 660 asks: the name of a wheel in the directory."""
    name = _build_editable(directory, settings, metadata)
    add_pth(Path(directory, name))
    return name


def add_pth(wheel: Path) -> None:
    """Write the wheel anew, with the .pth file."""
    data = PTH.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    line = f"{PTH.name},sha256={digest},{len(data)}\n"
    fresh = wheel.with_suffix(".tmp")
    with ZipFile(wheel) as old, ZipFile(fresh, "w", ZIP_DEFLATED) as new:
        new.writestr(PTH.name, data)
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                content += line.encode()
            new.writestr(entry, content)
    os.replace(fresh, wheel)
