"""From a socket into a block file: receiving into memory, or splicing past it; and with TLS.

256 MiB in 8 MiB files from a local origin, 4 connections at a time, every page hashed; then all
files are mapped and hashed whole, because how a file was written decides how fast it maps. GB/s of
the filling, CPU-s/GiB of it (the origin's process is not ours), and ms of mapping and hashing. TLS
needs a certificate, which openssl makes; without it http is measured alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.harness import MIB, Figure, forked, in_turn

FILE_BYTES, FILE_COUNT, AT_ONCE = 8 * MIB, 32, 4
PAGE_BYTES, PIPE_BYTES = 64 << 10, 1 * MIB
_BODY = os.urandom(MIB) * 8
_BUFFERS = threading.local()
Land = Callable[[socket.socket, int], None]
System = tuple[tuple[str, int], ssl.SSLContext | None, Land]


def _hash(view: memoryview) -> None:
    for start in range(0, len(view), PAGE_BYTES):
        xxhash.xxh3_64_intdigest(view[start : start + PAGE_BYTES])


def receive(piece_bytes: int, write_bytes: int = FILE_BYTES) -> Land:
    """As a fill does: pieces into a used buffer, hashed while they are warm, written in runs of
    `write_bytes`; a fill writes a whole block at once.
    """

    def land(sock: socket.socket, file: int) -> None:
        if not hasattr(_BUFFERS, "view"):
            _BUFFERS.view = memoryview(bytearray(FILE_BYTES))
        view, position, written = _BUFFERS.view, 0, 0
        while position < FILE_BYTES:
            border = min(FILE_BYTES, (position // piece_bytes + 1) * piece_bytes)
            begin = position
            while position < border:
                count = sock.recv_into(view[position:border])
                if not count:
                    raise RuntimeError("the origin hung up")
                position += count
            _hash(view[begin:border])
            if border - written >= write_bytes or border == FILE_BYTES:
                os.pwrite(file, view[written:border], written)
                written = border

    return land


def splice(sock: socket.socket, file: int) -> None:
    """Socket to pipe to file; hashed from a mapping of the file."""
    reading, writing = os.pipe()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        position = 0
        while position < FILE_BYTES:
            count = os.splice(sock.fileno(), writing, min(PIPE_BYTES, FILE_BYTES - position))
            if not count:
                raise RuntimeError("the origin hung up")
            while count:
                moved = os.splice(reading, file, count, offset_dst=position)
                position += moved
                count -= moved
    finally:
        os.close(reading)
        os.close(writing)
    with mmap.mmap(file, FILE_BYTES, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        _hash(view)


def _serve(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """8 MiB for each byte that is sent to it, until the listener closes."""

    def answer(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock = context.wrap_socket(raw, server_side=True) if context else raw
            with sock:
                while sock.recv(1):
                    sock.sendall(_BODY)

    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(raw,), daemon=True).start()


def _contexts(work: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """The origin's, a client's, and a client's that lets the kernel decipher."""
    key, certificate = work / "key.pem", work / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    plain, kernel = (ssl.create_default_context(cafile=str(certificate)) for _ in range(2))
    kernel.options |= getattr(ssl, "OP_ENABLE_KTLS", 0x8)
    for one in (plain, kernel):
        one.maximum_version = (
            ssl.TLSVersion.TLSv1_2
        )  # the kernel receives only this one for OpenSSL
    return server, plain, kernel


def _deciphers(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """Whether the kernel took TLS over: the TLS layer answers for its options then."""
    with socket.create_connection(address) as raw:
        sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
        try:
            sock.getsockopt(282, 2, 64)  # SOL_TLS, TLS_RX
        except OSError:
            return False
        return True


def _measure(
    address: tuple[str, int], context: ssl.SSLContext | None, land: Land, folder: Path
) -> tuple[float, float, float]:
    """GB/s, CPU-s/GiB, and ms to map the files and hash them."""

    def connected() -> socket.socket:
        raw = socket.create_connection(address)
        return context.wrap_socket(raw, server_hostname="127.0.0.1") if context else raw

    names = [folder / f"block-{number}" for number in range(FILE_COUNT)]
    left = iter(names)
    lock = threading.Lock()

    def fill(sock: socket.socket) -> None:
        while True:
            with lock:
                name = next(left, None)
            if name is None:
                return
            file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            sock.sendall(b"8")
            land(sock, file)
            os.close(file)

    with ExitStack() as exits, ThreadPoolExecutor(AT_ONCE) as threads:
        socks = [exits.enter_context(connected()) for _ in range(AT_ONCE)]
        cpu, started = time.process_time(), time.perf_counter()
        list(threads.map(fill, socks))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    for name in names:
        with open(name, "rb") as opened:
            xxhash.xxh3_64_intdigest(mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ))
    map_ms = (time.perf_counter() - started) * 1000
    for name in names:
        name.unlink()
    total = FILE_BYTES * FILE_COUNT
    return total / seconds / 1e9, cpu / (total / (1 << 30)), map_ms


def run(work: Path, rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    found: dict[str, list[tuple[float, float, float]]] = {}
    with ExitStack() as exits:
        http, _ = exits.enter_context(forked(partial(_serve, context=None)))
        systems: dict[str, System] = {
            "http, recv_into 256 KiB": (http, None, receive(256 << 10)),
            "http, recv_into 1 MiB": (http, None, receive(MIB)),
            "http, recv_into 1 MiB, written by 2 MiB": (http, None, receive(MIB, 2 * MIB)),
            "http, splice": (http, None, splice),
        }
        if shutil.which("openssl") is None:
            figures["https"] = "skipped: openssl is not installed (apt-get install openssl)"
        else:
            server, plain, kernel = _contexts(work)
            https, _ = exits.enter_context(forked(partial(_serve, context=server)))
            systems["https, recv_into 256 KiB"] = (https, plain, receive(256 << 10))
            systems["https, recv_into 1 MiB"] = (https, plain, receive(MIB))
            figures["the kernel deciphers"] = str(_deciphers(https, kernel))
            if _deciphers(https, kernel):
                systems["https by the kernel, recv_into 1 MiB"] = (https, kernel, receive(MIB))
        for number in range(rounds + 1):
            for name in in_turn(list(systems), number):
                measured = _measure(*systems[name], work)
                if number:
                    found.setdefault(name, []).append(measured)
    for name, values in found.items():
        for what, column in zip(
            ("GB/s", "CPU-s/GiB", "map ms"), zip(*values, strict=True), strict=True
        ):
            figures[f"{name}, {what}"] = Figure.of(column).as_json()
    return figures
