"""What a read is answered with, by its steps alone: cache and S3 say what a test wants."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from cachesvc_client.drive import run
from cachesvc_client.intercept.answer import Answer, AskS3, Blocking, answering
from cachesvc_client.intercept.fields import MAX_AGE_S, Fields, FieldTable, fields_of
from cachesvc_client.intercept.refusals import REFUSED_S, SETTLE_S, Refusals
from cachesvc_client.intercept.request import Passed, Span, Wanted

from cachesvc.core.errors import CacheError, ObjectNotFound
from cachesvc.core.types import ObjectName, ObjectVersion
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
    trouble: CacheError | None = None
    decrypts: bool = True

    def __post_init__(self) -> None:
        self.table = FieldTable(self.clock)
        self.refusals = Refusals(self.clock)

    def begin(self, _uri: str, start: int, end: int, came: Counter[str]) -> tuple[Any, bytes]:
        self.log.append("begin")
        if self.trouble is not None:
            raise self.trouble
        version = ObjectVersion(NAME, self.believed, len(DATA), MODIFIED_MS)
        came["disk"] += end - start
        return Pinned(version), DATA[start:end]

    def invalidate(self, _uri: str) -> None:
        self.log.append("forget")

    def heard(self, *, checksums: bool) -> None:
        """A HEAD of the program that S3 answered."""
        self.table.put("alice", NAME, self.fields(checksums=checksums))

    def fields(self, *, checksums: bool) -> Fields:
        found = fields_of(self.said(checksums=checksums), checksums, self.clock())
        assert found is not None
        return found

    def said(self, *, checksums: bool) -> dict[str, str]:
        said = HEADERS | {"ETag": self.etag} | self.more | (SUM if checksums else {})
        return {name.lower(): value for name, value in said.items()}

    def perform(self, effect: AskS3 | Blocking) -> Any:
        if isinstance(effect, Blocking):
            return effect.work()
        assert (effect.parameters["Bucket"], effect.parameters["Key"]) == (NAME.bucket, NAME.key)
        if effect.operation == "head_object":
            self.log.append("head")
            return self.said(checksums=effect.parameters["ChecksumMode"] == "ENABLED")
        assert (effect.operation, effect.parameters["IfMatch"]) == ("get_object", self.etag)
        self.log.append(effect.parameters["Range"])
        return self.said(checksums=False) if self.decrypts else None

    def read(self, **changes: Any) -> Answer | str:
        """The answer, or why it is S3's."""
        cache: Any = self
        try:
            return run(answering(wanted(**changes), self.table, self.refusals, cache), self.perform)
        except Passed as why:
            return str(why)


@pytest.mark.parametrize("kind", ["aws:kms", "aws:kms:dsse"])
def test_what_kms_encrypted_is_read_by_who_may_decrypt_it(kind: str) -> None:
    """HEAD does not need kms:Decrypt and GET does, so that HEAD proves nothing."""
    world = World(more={"x-amz-server-side-encryption": kind}, decrypts=False)
    assert [world.read(), world.read(span=Span(0, 5))] == ["refused"] * 2
    assert world.log == ["head", "bytes=0-0"] * 2
    world.decrypts = True
    assert isinstance(world.read(), Answer)
    assert isinstance(world.read(), Answer)
    assert world.log[4:] == ["head", "bytes=0-0", "begin", "begin"], "asked once"


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


def test_a_condition_on_a_version_that_is_not_known_has_s3_asked_anew() -> None:
    world = World()
    assert isinstance(world.read(), Answer)
    world.etag = world.believed = '"v2"'
    assert world.read(if_match='"v2"') == "condition"
    answer = world.read(if_match='"v2"')
    assert isinstance(answer, Answer)
    assert answer.headers["etag"] == '"v2"'
    assert world.read(if_match='"other"') == "condition"


def test_what_cannot_be_cached_is_asked_for_once_in_a_while() -> None:
    world = World(etag='W/"v1"', believed='W/"v1"')
    assert [world.read() for _ in range(9)] == ["uncacheable"] * 9
    assert world.log == ["head"]
    world = World(believed='W/"v1"')
    assert [world.read(head=head) for head in (False, False, True)] == ["uncacheable"] * 3
    assert world.log == ["head", "begin"]
    world.clock.now += REFUSED_S
    world.believed = world.etag
    assert isinstance(world.read(), Answer)


def test_nodes_that_never_agree_with_s3_are_asked_once_in_a_while() -> None:
    """Their S3 is not the program's, and has the same names."""
    for trouble in (None, ObjectNotFound("no such object")):
        world = World(believed='"elsewhere"', trouble=trouble)
        for _ in range(9):
            assert world.read() != "uncacheable" or world.log.count("begin") == 2
            world.clock.now += SETTLE_S
        assert world.log.count("begin") == 2
        world.clock.now += REFUSED_S
        assert world.read() in ("version", "cache")
        assert world.read() == "uncacheable"
        assert world.log.count("begin") == 3


def test_an_overwrite_costs_one_read_of_s3() -> None:
    world = World()
    for number in range(2, 5):
        assert isinstance(world.read(), Answer)
        world.etag = f'"v{number}"'
        world.clock.now += MAX_AGE_S + 1
        assert [world.read() for _ in range(3)] == ["version"] * 3, "under way at the same time"
        world.believed = world.etag
        world.clock.now += SETTLE_S


def test_refusals_are_bounded_and_end_with_a_write() -> None:
    clock = Clock()
    refusals = Refusals(clock, max_count=3)
    names = [ObjectName("bucket", f"key-{number}") for number in range(5)]
    for name in names:
        refusals.refuse(name)
    assert len(refusals) == 3
    assert [refusals.hold(name) for name in names] == [False] * 2 + [True] * 3
    refusals.clear(names[4])
    assert not refusals.hold(names[4])
