"""The settings of a sidecar: a node's, but for those of a member, and the ring."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.config import ConfigError, load_sidecar
from cachesvc.devorigin.ports import free_ports
from tests.support import run_cli

HERE = {"data_dir": "/d", "ring": "10.0.0.1:7071,nodes.example:7071"}


def test_a_sidecar_is_small_and_its_ring_is_somewhere_else() -> None:
    found = load_sidecar(HERE)
    assert found.ring == HERE["ring"]
    assert found.capacity == 2 << 30
    for ring in ("", "10.0.0.1:7071, 127.0.0.1:7071"):
        with pytest.raises(ConfigError, match=r"^ring: "):
            load_sidecar(HERE | {"ring": ring})


@pytest.mark.parametrize("setting", ["members", "weight"])
def test_a_sidecar_is_no_member_of_a_ring(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text(f'[sidecar]\n{setting} = "1"\n')
    with pytest.raises(ConfigError, match=f"sidecar. {setting}: unknown setting"):
        load_sidecar(HERE, file)


def test_its_settings_have_a_section_and_a_prefix_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text('[sidecar]\ncapacity = "3GiB"\nring = "a:1"\n')
    assert load_sidecar({"data_dir": "/d"}, file).capacity == 3 << 30
    monkeypatch.setenv("CACHESVC_NODE__RING", "c:1")
    monkeypatch.setenv("CACHESVC_SIDECAR__RING", "b:1")
    assert load_sidecar({"data_dir": "/d"}, file).ring == "b:1"
    file.write_text('[node]\ncapacity = "3GiB"\n')
    with pytest.raises(ConfigError, match=r"settings stand in \[sidecar\]"):
        load_sidecar(HERE, file)


@pytest.mark.parametrize("ring", ["grpc://127.0.0.1:7070", "unix:///run/x.sock", "a b:1", "a:0"])
def test_a_ring_that_cannot_be_one_ends_with_2_and_one_line(tmp_path: Path, ring: str) -> None:
    lane, grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(3))
    places = ("--lane", lane, "--grpc", grpc, "--admin", admin, "--data-dir", str(tmp_path))
    refused = run_cli("sidecar", "--ring", ring, *places)
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("cachesvc: ring: ")
    assert refused.stderr.count("\n") == 1
    assert run_cli("sidecar", *places).stderr.startswith("cachesvc: ring: give the lane")
