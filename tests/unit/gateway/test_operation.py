"""What a request wants, by S3's name of it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from cachesvc.gateway.operation import Way, operation_of
from cachesvc.gateway.target import parse_target


@pytest.mark.parametrize(
    ("method", "raw", "name", "way"),
    [
        ("GET", "/", "ListBuckets", Way.READ),
        ("GET", "/b", "ListObjects", Way.READ),
        ("GET", "/b?list-type=2&prefix=x", "ListObjectsV2", Way.READ),
        ("GET", "/b/?list-type=2", "ListObjectsV2", Way.READ),
        ("GET", "/b?location", "GetBucketLocation", Way.READ),
        ("HEAD", "/b", "HeadBucket", Way.READ),
        ("GET", "/b/k", "GetObject", Way.CACHED),
        ("GET", "/b/k?x-id=GetObject", "GetObject", Way.CACHED),
        ("HEAD", "/b/k", "HeadObject", Way.CACHED),
        ("GET", "/b/k?X-Amz-Signature=0&X-Amz-Date=1", "GetObject", Way.CACHED),
        ("GET", "/b/k?partNumber=1", "GetObject", Way.READ),
        ("GET", "/b/k?versionId=1", "GetObject", Way.READ),
        ("GET", "/b/k?response-content-type=a", "GetObject", Way.READ),
        ("GET", "/b/k?x-id=GetObject&x-amz-checksum-mode=ENABLED", "GetObject", Way.CACHED),
        ("GET", "/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD", "GetObject", Way.CACHED),
        ("PUT", "/b/k?renameObject", "RenameObject", Way.REFUSED),
        ("PUT", "/b?abac", "PutBucketAbac", Way.REFUSED),
        ("GET", "/b?metadataConfiguration", "GetBucketMetadataConfiguration", Way.REFUSED),
        ("GET", "/b%2Fk", "ListObjects", Way.READ),
        ("GET", "/b/k?acl", "GetObjectAcl", Way.REFUSED),
        ("PUT", "/b/k?legal-hold", "PutObjectLegalHold", Way.REFUSED),
        ("GET", "/b?policy", "GetBucketPolicy", Way.REFUSED),
        ("GET", "/b/k?torrent", "GetObjectTorrent", Way.REFUSED),
        ("POST", "/b/k?select&select-type=2", "SelectObjectContent", Way.REFUSED),
        ("POST", "/b", "PostObject", Way.REFUSED),
        ("PATCH", "/b/k", "PATCH of an object", Way.REFUSED),
        ("PUT", "/b/k", "PutObject", Way.WRITE),
        ("PUT", "/b/k?partNumber=1&uploadId=x", "UploadPart", Way.WRITE),
        ("POST", "/b/k?uploads", "CreateMultipartUpload", Way.WRITE),
        ("POST", "/b/k?uploadId=x", "CompleteMultipartUpload", Way.WRITE),
        ("DELETE", "/b/k?uploadId=x", "AbortMultipartUpload", Way.WRITE),
        ("DELETE", "/b/k", "DeleteObject", Way.WRITE),
        ("DELETE", "/b/k?versionId=3", "DeleteObject", Way.WRITE),
        ("POST", "/b?delete", "DeleteObjects", Way.DELETE_MANY),
        ("PUT", "/b", "CreateBucket", Way.WRITE),
    ],
)
def test_an_operation_has_a_name_and_a_way(method: str, raw: str, name: str, way: Way) -> None:
    operation = operation_of(method, parse_target(raw, "", ""), {})
    assert (operation.name, operation.way) == (name, way)


def test_a_source_makes_a_write_a_copy() -> None:
    headers = CIMultiDict({"X-Amz-Copy-Source": "/b/other"})
    assert operation_of("PUT", parse_target("/b/k", "", ""), headers).name == "CopyObject"
    part = parse_target("/b/k?partNumber=1&uploadId=x", "", "")
    assert operation_of("PUT", part, headers).name == "UploadPartCopy"


def test_a_key_of_the_client_makes_a_read_the_origins_own_affair() -> None:
    headers = CIMultiDict({"x-amz-server-side-encryption-customer-key": "k"})
    assert operation_of("GET", parse_target("/b/k", "", ""), headers).way is Way.READ
