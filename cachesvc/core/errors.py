"""The errors of cachesvc: one small tree, used by nodes and clients alike.

Rules: every class states its own retry decision, so that no caller has to guess; every message
names what failed, on which object or node, why, and what to do. One table maps the classes to wire
codes (`wire/codec.py`), both ways.

The tree hangs under OSError because callers treat a cache like a file system: `except OSError` must
be enough, and `except FileNotFoundError` must keep working when a loader moves from files to the
cache.
"""

from __future__ import annotations

import errno
from enum import Enum


class Retry(Enum):
    """What the holder of an error should do with the same request."""

    NEVER = "never"  # the answer would be the same everywhere
    REFRESH = "refresh"  # ask again for the object's version first
    ELSEWHERE = "elsewhere"  # this node cannot; another owner or the origin can


class CacheError(OSError):
    """Any failure of a read through the cache. The root of the tree; itself raised for nothing."""

    retry = Retry.ELSEWHERE
    number: int | None = None  # `errno`, of those that a file system has too

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = self.number
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[CacheError], tuple[str]]:
        return type(self), (self.message,)


class ObjectNotFound(CacheError, FileNotFoundError):
    """The origin has no such bucket or key."""

    number = errno.ENOENT
    retry = Retry.NEVER


class AccessDenied(CacheError, PermissionError):
    """The origin, or a node that asks for a token, refuses."""

    number = errno.EACCES
    retry = Retry.NEVER


class RangeError(CacheError, ValueError):
    """A range that is negative, reversed, or begins beyond the end of the object."""

    retry = Retry.NEVER


class InvalidKey(CacheError, ValueError):
    """A bucket, key or URI that no S3 object can have."""

    retry = Retry.NEVER


class ObjectChanged(CacheError):
    """The object was overwritten, and bytes of the version that was asked for are gone."""

    retry = Retry.REFRESH


class NotCacheable(CacheError):
    """The object has no strong ETag: read it with a bypass."""

    retry = Retry.REFRESH


class OriginError(CacheError):
    """The origin failed after all retries that the budget allowed."""


class NoCredentials(OriginError):
    """Whoever would have asked the origin has no credentials for it."""


class Overloaded(CacheError):
    """A named limit of the node is reached; it says so at once instead of queueing."""


class Unauthenticated(AccessDenied):
    """The token is missing or wrong."""


class ProtocolError(CacheError):
    """The other end sent something that is not the protocol, or not our version of it."""


class NodeUnavailable(CacheError):
    """A node could not be reached, hung up, or stayed silent beyond its limit."""


class CorruptAnswer(CacheError):
    """Received bytes do not match their checksum."""


class InternalError(CacheError):
    """A defect: the node's log has the traceback."""
