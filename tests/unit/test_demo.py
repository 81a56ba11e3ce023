"""The demo: its table fits a terminal of 80 columns, its dataset is large enough everywhere."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from cachesvc.demo import inputs
from cachesvc.demo.inputs import own
from cachesvc.demo.run import run
from cachesvc.demo.table import WIDTH, Step, show

GIB = 1 << 30


def step(what: str, cache: str, processes: int = 1, fetched_bytes: int = 0) -> Step:
    return Step(
        name=f"{what}, {cache}",
        what=what,
        cache=cache,
        processes=processes,
        threads=16,
        objects=10_000,
        read_bytes=90 * GIB,
        seconds=1234.5,
        mb_s=12_345.6,
        origin_heads=10_000,
        origin_gets=12_345,
        origin_bytes=fetched_bytes,
        read_per_fetched=90 * GIB / fetched_bytes if fetched_bytes else None,
        hit_share=0.0,
    )


def shown(*steps: Step) -> list[str]:
    file = io.StringIO()
    show(Console(file=file), steps, ["dataset: a note"], Path("build/demo.json"))
    return file.getvalue().splitlines()


def test_the_table_fits_80_columns_whatever_was_read() -> None:
    lines = shown(
        step("large", "none", fetched_bytes=90 * GIB),
        step("large", "hot"),
        step("small", "cold", fetched_bytes=90 * GIB),
        step("crowd", "cold", 16, fetched_bytes=90 * GIB // 16),
    )
    assert max(len(line.rstrip()) for line in lines) <= WIDTH
    text = "\n".join(lines)
    for whole in ("10,000 large objects", "10,000 small objects", "16 readers, 1 object"):
        assert whole in text
    assert "…" not in text
    assert next(line for line in lines if " hot " in line).split()[-1] == "-"
    crowd = next(line for line in lines if "16 readers, 1 object" in line)
    assert crowd.split()[-1] == "16x"
    assert next(line for line in lines if " none " in line).split()[-1] == "1.0x"


def test_the_dataset_is_thousands_of_files_where_the_library_is_small(tmp_path: Path) -> None:
    library, packages = tmp_path / "lib", tmp_path / "venv" / "site-packages"
    for folder, count in ((library, 668), (library / "dist-packages", 5), (packages, 3000)):
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"m{number}.py").write_text("pass")
    (library / "empty.py").touch()
    found = inputs.Input()
    inputs._add_dataset(found, library, packages)
    assert len(found.files) == 2000
    assert not any("dist-packages" in key for key in found.files)
    assert found.notes == [
        "dataset: 668 sources of the standard library, 1,332 of installed packages"
    ]


def test_a_library_that_is_large_enough_is_the_dataset(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"m{number}.py").write_text("pass")
    found = inputs.Input()
    inputs._add_dataset(found, tmp_path, tmp_path / "none")
    assert len(found.files) == 2000
    assert found.notes == ["dataset: 2,000 sources of the standard library"]


@pytest.mark.slow
def test_the_demo_reads_a_folder_with_and_without_the_cache(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "large").write_bytes(bytes(range(256)) * 40_000)
    for number in range(1, 6):
        (mine / f"small{number}").write_bytes(b"small" * number)
    output = tmp_path / "build" / "demo.json"
    run(mine, output)
    steps = {(one["what"], one["cache"]): one for one in json.loads(output.read_text())["steps"]}
    assert len(steps) == 7
    for what in ("large", "small"):
        size_bytes = steps[what, "none"]["read_bytes"]
        assert steps[what, "none"]["origin_bytes"] == size_bytes
        assert steps[what, "cold"]["origin_bytes"] == size_bytes
        assert steps[what, "hot"]["origin_gets"] == 0
        assert steps[what, "hot"]["read_per_fetched"] is None
        assert steps[what, "hot"]["hit_share"] == 1.0
    assert steps["crowd", "cold"]["read_per_fetched"] == 16.0
    assert "no node could answer" not in capfd.readouterr().err, "the row without cache means it"


def test_files_whose_names_are_no_keys_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"x")
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    found = own(tmp_path)
    assert set(found.files) == {"files/good", "crowd/good"}
    assert any(note.startswith("left out: 1 ") for note in found.notes)
