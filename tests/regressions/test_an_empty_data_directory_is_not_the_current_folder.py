"""`--data-dir ''`, what a shell makes of an unset variable, is refused.

Story: it became the path `.`, and the node put its blocks into whatever folder it was started in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.config import ConfigError, load
from tests.support import run_cli


def test_an_empty_data_directory_is_not_the_current_folder(tmp_path: Path) -> None:
    for empty in ("", " "):
        refused = run_cli("node", "--data-dir", empty)
        assert refused.exit_code == 2
        assert "data_dir: '' is no directory" in refused.stderr
    file = tmp_path / "node.toml"
    file.write_text('[node]\ndata_dir = ["/a", ""]\n')
    with pytest.raises(ConfigError, match="data_dir: '' is no directory"):
        load({}, file)
    assert load({"data_dir": ["."]}).data_dir == (Path(),)
