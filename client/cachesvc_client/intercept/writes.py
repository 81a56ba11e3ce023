"""Writes of an intercepted client: what it wrote is looked up anew by whoever reads it next.

Rules: nothing is changed about a write. A write that failed may have happened all the same, and
counts as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachesvc.core.errors import InvalidKey
from cachesvc.core.types import ObjectName

OPERATIONS = (
    "PutObject", "CopyObject", "DeleteObject", "DeleteObjects", "CompleteMultipartUpload",
    "PutObjectTagging", "DeleteObjectTagging", "PutObjectAcl", "PutObjectLegalHold",
    "PutObjectRetention", "RestoreObject",
)  # fmt: skip


def names_in(parameters: Mapping[str, Any]) -> list[ObjectName]:
    """The objects that a write's parameters name, by botocore's names of these."""
    bucket = parameters.get("Bucket", "")
    keys = [parameters.get("Key")]
    keys += [one.get("Key") for one in (parameters.get("Delete") or {}).get("Objects", ())]
    found = []
    for key in keys:
        try:
            found.append(ObjectName(bucket, key or ""))
        except (InvalidKey, AttributeError, TypeError):
            continue  # no object of ours can have that name
    return found
