"""The settings of a node: which source wins, what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachesvc.config import (
    MIN_CAPACITY_BYTES,
    ConfigError,
    NodeConfig,
    load,
    parse_revalidate,
    parse_size,
    parse_time,
)
from cachesvc.core.addresses import is_loopback, split_address

INF = float("inf")


def config(**flags: Any) -> NodeConfig:
    return load({"data_dir": "/d"} | flags)


def refusal(**flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text('[node]\ndata_dir = ["/from-file"]\ncapacity = "1GiB"\nweight = 3\n')
    return path


# -- where a setting comes from


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load({}, file)
    assert (found.capacity, found.weight, found.origin_gets) == (1 << 30, 3, 64)
    monkeypatch.setenv("CACHESVC_NODE__CAPACITY", "2GiB")
    monkeypatch.setenv("CACHESVC_NODE__WEIGHT", "4")
    found = load({}, file)
    assert (found.capacity, found.weight) == (2 << 30, 4)
    found = load({"capacity": "3GiB", "weight": None}, file)
    assert (found.capacity, found.weight) == (3 << 30, 4)
    assert found.data_dir == (Path("/from-file"),)


def test_the_environment_gives_lists_and_truths_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHESVC_NODE__DATA_DIR", "/a, /b,")
    monkeypatch.setenv("CACHESVC_NODE__INSECURE", "true")
    monkeypatch.setenv("CACHESVC_NODE__REVALIDATE", "always")
    monkeypatch.setenv("CACHESVC_OTHER", "not a setting of a node")
    found = load({})
    assert (found.data_dir, found.insecure, found.revalidate) == (
        (Path("/a"), Path("/b")),
        True,
        0.0,
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().capacity = 1


def test_defaults_listen_on_loopback_only() -> None:
    found = config()
    assert all(is_loopback(address) for address in (found.lane, found.grpc, found.admin))


# -- unknown settings


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[node]\ncapcity = "1GiB"\n')
    with pytest.raises(ConfigError, match=r"capcity.*did you mean capacity\?"):
        load({"data_dir": "/d"}, path)


def test_an_unknown_key_of_the_environment_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHESVC_NODE__DATADIR", "/d")
    with pytest.raises(ConfigError, match=r"CACHESVC_NODE__DATADIR.*did you mean data_dir\?"):
        load({"data_dir": "/d"})


def test_a_key_like_no_other_is_refused_with_all_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHESVC_NODE__QQQQQQ", "1")
    with pytest.raises(ConfigError, match="known: node_id, data_dir, capacity"):
        load({"data_dir": "/d"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("capacity = 1", "unknown section or key 'capacity'"),
        ("[nodes]\nweight = 1", "unknown section or key 'nodes'"),
        ("node = 5", "unknown section or key 'node'"),
        ("[node", "cannot be read as TOML"),
        ("[node]\nweight = 1\nweight = 2", "cannot be read as TOML"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        load({"data_dir": "/d"}, path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load({"data_dir": "/d"}, path)
        assert str(path) in str(caught.value)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match="cannot be read"):
        load({"data_dir": "/d"}, tmp_path / "binary.toml")


# -- sizes and times


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("4096", 4096), ("1b", 1), ("1k", 1000), ("1kB", 1000), ("1 KiB", 1024)),
        *(("2MiB", 2 << 20), ("500MB", 500_000_000), ("1.5GiB", 3 << 29), ("10gi", 10 << 30)),
        *(("1TiB", 1 << 40), ("2P", 2 * 10**15), (" 7 ", 7)),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1e9", "1XB", "GiB", "1 G iB", "0x10", "1,5GiB", "10i", "10ib", "1bb"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    assert refusal(capacity=text) == (
        f"capacity: {text!r} is no size: write 10GiB, 500MB or a number of bytes"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("5s", 5.0), ("200ms", 0.2), ("1m", 60.0), ("2 h", 7200.0), ("1.5D", 129_600.0)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)
    assert config(drain_timeout=text).drain_timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1y", "ms", "1 s s", "inf", "nan"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    for name in ("revalidate", "drain_timeout"):
        assert refusal(**{name: text}) == f"{name}: {text!r} is no time: write 5s, 200ms or 1m"


def test_revalidation_is_always_never_or_a_time() -> None:
    assert [parse_revalidate(text) for text in ("always", "never", "10s")] == [0.0, INF, 10.0]
    assert config(revalidate="never").revalidate == INF


@pytest.mark.parametrize("number", [-1.0, float("nan")])
def test_a_number_that_is_no_time_is_refused(number: float) -> None:
    assert refusal(revalidate=number).startswith("revalidate: ")


# -- capacity and directories


@pytest.mark.parametrize("capacity", ["0", 0, "1MiB", MIN_CAPACITY_BYTES - 1, -5])
def test_a_capacity_without_room_for_blocks_is_refused(capacity: str | int) -> None:
    assert f"give at least {MIN_CAPACITY_BYTES}" in refusal(capacity=capacity)


def test_the_least_capacity_counts_for_each_directory() -> None:
    assert config(capacity=MIN_CAPACITY_BYTES).capacity == MIN_CAPACITY_BYTES
    text = refusal(capacity=MIN_CAPACITY_BYTES, data_dir="/a,/b")
    assert f"2 data directories; give at least {2 * MIN_CAPACITY_BYTES}" in text


@pytest.mark.parametrize("paths", ["", ",", (), []])
def test_a_node_without_a_directory_is_refused(paths: Any) -> None:
    assert "give at least one directory" in refusal(data_dir=paths)


def test_the_same_directory_twice_is_refused() -> None:
    assert "the same directory twice" in refusal(data_dir="/a,/b,/a/")


# -- addresses and the token


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:x", "host:-1", "host:65536"])
@pytest.mark.parametrize("name", ["lane", "grpc", "admin"])
def test_what_is_no_address_is_refused(name: str, address: str) -> None:
    text = refusal(**{name: address})
    assert text.startswith(f"{name}: {address!r} is no HOST:PORT")
    assert ("a port is a number up to 65535" in text) == (":" in address[1:])


def test_addresses_are_taken_apart() -> None:
    assert split_address("host:0") == ("host", 0)
    assert split_address("[::1]:7071") == ("::1", 7071)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "node.example:1"])
@pytest.mark.parametrize("name", ["lane", "grpc"])
def test_an_open_door_without_a_token_is_refused(name: str, address: str, tmp_path: Path) -> None:
    text = refusal(**{name: address})
    assert address in text
    assert "--token-file" in text
    assert "--insecure" in text
    assert config(**{name: address}, insecure=True)
    assert config(**{name: address}, token_file=tmp_path / "token")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "::1:1"]
)
def test_loopback_needs_no_token(address: str) -> None:
    assert config(lane=address, grpc=address)


def test_the_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("  secret\n")
    assert config(token_file=token).read_token() == "secret"
    assert config().read_token() == ""


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_token_file_that_holds_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    with pytest.raises(ConfigError, match="token_file") as caught:
        config(token_file=token).read_token()
    assert str(token) in str(caught.value)


# -- the rest


@pytest.mark.parametrize("members", ["dns://nodes:7071", "etcd://etcd:2379"])
def test_discovery_that_this_version_does_not_know_is_refused(members: str) -> None:
    assert "HOST:PORT,... and file:PATH" in refusal(members=members)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("weight", 0), ("weight", -1), ("weight", "x"), ("weight", 10**9), ("origin_gets", 0)),
        *(("origin_gets", 5000), ("eviction", "random"), ("eviction", "lru\n")),
        *(("node_id", "n" * 10_000), ("insecure", "maybe"), ("capacity", 1.5), ("capacity", None)),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    if value is None:
        assert config(**{name: value}).capacity == 10 << 30  # None: not given
    else:
        text = refusal(**{name: value})
        assert text.startswith(f"{name}: {repr(value)[:40]}")
        assert ": write " in text
        assert "should" not in text.lower()
        assert len(text) < 150


def test_every_setting_has_a_sentence_of_what_to_write() -> None:
    for name in NodeConfig.model_fields:
        text = refusal(**{name: {"no": "setting"}})
        assert text.startswith(f"{name}: {{'no': 'setting'}} will not do: write ")


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = refusal(weight=0, capacity="x")
    assert "weight: " in text
    assert "capacity: " in text


def test_a_gateway_that_others_can_reach_wants_signatures(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert config(s3="127.0.0.1:7072").s3 == "127.0.0.1:7072"
    assert "--s3-auth sigv4" in refusal(s3="0.0.0.0:7072")
    assert config(s3="0.0.0.0:7072", insecure=True)
    assert config(s3="0.0.0.0:7072", s3_auth="sigv4", s3_keys=keys)
    assert refusal(s3="0.0.0.0:7072", token_file=tmp_path / "token")


@pytest.mark.parametrize(
    ("setting", "flags"),
    [
        ("s3", {"s3": "7072"}),
        ("s3_auth", {"s3": "127.0.0.1:7072", "s3_auth": "basic"}),
        ("s3_auth", {"s3": "127.0.0.1:7072", "s3_auth": "sigv4"}),
        ("s3_auth", {"s3": "127.0.0.1:7072", "s3_keys": "keys"}),
        ("s3_keys", {"s3_auth": "sigv4", "s3_keys": "keys"}),
        ("s3_domain", {"s3_domain": "s3.local"}),
        ("s3_domain", {"s3": "127.0.0.1:7072", "s3_domain": "a b"}),
    ],
)
def test_settings_of_the_gateway_that_cannot_be_are_refused(
    setting: str, flags: dict[str, str]
) -> None:
    assert setting in refusal(**flags)


def test_the_gateway_can_be_set_in_the_file_and_in_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[node]\ndata_dir = ["/d"]\ns3 = "127.0.0.1:1"\ns3_domain = "s3.local"\n')
    assert load({}, file).s3 == "127.0.0.1:1"
    monkeypatch.setenv("CACHESVC_NODE__S3", "127.0.0.1:2")
    found = load({}, file)
    assert (found.s3, found.s3_domain) == ("127.0.0.1:2", "s3.local")
