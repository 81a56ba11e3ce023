"""What the read logic asks of the world: effects, and what comes back.

Story: the generators of script.py decide and never act. They yield an effect; a driver performs it
and sends the result back, or throws the CacheError that came of it. The blocking client drives
them with threads (drive.py), the simulator with tasks under virtual time; both run the same logic.

The contract of a driver
- Ask: send the request to the member and put the bytes where `target` wants them, checked (see
  receipt.py). Send back a Reply, or throw: what the node answered, NodeUnavailable (not reached,
  hung up, silent), ProtocolError, CorruptAnswer. After a throw nothing writes to the target.
- AskOrigin: the same from the origin itself: one HEAD if target is None, else one single GET.
- Together: run all, in any order, in parallel as far as it can; send back one outcome each, in
  order: the value, or the CacheError. None still runs when it answers.
- Refresh: get a member table, from `member` if one is named, else from any endpoint, and give it
  to the router (`adopt`). Send back None, at once if the last one is too young; throw if no
  endpoint can be reached, at once if that is known.
- Forget: have the member forget what it believes of the objects' versions. Send back None; throw as
  for Ask.
- `target.begin(version)` is called by the driver before the first byte, exactly if the effect names
  no version; the script has called it otherwise.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cachesvc.core.errors import CacheError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ObjectName, ObjectVersion, Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Laid:
    """Bytes of a file, shown in place, all of them in memory.

    was_read: some had to be read from the disk for it, as far as the kernel says.
    """

    view: memoryview
    was_read: bool


class Target(Protocol):
    """Where the bytes of a read go. in_place: files are shown there, as far as any are passed."""

    @property
    def in_place(self) -> bool: ...

    def begin(self, version: ObjectVersion) -> None:
        """The version is known: make room. Called again for another version, it starts anew."""

    def view(self, start: int, length_bytes: int) -> memoryview:
        """The room for bytes `[start, start + length_bytes)` of the object."""

    def settled(self, start: int, length_bytes: int) -> None:
        """These bytes are where they belong, and right. Mostly not told of what is received whole
        (foreseen.py): there the reply says it.
        """

    def lay(self, file: int, offset: int, start: int, length_bytes: int, /) -> Laid | None:
        """Show bytes of an open file, from `offset` on, as those of the object from `start` on.

        None: copy them into `view`. Raises OSError if the file cannot be read, after which `view`
        makes the room anew.
        """


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node or the origin answered, its bytes being where they belong.

    fresh_for_s: from the sending of the request, for how long to believe that the version is the
    current one. sources: bytes by where they came from, none for a stat or a HEAD. epoch: of the
    node's member table, 0 from the origin. direct: the origin answered; the script sets it.
    """

    version: ObjectVersion
    fresh_for_s: float = 0.0
    sources: Mapping[Source, int] = field(default_factory=dict)
    epoch: int = 0
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to one node. target is None exactly for a StatRequest. Answered by a Reply."""

    member: Member
    request: ReadRequest | StatRequest
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class AskOrigin:
    """One request to the origin: `[start, end)`, end None for the object's end.

    Answered by a Reply. version: the answer must be of it (If-Match where it has a strong ETag),
    else ObjectChanged. target None: a HEAD. patience_s: while nothing has come, no attempt begins
    later than that. why: what the last node that was asked said, if one was.
    """

    name: ObjectName
    version: ObjectVersion | None
    start: int = 0
    end: int | None = None
    target: Target | None = None
    patience_s: float = float("inf")
    why: CacheError | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """Several pieces of work at a time. Answered by a list of outcomes: value or CacheError."""

    steps: Sequence[Steps[Any]]


@dataclass(frozen=True, slots=True)
class Refresh:
    """A newer member table is wanted, from `member` if one is named. Answered by None."""

    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """The objects, few enough for one request, were written: the member is to believe nothing of
    their versions. Answered by None.
    """

    member: Member
    names: Sequence[ObjectName]


Effect = Ask | AskOrigin | Together | Refresh | Forget
Steps = Generator[Effect, Any, T]
