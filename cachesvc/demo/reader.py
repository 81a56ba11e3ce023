"""The program of a reading process: waits for its work, reads it through the cache, tells the
result.

Standard input: one JSON line {"endpoint", "origin", "uris", "threads"}. It prints `ready` once it
is imported and has its work, begins at the next line, and prints {"seconds", "bytes", "sha256":
{uri: digest}}. Hashing is not in the time.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from cachesvc_client import CacheClient


def main() -> None:
    """Read once, as told."""
    work = json.loads(sys.stdin.readline())
    with (
        CacheClient(work["endpoint"], origin={"endpoint_url": work["origin"]}) as client,
        ThreadPoolExecutor(work["threads"]) as pool,
    ):
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.perf_counter()
        contents = list(pool.map(client.read, work["uris"]))
        seconds = time.perf_counter() - started
    digests = {
        uri: sha256(content).hexdigest()
        for uri, content in zip(work["uris"], contents, strict=True)
    }
    size_bytes = sum(len(content) for content in contents)
    print(json.dumps({"seconds": seconds, "bytes": size_bytes, "sha256": digests}), flush=True)


if __name__ == "__main__":
    main()
