"""The Unix side of the lane: the socket's file, and who may speak through it.

Rules
- The file has mode 0600, or 0660 and a group; it has them before anybody can connect. Beyond that
  each peer is asked for by SO_PEERCRED: root, the node's own user, or a member of the group.
- A file that a dead node left is replaced; one that a live node answers on is not; anything that is
  no socket is left alone. At the end the file is removed, if it is still ours.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from cachesvc.core.errors import AccessDenied

_CREDENTIALS = struct.Struct("@iII")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59
_MAX_GROUPS_BYTES = 1024  # the most that getsockopt returns in Python: 256 groups
_PROBE_S = 1.0

log = structlog.get_logger(__name__)


class SocketFileError(OSError):
    """The socket's file cannot be made; the message says why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Door:
    """A listening Unix socket, and the group that may come in beside root and the node's user."""

    listener: socket.socket
    group_id: int | None

    def admit(self, sock: socket.socket) -> None:
        """Raises AccessDenied unless the peer may come in. Says in the log who it was."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user_id, group_id = _CREDENTIALS.unpack(raw)
        known = user_id in (0, os.geteuid())
        if not known and self.group_id is not None:
            known = self.group_id == group_id or self.group_id in _groups(sock)
        log.info("unix peer", pid=pid, uid=user_id, gid=group_id, admitted=known)
        if not known:
            raise AccessDenied(
                f"user {user_id} may not use this node's Unix socket: run as user {os.geteuid()},"
                " or start the node with --unix-group and a group that both are in"
            )


@contextmanager
def open_door(path: Path, group: str = "", backlog: int = 1024) -> Iterator[Door]:
    """Listen on the path while the context lasts.

    Raises:
        SocketFileError: not there, or a live node is there already.
    """
    group_id = _group_id(group) if group else None
    _make_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(os.fspath(path))
            found = path.stat()
            path.chmod(0o600 if group_id is None else 0o660)
            if group_id is not None:
                os.chown(path, -1, group_id)
            listener.listen(backlog)
        except OSError as error:
            raise SocketFileError(
                f"unix socket {path} cannot be made: {error.strerror}; give another --unix PATH,"
                " in a folder that this user can write"
            ) from error
        try:
            yield Door(listener, group_id)
        finally:
            with suppress(OSError):
                now = path.lstat()
                if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
                    path.unlink()


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketFileError(
            f"unix group {group!r} is unknown on this machine: make it, or give another"
            " --unix-group NAME"
        ) from None


def _make_way(path: Path) -> None:
    """Remove what a dead node left on the path."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketFileError(f"unix socket {path}: there is something that is no socket; move it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise SocketFileError(
                    f"unix socket {path} cannot be tried: {error.strerror}; remove it if no node"
                    " uses it"
                ) from error
    raise SocketFileError(
        f"unix socket {path} is in use by a live node: stop that one, or give another --unix PATH"
    )


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """The peer's further groups, as they were when it connected."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS_BYTES)
    except OSError:  # in more groups than that
        return ()
    return struct.unpack(f"@{len(raw) // 4}I", raw)
