"""What S3 said of an object: for whom, for how long, of how many."""

from __future__ import annotations

from cachesvc_client.intercept.fields import MAX_AGE_S, MAX_KEYS, Fields, FieldTable, fields_of

from cachesvc.core.types import ObjectName, ObjectVersion
from tests.support import NAME, Clock

HEADERS = {
    "ETag": '"v1"', "Content-Length": "10", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "Content-Type": "text/plain", "Date": "x", "x-amz-request-id": "1",
}  # fmt: skip
MODIFIED_MS = 1_767_225_600_000


def fields(heard_at: float = 0.0) -> Fields:
    found = fields_of(HEADERS, True, heard_at)
    assert found is not None
    return found


def test_fields_are_of_one_version() -> None:
    known = fields()
    assert known.describe(ObjectVersion(NAME, '"v1"', 10, MODIFIED_MS))
    assert known.describe(ObjectVersion(NAME, '"v1"', 10, 0)), "of which no time is known"
    assert not known.describe(ObjectVersion(NAME, '"v2"', 10, MODIFIED_MS))
    assert not known.describe(ObjectVersion(NAME, '"v1"', 11, MODIFIED_MS))
    assert not known.describe(ObjectVersion(NAME, '"v1"', 10, MODIFIED_MS + 1000)), "other metadata"
    assert known.said[-1] == ("content-type", "text/plain")
    assert known.anew == {"date", "content-length", "x-amz-request-id"}


def test_what_tells_no_version_is_not_kept() -> None:
    for missing in ("ETag", "Content-Length", "Last-Modified"):
        assert fields_of({k: v for k, v in HEADERS.items() if k != missing}, True, 0.0) is None
    assert fields_of(HEADERS | {"Last-Modified": "yesterday"}, True, 0.0) is None
    assert fields_of(HEADERS | {"x-amz-meta-a": "a" * 20_000}, True, 0.0) is None


def test_nobody_is_answered_on_somebody_elses_permission() -> None:
    table = FieldTable(Clock())
    table.put("alice", NAME, fields(1000.0))
    assert table.get("alice", NAME) is not None
    assert table.get("bob", NAME) is None
    assert table.get("", NAME) is None


def test_they_are_believed_for_a_while_and_until_a_write() -> None:
    clock = Clock()
    table = FieldTable(clock)
    table.put("alice", NAME, fields(clock.now))
    clock.now += MAX_AGE_S
    assert table.get("alice", NAME) is not None
    clock.now += 1
    assert table.get("alice", NAME) is None
    table.put("alice", NAME, fields(clock.now))
    table.drop(NAME)
    assert table.get("alice", NAME) is None


def test_the_table_is_bounded() -> None:
    table = FieldTable(Clock(), max_count=3)
    names = [ObjectName("bucket", f"key-{number}") for number in range(5)]
    for name in names:
        table.put("alice", name, fields(1000.0))
    assert len(table) == 3
    assert [table.get("alice", name) is not None for name in names] == [False] * 2 + [True] * 3
    for number in range(30):
        table.put(f"key-{number}", NAME, fields(1000.0))
    known = [table.get(f"key-{number}", NAME) is not None for number in range(30)]
    assert known == [False] * (30 - MAX_KEYS) + [True] * MAX_KEYS
    for _ in range(3):  # what one key hears again takes no other's place
        table.put("key-29", NAME, fields(1000.0))
    assert table.get(f"key-{30 - MAX_KEYS}", NAME) is not None
