"""The program of a reading process: waits for its work, reads it with the cache or without, tells
the result.

Standard input: one JSON line {"endpoint", "origin", "uris", "end", "threads"}. endpoint null: no
cache, the client reads the origin itself, as it does when no node can be reached. end: where to end
in each object, null for its own end; a small object is then one GET. It prints `ready` once it is
imported and has its work, begins at the next line, and prints {"seconds", "bytes", "sha256": {uri:
digest}}. Hashing is not in the time, nor the making of an S3 client.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from cachesvc_client import CacheClient

_NO_CLUSTER = "127.0.0.1:1"


def main() -> None:
    """Read once, as told."""
    work = json.loads(sys.stdin.readline())
    endpoint = work["endpoint"] or _NO_CLUSTER
    with (
        CacheClient(endpoint, origin={"endpoint_url": work["origin"]}) as client,
        ThreadPoolExecutor(work["threads"]) as pool,
    ):
        if work["endpoint"] is None:
            logging.getLogger("cachesvc_client").disabled = True  # it would warn of what is meant
            client.stat(work["uris"][0])
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.perf_counter()
        contents = list(pool.map(lambda uri: client.read(uri, 0, work["end"]), work["uris"]))
        seconds = time.perf_counter() - started
    digests = {
        uri: sha256(content).hexdigest()
        for uri, content in zip(work["uris"], contents, strict=True)
    }
    size_bytes = sum(len(content) for content in contents)
    print(json.dumps({"seconds": seconds, "bytes": size_bytes, "sha256": digests}), flush=True)


if __name__ == "__main__":
    main()
