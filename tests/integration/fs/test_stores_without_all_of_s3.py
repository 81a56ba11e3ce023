"""Stores that speak S3 and not all of it: the development origin has no DeleteObjects."""

from __future__ import annotations

from pathlib import Path

from cachesvc_client.fs import CacheFileSystem

from cachesvc.devorigin import DevOrigin


def test_one_object_is_removed_where_many_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        for key in ("one", "two", "three"):
            origin.put("bucket", key, b"data")
        fs = CacheFileSystem(
            endpoint="127.0.0.1:1", origin={"endpoint_url": origin.url}, skip_instance_cache=True
        )
        fs.rm_file("bucket/one")
        assert not fs.exists("bucket/one")
        fs.rm("bucket/two")
        assert fs.ls("bucket", detail=False) == ["bucket/three"]
