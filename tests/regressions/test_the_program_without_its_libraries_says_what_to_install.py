"""After `pip install cachesvc`, the thin client, the program says in one line what else it needs.

Story: it ended in a traceback that named typer, and then in a line that named typer and not why.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

from cachesvc.__main__ import main


@pytest.mark.parametrize("missing", ["typer", "rich.console"])
def test_the_program_without_its_libraries_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name in ("cachesvc.cli", "cachesvc.config")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as caught:
        main()
    package = missing.partition(".")[0]
    said = caught.value.code  # to standard error, and the exit code is 1
    assert isinstance(said, str)
    assert said.startswith("cachesvc: the program needs more than the thin client")
    assert f"({package} is missing)" in said
    assert "pip install '.[node]' in a clone" in said
    assert "\n" not in said


def test_it_tells_its_version_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "cachesvc.cli", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.setattr(sys, "argv", ["cachesvc", "--version"])
    main()
    assert capsys.readouterr().out == f"cachesvc {version('cachesvc')}\n"


def test_a_module_of_ours_that_is_missing_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cachesvc.cli", None)
    with pytest.raises(ModuleNotFoundError):
        main()
