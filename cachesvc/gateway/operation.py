"""What a request wants, by S3's name of it, and what the gateway does about that.

Rules
- Cached: answered here. Passed: signed anew and sent to the origin. Anything else is refused by
  name (501), never guessed.
- A parameter that S3 does not know is the origin's affair: such a read is passed and not cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cachesvc.gateway.target import Target

# Says what the method says already; what presigned URLs say for the header.
_HARMLESS = frozenset({"x-id", "x-amz-checksum-mode"})
_PRESIGNED = frozenset({"awsaccesskeyid", "signature", "expires"})
# Parameters that make a request another operation.
_SUBRESOURCES = frozenset(
    [
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "location",
        "logging",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "session",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versioning",
        "versions",
        "website",
    ]
)
_NAMES = {
    ("service", "GET", ""): "ListBuckets",
    ("bucket", "GET", ""): "ListObjects",
    ("bucket", "GET", "location"): "GetBucketLocation",
    ("bucket", "GET", "versioning"): "GetBucketVersioning",
    ("bucket", "GET", "versions"): "ListObjectVersions",
    ("bucket", "GET", "uploads"): "ListMultipartUploads",
    ("bucket", "HEAD", ""): "HeadBucket",
    ("bucket", "PUT", ""): "CreateBucket",
    ("bucket", "DELETE", ""): "DeleteBucket",
    ("bucket", "POST", "delete"): "DeleteObjects",
    ("bucket", "POST", ""): "PostObject",
    ("object", "GET", ""): "GetObject",
    ("object", "HEAD", ""): "HeadObject",
    ("object", "GET", "attributes"): "GetObjectAttributes",
    ("object", "GET", "tagging"): "GetObjectTagging",
    ("object", "GET", "uploadId"): "ListParts",
    ("object", "PUT", ""): "PutObject",
    ("object", "PUT", "uploadId"): "UploadPart",
    ("object", "PUT", "tagging"): "PutObjectTagging",
    ("object", "POST", "uploads"): "CreateMultipartUpload",
    ("object", "POST", "uploadId"): "CompleteMultipartUpload",
    ("object", "POST", "restore"): "RestoreObject",
    ("object", "POST", "select"): "SelectObjectContent",
    ("object", "DELETE", ""): "DeleteObject",
    ("object", "PUT", "renameObject"): "RenameObject",
    ("object", "DELETE", "uploadId"): "AbortMultipartUpload",
    ("object", "DELETE", "tagging"): "DeleteObjectTagging",
}
_READS = frozenset(
    [
        "ListBuckets",
        "ListObjects",
        "ListObjectsV2",
        "ListObjectVersions",
        "ListMultipartUploads",
        "ListParts",
        "GetBucketLocation",
        "GetBucketVersioning",
        "HeadBucket",
        "GetObject",
        "HeadObject",
        "GetObjectAttributes",
        "GetObjectTagging",
    ]
)
_BUCKET_WRITES = frozenset({"CreateBucket", "DeleteBucket"})
_OBJECT_WRITES = frozenset(
    [
        "PutObject",
        "CopyObject",
        "UploadPart",
        "UploadPartCopy",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "DeleteObject",
        "PutObjectTagging",
        "DeleteObjectTagging",
    ]
)
_VERBS = {"GET": "Get", "HEAD": "Head", "PUT": "Put", "POST": "Post", "DELETE": "Delete"}
OPERATIONS = tuple(sorted(_READS | _BUCKET_WRITES | _OBJECT_WRITES | {"DeleteObjects"}))

# What makes a read the origin's own affair: other versions, parts, keys, payers and owners.
_PASSED_HEADERS = frozenset(
    {"x-amz-request-payer", "x-amz-expected-bucket-owner"}
    | {f"x-amz-server-side-encryption-customer-{what}" for what in ("algorithm", "key", "key-md5")}
)


class Way(Enum):
    """What the gateway does about an operation."""

    CACHED = "cached"
    READ = "read"  # passed, and changes nothing
    WRITE = "write"  # passed, and may change the object or bucket that it names
    DELETE_MANY = "delete many"  # passed, and changes the objects that its body names
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Operation:
    """S3's name of what is wanted, and the way that it takes."""

    name: str
    way: Way


def operation_of(method: str, target: Target, headers: Mapping[str, str]) -> Operation:
    """What a request wants. headers: looked up without regard to case."""
    level = "object" if target.key else "bucket" if target.bucket else "service"
    names = [name for name, _ in target.query if not is_auth(name)]
    subresource = next((name for name in names if name in _SUBRESOURCES), "")
    name = _NAMES.get((level, method, subresource)) or _unnamed(level, method, subresource)
    if name == "ListObjects" and target.parameters.get("list-type") == "2":
        name = "ListObjectsV2"
    if "x-amz-copy-source" in headers:
        name = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}.get(name, name)
    return Operation(name, _way(name, names, headers))


def is_auth(name: str) -> bool:
    """Whether a query parameter is part of a presigned URL's signature."""
    return name.lower() in _PRESIGNED or name.lower() in (
        "x-amz-algorithm",
        "x-amz-content-sha256",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
    )


def _way(name: str, parameters: list[str], headers: Mapping[str, str]) -> Way:
    if name in ("GetObject", "HeadObject"):
        plain = all(parameter in _HARMLESS for parameter in parameters)
        passed = not plain or any(header in headers for header in _PASSED_HEADERS)
        return Way.READ if passed else Way.CACHED
    if name == "DeleteObjects":
        return Way.DELETE_MANY
    if name in _READS:
        return Way.READ
    return Way.WRITE if name in _OBJECT_WRITES | _BUCKET_WRITES else Way.REFUSED


def _unnamed(level: str, method: str, subresource: str) -> str:
    verb = _VERBS.get(method)
    if verb is None or level == "service" or not subresource:
        return f"{method} of {'an ' if level == 'object' else 'a '}{level}"
    words = subresource.replace("-", " ").split()
    what = "".join(word[0].upper() + word[1:] for word in words)
    return f"{verb}{level.capitalize()}{what}"
