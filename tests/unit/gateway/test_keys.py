"""The file of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.gateway.auth import KeyFileError, read_keys


def test_keys_are_read_one_pair_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\nAKID1  secret/1+=\n\nAKID2\tsecret2  # a comment\n")
    assert read_keys(file) == {"AKID1": "secret/1+=", "AKID2": "secret2"}


@pytest.mark.parametrize("text", ["", "# nobody\n", "AKID\n", "AKID secret more\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(KeyFileError, match="keys"):
        read_keys(file)
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(tmp_path / "none")
