"""moto, an S3 of somebody else's, in the test's process: without what it does for each request that
no test needs, a log line and a look through its own folder, which is most of its time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def running_moto() -> Iterator[str]:
    """Its address."""
    from moto import backends
    from moto.server import ThreadedMotoServer

    log = logging.getLogger("werkzeug")
    known = list(backends.list_of_moto_modules())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with patch.object(backends, "list_of_moto_modules", lambda: known):
        before = log.level
        log.setLevel(logging.WARNING)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()
            log.setLevel(before)
