"""What a read is answered with, by its steps alone: cache and S3 say what a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from cachesvc_client.intercept.answer import Answer, AskHead, answering
from cachesvc_client.intercept.fields import Fields, FieldTable, fields_of
from cachesvc_client.intercept.request import Passed, Span, Wanted

from cachesvc.core.types import ObjectVersion
from tests.support import NAME, Clock

DATA = b"0123456789"
MODIFIED_MS = 1_767_225_600_000
HEADERS = {"Content-Length": "10", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
SUM = {"x-amz-checksum-crc32": "abc="}


def wanted(**changes: Any) -> Wanted:
    plain = {"head": False, "span": None, "if_match": None, "checksums": False}
    return Wanted(NAME, "alice", **(plain | changes))


@dataclass
class Pinned:
    version: ObjectVersion


@dataclass
class World:
    """S3, which has one version, and the nodes, which believe in one."""

    etag: str = '"v1"'
    believed: str = '"v1"'
    more: dict[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = FieldTable(self.clock)

    def begin(self, _uri: str, start: int, end: int) -> tuple[Any, bytes]:
        self.log.append("begin")
        version = ObjectVersion(NAME, self.believed, len(DATA), MODIFIED_MS)
        return Pinned(version), DATA[start:end]

    def invalidate(self, _uri: str) -> None:
        self.log.append("forget")

    def heard(self, *, checksums: bool) -> None:
        """A HEAD of the program that S3 answered."""
        self.table.put("alice", NAME, self.fields(checksums=checksums))

    def fields(self, *, checksums: bool) -> Fields:
        said = HEADERS | {"ETag": self.etag} | self.more | (SUM if checksums else {})
        found = fields_of(said, checksums, self.clock())
        assert found is not None
        return found

    def read(self, **changes: Any) -> Answer | str:
        """The answer, or why it is S3's."""
        cache: Any = self
        steps = answering(wanted(**changes), self.table, cache)
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, AskHead):
                    self.log.append("head")
                    effect = steps.send(self.fields(checksums=True))
                else:
                    effect = steps.send(effect.work())
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        except Passed as why:
            return str(why)


@pytest.mark.parametrize("head", [False, True])
def test_checksums_are_said_only_if_it_was_heard_whether_there_are_any(head: bool) -> None:
    world = World()
    world.heard(checksums=False)
    assert isinstance(world.read(head=True), Answer)
    if head:
        assert world.read(head=True, checksums=True) == "first", "S3's answer is heard"
        world.heard(checksums=True)
    answer = world.read(head=head, checksums=True)
    assert isinstance(answer, Answer)
    assert SUM.items() <= answer.headers.items()
    plain = world.read(head=head)
    assert isinstance(plain, Answer)
    assert not SUM.keys() & plain.headers.keys()


@pytest.mark.parametrize("kind", ["aws:kms", "aws:kms:dsse"])
def test_what_s3_decrypts_by_a_permission_of_its_own_is_s3s(kind: str) -> None:
    """HEAD does not need kms:Decrypt and GET does, so that HEAD proves nothing."""
    world = World(more={"x-amz-server-side-encryption": kind})
    for changes in ({}, {"span": Span(0, 5)}, {"head": True}, {"checksums": True}):
        assert world.read(**changes) == "encryption"
    assert world.log == ["head"]
    plain = World(more={"x-amz-server-side-encryption": "AES256"})
    assert isinstance(plain.read(), Answer)


def test_a_condition_on_a_version_that_is_not_known_has_s3_asked_anew() -> None:
    world = World()
    assert isinstance(world.read(), Answer)
    world.etag = world.believed = '"v2"'
    assert world.read(if_match='"v2"') == "condition"
    answer = world.read(if_match='"v2"')
    assert isinstance(answer, Answer)
    assert answer.headers["etag"] == '"v2"'
    assert world.read(if_match='"other"') == "condition"
