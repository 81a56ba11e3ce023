"""The table of header fields: as young as the version, and bounded."""

from __future__ import annotations

from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.gateway.fields import MAX_ENTRY_BYTES, FieldTable
from cachesvc.versions import Checked
from tests.support import NAME

VERSION = ObjectVersion(NAME, '"v1"', 10)
HEADERS = {
    "Content-Type": "text/plain",
    "x-amz-meta-a": "b",
    "Content-Length": "10",
    "ETag": '"v1"',
}


def test_fields_are_told_but_for_those_that_every_answer_has_of_its_own() -> None:
    table = FieldTable()
    table.hear(VERSION, HEADERS, 5.0)
    assert table.of(Checked(VERSION, 0.0)) == (
        ("content-type", "text/plain"),
        ("x-amz-meta-a", "b"),
    )


def test_fields_count_for_their_version_and_while_they_are_as_young_as_its_check() -> None:
    table = FieldTable()
    table.hear(VERSION, HEADERS, 5.0)
    assert table.of(Checked(VERSION, 5.0)) is not None
    assert table.of(Checked(VERSION, 5.1)) is None
    assert table.of(Checked(ObjectVersion(NAME, '"v2"', 10), 0.0)) is None
    assert table.of(Checked(ObjectVersion(NAME, '"v1"', 11), 0.0)) is None


def test_an_answer_that_was_asked_for_earlier_does_not_replace_a_later_one() -> None:
    table = FieldTable()
    table.hear(VERSION, HEADERS | {"x-amz-meta-a": "new"}, 6.0)
    table.hear(VERSION, HEADERS, 5.0)
    assert ("x-amz-meta-a", "new") in (table.of(Checked(VERSION, 5.5)) or ())


def test_what_was_heard_without_asking_for_checksums_is_not_for_those_who_need_them() -> None:
    told, unasked = HEADERS | {"x-amz-checksum-crc32": "whole"}, {"x-amz-checksum-crc32": "part"}
    checked, sums = Checked(VERSION, 5.0), ("x-amz-checksum-crc32", "whole")
    table = FieldTable()
    table.hear(VERSION, HEADERS | unasked, 5.0, False)
    assert dict(table.of(checked) or ()) == {"content-type": "text/plain", "x-amz-meta-a": "b"}
    assert table.of(checked, checksums=True) is None
    table.hear(VERSION, told, 5.0)
    assert sums in (table.of(checked, checksums=True) or ())
    assert sums in (table.of(checked) or ())
    table.hear(VERSION, HEADERS | unasked, 5.0, False)
    assert sums in (table.of(checked, checksums=True) or ()), (
        "of the same age, the fuller one stays"
    )
    table.hear(VERSION, HEADERS | unasked, 6.0, False)
    assert table.of(checked, checksums=True) is None
    assert sums not in (table.of(checked) or ())


def test_the_table_is_bounded_and_the_oldest_leave_first() -> None:
    table = FieldTable(max_entry_count=3, max_table_bytes=1 << 20)
    for number in range(10):
        table.hear(ObjectVersion(ObjectName("b", f"k{number}"), '"v"', 1), HEADERS, 5.0)
    assert len(table) == 3
    assert table.of(Checked(ObjectVersion(ObjectName("b", "k9"), '"v"', 1), 0.0)) is not None
    small = FieldTable(max_table_bytes=2000)
    for number in range(10):
        small.hear(ObjectVersion(ObjectName("b", f"k{number}"), '"v"', 1), HEADERS, 5.0)
    assert 0 < len(small) < 5
    assert small.table_bytes <= 2000


def test_of_huge_fields_it_is_kept_that_there_are_none_and_the_older_entry_leaves() -> None:
    table = FieldTable()
    table.hear(VERSION, HEADERS, 5.0)
    table.hear(VERSION, {"x-amz-meta-a": "b" * MAX_ENTRY_BYTES}, 6.0)
    assert table.of(Checked(VERSION, 0.0)) == ()
    assert table.table_bytes < 1000
