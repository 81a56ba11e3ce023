"""`python -m tests`: all tests, as two runs of pytest side by side; what `make test` calls.

Rules
- Every test is in exactly one half. `timeless` holds the suites whose tests meet no clock and no
  socket, so that nothing in them can come too late: it runs at the lowest priority, in the time
  that the processors would idle. `clocked` is all the rest, one test at a time, with the machine
  nearly as if it were alone.
- A suite of which no test was run is a failure, and so is a half that did not end by itself.

Story: what `clocked` says is shown as it comes, what `timeless` says stands in build/timeless.txt
and is shown in the end. Who is in which half: tests/unit/test_halves.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
SUITES = ("unit", "property", "conformance", "sim", "fuzz", "integration", "regressions")
TIMELESS = ("sim", "property", "fuzz")
LEAST_PRIORITY = ("nice", "-n", "19")
PATIENCE_S = 3600  # of a test that gets only what the others leave


def main(root: Path = ROOT) -> int:
    """Run both halves of the tests under `root`; 0 if all is well."""
    build = root / "build"
    build.mkdir(exist_ok=True)
    reports = [build / f"{half}.xml" for half in ("timeless", "clocked")]
    for report in reports:
        report.unlink(missing_ok=True)
    mine = [f"tests/{suite}" for suite in TIMELESS]
    with (build / "timeless.txt").open("w+") as said:
        patient = (*LEAST_PRIORITY, *_pytest(reports[0]), "-o", f"timeout={PATIENCE_S}")
        with _beside([*patient, "-p", "no:cacheprovider", *mine], root, said) as beside:
            others = [*_pytest(reports[1]), "tests", *(f"--ignore={one}" for one in mine)]
            exit_codes = [subprocess.run(others, cwd=root, check=False).returncode, beside.wait()]
        said.seek(0)
        print(f"\nbeside them, {', '.join(mine)}:\n{said.read()}")
    return verdict(reports, exit_codes)


def verdict(reports: Sequence[Path], exit_codes: Sequence[int]) -> int:
    """0 if all is well, by what the halves reported and how they ended; tells it."""
    if not all(report.exists() for report in reports):
        print(f"a half of the tests was ended from outside: exit codes {exit_codes}")
        return 1
    counts = _counted(reports)
    missing = [suite for suite in SUITES if not counts[suite]]
    for suite in missing:
        print(f"no test of tests/{suite} was run")
    print(f"both halves: {counts.total()} tests, exit codes {exit_codes}")
    return int(any(exit_codes) or bool(missing))


def _pytest(report: Path) -> tuple[str, ...]:
    reporting = (f"--junit-xml={report}", "-o", "junit_family=xunit1")  # knows record_property
    return (sys.executable, "-m", "pytest", "--no-header", "--tb=short", *reporting)


@contextmanager
def _beside(command: Sequence[str], root: Path, said: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process and all that it starts, which do not outlive this one."""
    with subprocess.Popen(
        command, cwd=root, stdout=said, stderr=subprocess.STDOUT, process_group=0
    ) as child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):  # nothing is left of it
                os.killpg(child.pid, signal.SIGKILL)


def _counted(reports: Sequence[Path]) -> Counter[str]:
    """How many tests of each suite were run; a file beside the suites counts as one."""
    cases = [case for report in reports for case in ET.parse(report).iter("testcase")]
    names = (case.get("classname") for case in cases if case.find("skipped") is None)
    return Counter(name.split(".")[1] for name in names if name)  # a broken file's case has none


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
