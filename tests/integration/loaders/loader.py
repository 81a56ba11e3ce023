"""What a loader of the tables here is, and where it reads.

Rules: everything here is pickled, because loaders read in processes of their own. Libraries are
imported by the functions that use them, so that one which is missing is missed by its own test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUCKET = "data"
KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}


@dataclass(frozen=True)
class Where:
    """Where a loader finds the bucket: through the cache, or directly.

    s3: an S3 endpoint, the gateway's or the origin's own. url: of the bucket, for fsspec. options:
    of a file system of that URL, and settings of a CacheClient; none of the origin's own folder.
    """

    s3: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The bucket as a folder. Only where it is read directly."""
        assert self.url.startswith("file://")
        return Path(self.url.removeprefix("file://"))


Read = Callable[[Where, str], Any]


@dataclass(frozen=True)
class Loader:
    """A program, and how it reads a folder of the bucket.

    objects: what stands in the folder, by key. read: all that it reads there, in a form that is
    equal for equal bytes. direct: the same without the cache; default: `read`, elsewhere. needs:
    modules. unless: what keeps it from running here all the same, or "".
    """

    name: str
    objects: Callable[[], Mapping[str, bytes]]
    read: Read
    needs: tuple[str, ...] = ()
    direct: Read | None = None
    unless: Callable[[], str] = str

    def missing(self) -> str:
        """Why it cannot run here, or ""."""
        missing = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(missing)} is not installed" if missing else self.unless()


def digest(data: Any) -> tuple[int, str]:
    """Bytes in a form that is quickly passed to another process."""
    view = memoryview(data).cast("B")
    return len(view), hashlib.sha256(view).hexdigest()
