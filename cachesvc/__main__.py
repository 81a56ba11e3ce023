"""The program `cachesvc`: the command line, or one line that says what to install for it.

Story: `pip install cachesvc` is the thin client and brings this program along, but not what it is
made of, which comes with the extra `node`.
"""

from __future__ import annotations

import sys

_OURS = ("cachesvc", "cachesvc_client")


def main() -> None:
    """The entry point of the program."""
    try:
        from cachesvc.cli import main as command_line

        command_line()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in _OURS:
            raise
        if sys.argv[1:] == ["--version"]:
            from importlib.metadata import version

            sys.stdout.write(f"cachesvc {version('cachesvc')}\n")
            return
        sys.exit(
            "cachesvc: the program needs more than the thin client, which is all that is installed"
            f" ({missing} is missing): pip install '.[node]' in a clone"
        )


if __name__ == "__main__":
    main()
