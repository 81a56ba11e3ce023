"""The socket's file, and who may come in."""

from __future__ import annotations

import grp
import os
import socket
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from cachesvc_client import CacheClient, Unauthenticated

from cachesvc.config import ConfigError, load
from cachesvc.core.errors import AccessDenied
from cachesvc.unix import Door, SocketFileError, open_door
from tests.integration.inprocess import running
from tests.integration.unix.raw import UnixRaw
from tests.support import NAME, PATIENCE_S

URI = str(NAME)
NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_user(user_id: int, group_ids: list[int], work: Callable[[], str]) -> str:
    """What a child process, as another user, has to say."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: the child does without them
        child = os.fork()
    if child == 0:
        try:
            os.setgroups(group_ids)
            os.setgid(user_id)
            os.setuid(user_id)
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def test_the_file_is_for_its_user_or_a_group_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_door(path):
        assert mode(path) == 0o600
    assert not path.exists()
    group = grp.getgrgid(os.getegid())
    with open_door(path, group.gr_name):
        assert mode(path) == 0o660
        assert path.stat().st_gid == group.gr_gid
    with (
        pytest.raises(SocketFileError, match="'no-such-group' is unknown"),
        open_door(path, "no-such-group"),
    ):
        pass


def test_a_dead_nodes_file_is_replaced_and_a_live_nodes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with open_door(path):
        with pytest.raises(SocketFileError, match="live node"), open_door(path):
            pass
        assert path.exists()
    path.write_text("something else")
    with pytest.raises(SocketFileError, match="no socket"), open_door(path):
        pass
    assert path.read_text() == "something else"


def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_door(path):
        path.unlink()
        with open_door(path):
            pass
        path.write_text("")
    assert path.exists()


def test_impossible_settings_are_refused_by_name(tmp_path: Path) -> None:
    settings = {"data_dir": (tmp_path,)}
    with pytest.raises(ConfigError, match=r"unix: .* 108 bytes, 107 is the most"):
        load(settings | {"unix": Path("/" + "x" * 107)})
    with pytest.raises(ConfigError, match="unix_group: there is no Unix lane"):
        load(settings | {"unix_group": "staff"})
    load(settings | {"unix": Path("/" + "x" * 106)})
    with pytest.raises(SocketFileError, match="cannot be made"), open_door(tmp_path / "none" / "s"):
        pass


def test_the_token_is_asked_for_here_too(tmp_path: Path) -> None:
    with running(tmp_path / "data", unix=tmp_path / "s", token="secret") as node:
        node.put(b"some bytes")
        with CacheClient(f"unix://{tmp_path}/s") as client, pytest.raises(Unauthenticated):
            client.read(URI)
        with CacheClient(f"unix://{tmp_path}/s", token="secret") as client:
            assert client.read(URI) == b"some bytes"


@as_root
def test_members_of_the_group_come_in_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, NOBODY))
    path = tmp_path / "s"

    def knock() -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("s")  # from within the folder, which others may not find
            return sock.recv(10).decode()

    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o711)
    with open_door(path, group.gr_name) as door:
        path.chmod(0o666)
        door.listener.settimeout(PATIENCE_S)
        for group_ids, expected in ([], "refused"), ([group.gr_gid], "in"):
            porter = Thread(target=answer_one, args=(door,))
            porter.start()
            assert as_user(NOBODY, group_ids, knock) == expected
            porter.join()


def answer_one(door: Door) -> None:
    sock, _ = door.listener.accept()
    with sock:
        try:
            door.admit(sock)
            sock.sendall(b"in")
        except AccessDenied:
            sock.sendall(b"refused")


def test_a_peer_that_was_refused_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AccessDenied("not you")

    monkeypatch.setattr("cachesvc.unix.Door.admit", refuse)
    with running(tmp_path / "data", unix=tmp_path / "s"), UnixRaw(tmp_path / "s") as raw:
        assert "not you" in raw.hello().error.message
        assert raw.sock.recv(1) == b""
