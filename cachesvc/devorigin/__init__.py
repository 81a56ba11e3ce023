"""A folder as an S3 endpoint, with latency and faults: for the demo, the tests and the benchmarks.

Where what lives: `server` the process and the thread; `service` the S3 operations; `folder` and
`keys` the files; `answer` and `send` honest and lying answers; `faults` how to be slow or wrong;
`http` ranges, conditions and errors; `listing` ListObjectsV2; `log` the request log.
"""

from cachesvc.devorigin.faults import Fault, Shape
from cachesvc.devorigin.log import LoggedRequest
from cachesvc.devorigin.server import DevOrigin, run, serve

__all__ = ["DevOrigin", "Fault", "LoggedRequest", "Shape", "run", "serve"]
