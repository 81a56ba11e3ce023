"""The servers of a workload: our node, the peers and the ceiling, on loopback, until its end.

Rules: every server is a child that is ended by its own handle; it listens on 127.0.0.1 only; one
that can't be had is a reason in `missing`, and the systems that need it are skipped.

Story: `Servers` starts what a workload names, in front of one folder of objects: `node`, `nginx`
(static, sendfile), `nginx cache` (slice, proxy_cache, proxy_cache_lock) and `varnish` (both in
front of the origin), `redis`, `sendfile`, `checking`, `relay` and `hashing relay` (the
ceilings), and `origin` itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.environment import Environment
from benchmarks.harness import children, dev_origin, node, process
from benchmarks.job import VALUE_BYTES, split
from cachesvc.config import NodeConfig, parse_size
from cachesvc.devorigin.ports import free_ports

_PATIENCE_S = 20

_NGINX = """
daemon off; master_process on; worker_processes {workers}; pid {work}/nginx.pid; {user}
error_log {work}/error.log; worker_rlimit_nofile 8192;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000; keepalive_timeout 600s;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};
  uwsgi_temp_path {work}; scgi_temp_path {work};
  {server}
}}
"""
_STATIC = "server {{ listen 127.0.0.1:{port}; root {root}; open_file_cache max=1000; }}"
_CACHE = """
  proxy_cache_path {work}/cache levels=1:2 keys_zone=bench:16m max_size={capacity} inactive=1h
    use_temp_path=off;
  upstream origin {{ server {origin}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      slice 8m; proxy_cache bench; proxy_cache_lock on; proxy_cache_lock_timeout 60s;
      proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;
      proxy_cache_valid 200 206 1h; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_pass http://origin;
    }}
  }}
