"""The two halves of `python -m tests`: what is in which, and that neither hides a failure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.__main__ import ROOT, SUITES, TIMELESS, main, verdict
from tests.test_tidy import imported, modules

CLOCKED = (  # and what waits by one of them
    "tests.integration.cluster",
    "tests.integration.inprocess",
    "tests.support.until",
    "select",
    "selectors",
    "signal",
    "socket",
    "threading",
    "time",
)
NOT_A_TEST = {"tests/sim/__main__.py": "tells how many histories a second it plays"}
GOOD = "def test_it(record_property): record_property('count', 1)\n"
BAD = "def test_it(): assert 'here' == 'there'\n"


def test_what_runs_beside_the_others_meets_no_clock_and_no_socket() -> None:
    found = {
        name
        for name in modules(*(f"tests/{suite}/" for suite in TIMELESS))
        for _, module in imported(name)
        if module.startswith(CLOCKED)
    }
    assert sorted(found) == sorted(NOT_A_TEST)


def test_every_folder_of_tests_is_a_suite() -> None:
    paths = ROOT.glob("tests/*/**/test_*.py")
    found = {path.relative_to(ROOT / "tests").parts[0] for path in paths}
    assert found == {*SUITES}
    assert {*TIMELESS} < found


@pytest.mark.slow
def test_a_failure_in_the_half_beside_is_shown_and_is_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for suite in SUITES:
        folder = tmp_path / "tests" / suite
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "test_some.py").write_text(BAD if suite == "fuzz" else GOOD)
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    assert main(tmp_path) == 1
    said = capfd.readouterr().out
    assert "'here' == 'there'" in said
    assert f"both halves: {len(SUITES)} tests, exit codes [0, 1]" in said


def report(path: Path, suites: Iterable[str]) -> Path:
    """A report of pytest's, of one test of each suite, and of a file that it could not read."""
    cases = [f'<testcase classname="tests.{suite}.test_some" name="test_it"/>' for suite in suites]
    cases.append('<testcase classname="" name="tests.unit.test_broken"/>')
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_all_is_well_only_if_both_halves_say_so_of_all_suites(tmp_path: Path) -> None:
    others = [suite for suite in SUITES if suite not in TIMELESS]
    timeless, clocked = report(tmp_path / "1", TIMELESS), report(tmp_path / "2", others)
    assert verdict([timeless, clocked], [0, 0]) == 0
    assert verdict([timeless, clocked], [0, 1]) == 1
    assert verdict([timeless, clocked], [-9, 0]) == 1
    assert verdict([timeless, tmp_path / "none"], [0, 0]) == 1


def test_a_suite_of_which_all_was_skipped_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [report(tmp_path / "1", SUITES)]
    said = reports[0].read_text()
    case = '<testcase classname="tests.fuzz.test_some" name="test_it"'
    reports[0].write_text(said.replace(f"{case}/>", f"{case}><skipped/></testcase>"))
    assert verdict(reports, [0, 0]) == 1
    assert "no test of tests/fuzz was run\n" in capsys.readouterr().out


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_of_which_no_test_was_run_is_a_failure(
    tmp_path: Path, suite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [report(tmp_path / "1", [one for one in SUITES if one != suite])]
    assert verdict(reports, [0, 0]) == 1
    assert f"no test of tests/{suite} was run\n" in capsys.readouterr().out
