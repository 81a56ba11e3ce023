"""A node whose fills are of other sizes: GEOMETRY (JSON) and READAHEAD_BLOCKS for one reader.

`python -m benchmarks.fill_node node ...` takes the options of `cachesvc node`.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

from cachesvc import app, cli, readahead, reader
from cachesvc.core.types import Geometry

_BOUND_BYTES = 512 << 20  # for all readers, so that what one may have is what counts


def _readahead(joiner: Any, _: int, owns: Any) -> readahead.Readahead:
    return readahead.Readahead(joiner, _BOUND_BYTES, owns)


def main() -> None:
    changed: dict[str, Any] = {"Geometry": partial(Geometry, **json.loads(os.environ["GEOMETRY"]))}
    vars(app).update(changed)
    vars(reader).update(Readahead=_readahead)
    readahead.MAX_BLOCKS = int(os.environ["READAHEAD_BLOCKS"])
    cli.main()


if __name__ == "__main__":
    main()
