"""Sending what a socket takes now: memory by send, parts of block files by sendfile, files as
descriptors.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque

from cachesvc import passing
from cachesvc.answer import FilePart, Part
from cachesvc.passing import PassedPart

Item = Part | PassedPart


def push(sock: socket.socket, items: deque[Item], budget_bytes: int) -> int:
    """Send about `budget_bytes` of the items, or less if the socket takes no more: how many bytes
    that were. What has left is taken out of `items`; of a file's part, out of the part.

    sock: one that does not block. Raises: OSError: the connection is gone, or the first item's file
    cannot be read.
    """
    left_bytes = budget_bytes
    try:
        while items and left_bytes > 0:
            item = items[0]
            if isinstance(item, FilePart):
                sent = _push_file(sock.fileno(), item, left_bytes)
                done = not item.length_bytes
            elif isinstance(item, PassedPart):
                sent = passing.send(sock, item)
                items[0], done = item.frame[sent:], sent == len(item.frame)
            else:
                flags = socket.MSG_MORE if len(items) > 1 else 0
                sent = sock.send(item[:left_bytes], flags)
                items[0], done = item[sent:], sent == len(item)
            left_bytes -= sent
            if done:
                items.popleft()
    except BlockingIOError:
        pass
    return budget_bytes - left_bytes


def _push_file(out: int, part: FilePart, budget_bytes: int) -> int:
    count = min(part.length_bytes, budget_bytes)
    sent = os.sendfile(out, part.pin.fileno(), part.offset, count)
    if sent == 0:
        raise OSError(errno.ENODATA, "the block file is shorter than its trailer says")
    part.offset += sent
    part.length_bytes -= sent
    return sent