"""
_VCL = """
vcl 4.1;
backend default {{ .host = "{host}"; .port = "{port}"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its process, and where each of its lanes is."""

    pid: int
    addresses: dict[str, str]

    def pids(self) -> list[int]:
        return children(self.pid)


def unix_lane() -> str | None:
    """Why this build has no lane for the same host, or None."""
    from cachesvc_client import CacheClient

    if "unix" not in NodeConfig.model_fields or not hasattr(CacheClient, "map"):
        return "this build has no --unix and no CacheClient.map"
    return None


class Servers:
    """The servers of a workload, by name. A context manager."""

    def __init__(
        self,
        environment: Environment,
        work: Path,
        names: Sequence[str],
        *,
        shape: Sequence[str] = (),
        capacity: str = "4GiB",
    ) -> None:
        self.running: dict[str, Server] = {}
        self.missing: dict[str, str] = {}
        self.root = work / "root"
        self._environment = environment
        self._work = work
        self._names = names
        self._shape = shape
        self._capacity = capacity
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        (self.root / "bench").mkdir(parents=True, exist_ok=True)
        self._work.chmod(0o755)
        self.origin = self._exits.enter_context(dev_origin(self.root, *self._shape))
        starts: dict[str, Callable[[], Server]] = {
            "origin": lambda: Server(0, {"http": self.origin.removeprefix("http://")}),
            "node": self._node,
            "nginx": lambda: self._nginx("static"),
            "nginx cache": lambda: self._nginx("cache"),
            "varnish": self._varnish,
            "redis": self._redis,
            "sendfile": lambda: self._python("sendfile_server"),
            "checking": lambda: self._python("checking_server"),
            "relay": self._relay,
            "hashing relay": lambda: self._relay("checksums"),
        }
        programs = {
            "nginx": "nginx",
            "nginx cache": "nginx",
            "varnish": "varnishd",
            "redis": "redis-server",
        }
        try:
            for name in self._names:
                reason = self._environment.lacking([programs.get(name, name)])
                if reason:
                    self.missing[name] = reason
                    continue
                try:
                    self.running[name] = starts[name]()
                except (OSError, RuntimeError) as error:
                    if name not in programs:
                        raise
                    self.missing[name] = f"{name} could not be started: {error}"
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _node(self) -> Server:
        options = ["--capacity", self._capacity]
        unix = self._work / "node.sock"
        if unix_lane() is None:
            options += ["--unix", str(unix)]
        running = self._exits.enter_context(node(self._work / "node", self.origin, *options))
        lane = f"{running.lane[0]}:{running.lane[1]}"
        addresses = {"lane": lane, "grpc": f"grpc://{running.grpc}", "unix": f"unix://{unix}"}
        return Server(running.process.pid, addresses)

    def _start(self, address: str, *command: str) -> Server:
        """A server that listens on an address once it is ready."""
        child = self._exits.enter_context(process(*command, ready=False))
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                socket.create_connection(split(address)).close()
                return Server(child.pid, {"http": address})
            except OSError:
                if time.monotonic() > deadline or child.poll() is not None:
                    raise RuntimeError(f"{command[0]} does not listen on {address}") from None
                time.sleep(0.05)

    def _nginx(self, kind: str) -> Server:
        (port,) = free_ports(1)
        work = self._work / f"nginx-{kind}"
        work.mkdir()
        template = _STATIC if kind == "static" else _CACHE
        server = template.format(
            port=port, root=self.root, work=work, origin=self.origin.removeprefix("http://"),
            capacity=self._capacity.removesuffix("iB").lower(),
        )  # fmt: skip
        user = "user root;" if os.geteuid() == 0 else ""
        config = work / "nginx.conf"
        workers = os.cpu_count()
        config.write_text(_NGINX.format(work=work, server=server, user=user, workers=workers))
        return self._start(f"127.0.0.1:{port}", "nginx", "-c", str(config), "-p", str(work))

    def _varnish(self) -> Server:
        (port,) = free_ports(1)
        host, origin_port = split(self.origin.removeprefix("http://"))
        vcl = self._work / "bench.vcl"
        vcl.write_text(_VCL.format(host=host, port=origin_port))
        return self._start(
            f"127.0.0.1:{port}", "varnishd", "-F", "-j", "none", "-n", str(self._work / "varnish"),
            "-a", f"127.0.0.1:{port}", "-f", str(vcl), "-s", "default,2g",
            "-s", "Transient=malloc,1g",
        )  # fmt: skip

    def _redis(self) -> Server:
        (port,) = free_ports(1)
        return self._start(
            f"127.0.0.1:{port}", "redis-server", "--port", str(port), "--bind", "127.0.0.1",
            "--save", "", "--appendonly", "no", "--maxmemory", "3gb", "--dir", str(self._work),
        )  # fmt: skip

    def _python(self, module: str) -> Server:
        """A ceiling that serves the files of the root."""
        (port,) = free_ports(1)
        command = (sys.executable, "-m", f"benchmarks.{module}", str(self.root), str(port))
        child = self._exits.enter_context(process(*command))
        return Server(child.pid, {"http": f"127.0.0.1:{port}"})

    def _relay(self, *how: str) -> Server:
        (port,) = free_ports(1)
        folder = self._work / "-".join(("relay", *how))
        folder.mkdir()
        child = self._exits.enter_context(
            process(
                sys.executable, "-m", "benchmarks.relay_server", str(folder),
                self.origin.removeprefix("http://"), str(port), str(parse_size(self._capacity)),
                *how,
            )
        )  # fmt: skip
        return Server(child.pid, {"http": f"127.0.0.1:{port}"})


def store_in_redis(address: str, key: str, file: Path) -> None:
    """Put an object's pieces where the reader of redis looks for them."""
    with socket.create_connection(split(address)) as sock, file.open("rb") as source:
        number = 0
        while piece := source.read(VALUE_BYTES):
            name = f"{key}:{number}".encode()
            head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, len(piece))
            sock.sendall(head + piece + b"\r\n")
            answer = sock.recv(1024)
            if not answer.startswith(b"+OK"):
                raise RuntimeError(f"redis did not store {name!r}: {answer!r}")
            number += 1


def version_of(program: str) -> str:
    """What a server says of its version, or nothing."""
    options = {"nginx": "-v", "redis-server": "--version", "varnishd": "-V", "openssl": "version"}
    if shutil.which(program) is None:
        return ""
    done = subprocess.run(
        [program, options[program]], check=False, capture_output=True, text=True, timeout=10
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""
