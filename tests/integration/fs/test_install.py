"""`install` gives s3:// to the cache, `uninstall` gives it back."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from typing import Any

import cachesvc_client
import pytest

from tests.integration.fs.conftest import BUCKET, DATA, Place

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from fsspec.registry import _registry, get_filesystem_class  # noqa: E402

URL = f"s3://{BUCKET}/big"


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    before = {name: _registry.get(name) for name in ("s3", "s3a")}
    yield
    cachesvc_client.uninstall()
    assert {name: _registry.get(name) for name in ("s3", "s3a")} == before


class Before(fsspec.AbstractFileSystem):  # type: ignore[misc, name-defined]
    """Whoever had s3:// before."""

    protocol = "s3"


def test_s3_is_read_through_the_cache_until_it_is_given_back(place: Place) -> None:
    cachesvc_client.install(**place.options)
    with fsspec.open(URL) as file:
        assert file.read() == DATA
        assert file.fs.client.sources()
        assert file.full_name == URL
    with fsspec.open(URL.replace("s3:", "s3a:")) as file:
        assert file.read(3) == DATA[:3]
    assert fsspec.filesystem("s3").unstrip_protocol(f"{BUCKET}/big") == URL
    cachesvc_client.install(**place.options)
    fs = fsspec.filesystem("s3")
    cachesvc_client.uninstall()
    cachesvc_client.uninstall()
    assert fs.cat_file(URL, 0, 3) == DATA[:3], "what was made goes on"


def test_who_had_it_before_has_it_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "s3", Before)
    cachesvc_client.install(**place.options)
    assert get_filesystem_class("s3") is not Before
    cachesvc_client.uninstall()
    assert get_filesystem_class("s3") is Before
    monkeypatch.undo()


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "http://elsewhere:9000"},
        {"client_kwargs": {"endpoint_url": "http://elsewhere:9000"}},
        {"requester_pays": True},
        {"version_aware": True},
        {"s3_additional_kwargs": {"SSECustomerKey": "x"}},
    ],
)
def test_what_is_not_the_clusters_goes_where_it_went(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(_registry, "s3", Before)
    cachesvc_client.install(**place.options)
    assert isinstance(fsspec.filesystem("s3", **options), Before)
    cachesvc_client.uninstall()
    monkeypatch.undo()


def test_s3fs_itself_stays_what_it_is_and_its_reads_are_intercepted(place: Place) -> None:
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    cachesvc_client.install(**place.options)
    before = place.node_reads()
    fs = s3fs.S3FileSystem(endpoint_url=place.origin.url, skip_instance_cache=True)
    assert fs.cat_file(f"{BUCKET}/dirt") == b"content of dirt"
    assert place.node_reads() > before
    elsewhere = fsspec.filesystem("s3", endpoint_url="http://elsewhere:9000")
    assert type(elsewhere) is s3fs.S3FileSystem
    assert type(fsspec.filesystem("s3")) is not s3fs.S3FileSystem


def test_pandas_reads_through_it(place: Place) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    place.origin.put(BUCKET, "lines.csv", b"number,name\n1,one\n2,two\n")
    cachesvc_client.install(**place.options)
    before = place.node_reads()
    found = pandas.read_csv(f"s3://{BUCKET}/lines.csv")
    assert found.to_dict("list") == {"number": [1, 2], "name": ["one", "two"]}
    assert place.node_reads() > before


def test_without_anybody_else_it_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    monkeypatch.delitem(_registry, "s3", raising=False)
    cachesvc_client.install(**place.options)
    assert fsspec.filesystem("s3").cat_file(URL, 0, 2) == DATA[:2]
    with pytest.raises(ValueError, match=r"the endpoint http://elsewhere:9000 is not that"):
        fsspec.filesystem("s3", endpoint_url="http://elsewhere:9000")


def test_options_of_s3fs_are_understood(place: Place) -> None:
    cachesvc_client.install(**place.options)
    fs = fsspec.filesystem(
        "s3", key="access", secret="hidden", token="session", default_block_size=1 << 20,
        endpoint_url=place.origin.url + "/", client_kwargs={"region_name": "eu-west-1"},
        config_kwargs={"max_pool_connections": 5}, skip_instance_cache=True,
    )  # fmt: skip
    assert fs.client.config.token is None
    assert fs.client.config.origin == {
        "endpoint_url": place.origin.url + "/", "region_name": "eu-west-1",
        "aws_access_key_id": "access", "aws_secret_access_key": "hidden",
        "aws_session_token": "session",
    }  # fmt: skip
    with fs.open(URL) as file:
        assert file.blocksize == 1 << 20
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    assert again.client.config == fs.client.config
    cachesvc_client.uninstall()
    assert pickle.loads(pickle.dumps(fs)).cat_file(URL, 0, 5) == DATA[:5]


def test_wrong_settings_are_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="unknown setting 'paralel_count'"):
        cachesvc_client.install("127.0.0.1:1", paralel_count=3)
    with pytest.raises(ValueError, match="no endpoint of a cluster"):
        cachesvc_client.install()
