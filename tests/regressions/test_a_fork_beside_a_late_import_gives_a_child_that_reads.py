"""Bug: a child that was forked while another thread of its parent imported botocore, because no
node could answer, hung as soon as it needed botocore too: the module stayed locked in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cachesvc.devorigin import DevOrigin
from tests.support import PATIENCE_S

SCRIPT = """
import os, sys
from threading import Event, Thread
from cachesvc_client import CacheClient

importing, forking = Event(), Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "botocore.hooks":  # the midst of botocore.session
            importing.set()
            assert forking.wait(10)

assert "botocore" not in sys.modules
sys.meta_path.insert(0, Slow())
os.register_at_fork(before=forking.set)  # the last one is called first
client = CacheClient("127.0.0.1:1", origin={"endpoint_url": sys.argv[1]})
beside = Thread(target=client.read, args=("s3://bucket/key",))
beside.start()
assert importing.wait(10)
child = os.fork()
if not child:
    os._exit(client.read("s3://bucket/key") != b"bytes")
beside.join()
sys.exit(os.waitpid(child, 0)[1])
"""


def test_the_child_reads(tmp_path: Path) -> None:
    with DevOrigin(tmp_path) as origin:
        origin.put("bucket", "key", b"bytes")
        command = [sys.executable, "-c", SCRIPT, origin.url]
        process = subprocess.Popen(command, process_group=0)
        try:
            assert process.wait(PATIENCE_S) == 0
        finally:
            with suppress(ProcessLookupError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
