"""Errors are those of files where loaders look for them, and none is longer than a line bears."""

from __future__ import annotations

import errno
import pickle

import pytest

from cachesvc.core.errors import AccessDenied, CacheError, InvalidKey, ObjectNotFound
from cachesvc.core.types import ObjectName


@pytest.mark.parametrize(
    ("kind", "number"), [(ObjectNotFound, errno.ENOENT), (AccessDenied, errno.EACCES)]
)
def test_an_error_that_a_file_has_too_has_its_number(kind: type[CacheError], number: int) -> None:
    error = kind("s3://b/k: why")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert (one.errno, str(one)) == (number, "s3://b/k: why")


@pytest.mark.parametrize(
    "uri",
    ["x" * 100_000, "s3://" + "b" * 100_000, "s3://b/" + "k\0" * 500, "s3:///" + "k" * 100_000,
     "s3://b/" + "\ud800" * 100_000],
    ids=["no uri", "bucket", "NUL", "no bucket", "no UTF-8"],
)  # fmt: skip
def test_a_key_that_cannot_be_is_told_in_a_line(uri: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        ObjectName.parse(uri)
    assert len(str(refused.value)) < 300
