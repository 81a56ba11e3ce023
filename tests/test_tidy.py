"""A test that reads the code: the house rules that no other tool checks.

Rules: every exception stands here with its reason; a list of exceptions that names something which
no longer needs it fails too, so that the lists only shrink.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUBS = "cachesvc/wire/v1/"
PACKAGES = ("cachesvc/", "client/cachesvc_client/")

MAX_FILE_LINES = 400
LONG_FILES: dict[str, str] = {}
MAX_FUNCTION_LINES = 70
LONG_FUNCTIONS: dict[str, str] = {}
MAX_PACKAGE_DEPTH = 3

PRINTERS = ("cachesvc/cli.py", "cachesvc/demo.py", "cachesvc/demo/")
PRINTS = {
    "cachesvc/app.py": "the line `ready` on standard output is a contract",
    "cachesvc/devorigin/server.py": "the line `ready` on standard output, and why it cannot start",
}
SLEEPS = {
    "tests/support.py": "`until` polls another thread to a deadline; nothing depends on the pause",
}
ASYNCHRONOUS = {
    ("client/cachesvc_client/threads.py", "asyncio"): "fsspec and aiobotocore ask for coroutines",
    ("client/cachesvc_client/intercept/aio.py", "aiobotocore.awsrequest.AioAWSResponse"): (
        "aiobotocore is answered in its own class"
    ),
    ("client/cachesvc_client/intercept/aio.py", "aiobotocore.httpsession.AIOHTTPSession"): (
        "asked whether a client reads by aiohttp"
    ),
}
HASHES = {
    "cachesvc/devorigin/folder.py": "picks one of this process's locks, and routes nothing",
}
WRONG_WORDS = {
    "backend": "origin",
    "upstream": "origin",
    "chunkserver": "node",
    "populate": "fill",
}
WORD_EXCEPTIONS = {"MADV_POPULATE_READ"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tracked() -> tuple[str, ...]:
    """The files of the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        names = listed.split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, or no git
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if _ours(path)]
    return tuple(sorted(name for name in set(names) if name and (ROOT / name).is_file()))


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") and part != ".ci" for part in parts)
    built = any(part in ("build", "__pycache__") or part.endswith(".egg-info") for part in parts)
    return not hidden and not built


def modules(*prefixes: str) -> list[str]:
    """Python files that people write, under the prefixes (all: none given)."""
    return [
        name
        for name in tracked()
        if name.endswith(".py")
        and not name.startswith(STUBS)
        and (not prefixes or name.startswith(prefixes))
    ]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), name)


def functions(name: str) -> Iterator[tuple[str, Function]]:
    """Every function of a module with its dotted name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    yield inner, child
                yield from walk(child, f"{inner}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree(name), "")


def calls(name: str) -> Iterator[tuple[int, str]]:
    """Every call of a module: line, and the callee as written, dots and all."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node.func)


def identifiers(name: str) -> Iterator[tuple[int, str]]:
    """The names that a module itself gives: definitions, arguments, variables, attributes."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def imported(name: str) -> Iterator[tuple[int, str]]:
    """Every module, or name of a module, that a file imports."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def test_every_module_tells_its_purpose_in_its_first_lines() -> None:
    silent = [
        name
        for name in modules()
        if tree(name).body and not (ast.get_docstring(tree(name)) or "").strip()
    ]
    assert silent == []


def _protocol_names() -> set[str]:
    """Methods whose contract stands in a Protocol or base class of this project."""
    named = set()
    for name in modules(*PACKAGES):
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                named |= {
                    one.name
                    for one in node.body
                    if isinstance(one, Function) and ast.get_docstring(one)
                }
    return named


def _says_itself(function: Function) -> bool:
    """A body of at most three statements, and a signature that is typed to the end: the code is
    the contract."""
    return function.returns is not None and len(function.body) <= 3


def test_public_classes_and_functions_state_their_contract() -> None:
    known = _protocol_names()
    silent = []
    for name in modules(*PACKAGES):
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    silent.append(f"{name}: class {node.name}")
                members = [one for one in node.body if isinstance(one, Function)]
            else:
                members = [node] if isinstance(node, Function) else []
            silent += [
                f"{name}: {one.name}"
                for one in members
                if not one.name.startswith("_")
                and not ast.get_docstring(one)
                and one.name not in known
                and not _says_itself(one)
                and not name.startswith("cachesvc/wire/codec")  # pack_X and unpack_X, by its header
            ]
    assert silent == []


def test_files_are_short_enough_to_find_a_room_in() -> None:
    long = {
        name: len(text(name).splitlines())
        for name in modules()
        if len(text(name).splitlines()) > MAX_FILE_LINES
    }
    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}
    assert [name for name in LONG_FILES if name not in long] == [], "no longer long: take it out"


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for name in modules():
        for dotted, node in functions(name):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES and not _is_flags(node):
                long[f"{name}: {dotted}"] = lines
    assert {which: lines for which, lines in long.items() if which not in LONG_FUNCTIONS} == {}
    assert [which for which in LONG_FUNCTIONS if which not in long] == []


def _is_flags(node: Function) -> bool:
    """A command whose signature is the list of its options: only the body counts."""
    body_lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
    commands = [one for one in node.decorator_list if ast.unparse(one).startswith("app.command")]
    return bool(commands) and body_lines <= MAX_FUNCTION_LINES


def test_packages_are_at_most_three_deep() -> None:
    deep = [name for name in modules("cachesvc/") if name.count("/") > MAX_PACKAGE_DEPTH]
    assert deep == []


def test_nothing_is_left_to_be_done() -> None:
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [
        f"{name}:{number}"
        for name in tracked()
        if name.endswith((".py", ".proto", ".md", ".toml")) or name == "Makefile"
        for number, line in enumerate(text(name).splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_only_the_command_line_prints() -> None:
    printing = {
        name
        for name in modules(*PACKAGES)
        if not name.startswith(PRINTERS) and any(callee == "print" for _, callee in calls(name))
    }
    assert sorted(printing - PRINTS.keys()) == []
    assert [name for name in PRINTS if name not in printing] == [], "prints no longer: take it out"


def test_tests_never_sleep_to_wait_for_something() -> None:
    sleeping = [
        f"{name}:{line}"
        for name in modules("tests/")
        if name not in SLEEPS
        for line, callee in calls(name)
        if callee in ("time.sleep", "sleep")
    ]
    assert sleeping == []


def test_the_builtin_hash_decides_nothing() -> None:
    """`hash()` differs between processes; only `__hash__` itself may call it."""
    found = []
    for name in modules(*PACKAGES):
        if name in HASHES:
            continue
        allowed = {
            number
            for dotted, node in functions(name)
            if dotted.endswith("__hash__")
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        found += [
            f"{name}:{line}"
            for line, callee in calls(name)
            if callee == "hash" and line not in allowed
        ]
    assert found == []


def test_one_word_has_one_meaning() -> None:
    found = [
        f"{name}:{line}: {given}: say {right}"
        for name in modules(*PACKAGES)
        for line, given in identifiers(name)
        if given not in WORD_EXCEPTIONS
        for wrong, right in WRONG_WORDS.items()
        if wrong in given.lower()
    ]
    assert found == []


def test_the_client_knows_no_asynchronous_grpc() -> None:
    """A live grpc.aio loop in a parent kills forked children. lint-imports cannot see into grpc."""
    banned = ("grpc.aio", "grpc.experimental", "asyncio", "aiobotocore")
    found = [
        f"{name}:{line}: {module}"
        for name in modules("client/")
        for line, module in imported(name)
        if module.startswith(banned) and (name, module) not in ASYNCHRONOUS
    ]
    found += [name for name in modules("client/") if re.search(r"\bgrpc\.aio\.\w", text(name))]
    assert found == []


@pytest.mark.parametrize(
    ("contract", "modules", "others"),
    [
        ("thin-client", "forbidden_modules", {"core", "names", "wire"}),
        (
            "node-without-client",
            "source_modules",
            {"__main__", "cli", "demo", "exports", "names", "serving", "startup"},
        ),
        (
            "one-root",
            "source_modules",
            {
                "app",
                "demo",
                "devorigin",
                "disk",
                "exports",
                "names",
                "origin",
                "origins",
                "startup",
            },
        ),
    ],
)
def test_a_contract_names_every_module_but_those_that_are_others(
    contract: str, modules: str, others: set[str]
) -> None:
    settings = tomllib.loads(text("pyproject.toml"))
    contracts = {one["id"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    top = {
        path.stem
        for path in (ROOT / "cachesvc").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
    }
    named = set(contracts[contract][modules])
    assert sorted({f"cachesvc.{stem}" for stem in top - others} - named) == []


def test_nothing_names_a_registry_or_a_path_of_one_machine() -> None:
    hosts = r"(?:py[p]i|python[h]osted|npm[j]s|crates|docker)\.(?:org|io|com)|index-url|/simple/"
    places = r"(?<![\w.$}])/(?:home|root|Users)/|(?<![\w.$}])/work/"
    banned = re.compile(f"{hosts}|{places}")
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name in tracked()
        if name != "tests/test_tidy.py" and not name.endswith((".png", ".jpg"))
        for number, line in enumerate(text(name).splitlines(), 1)
        if banned.search(line)
    ]
    assert found == []


def test_generated_stubs_are_generated() -> None:
    """That they are those of proto/ is checked by `make check`, which generates them again."""
    for name in tracked():
        if name.startswith(STUBS) and not name.endswith("__init__.py"):
            first_lines = "\n".join(text(name).splitlines()[:6]).lower()
            assert "generated by" in first_lines, f"{name} is not a generated file"
    protos = {Path(name).stem for name in tracked() if name.endswith(".proto")}
    stubs = {Path(name).stem for name in tracked() if name.startswith(STUBS)} - {"__init__"}
    assert stubs == {f"{stem}{end}" for stem in protos for end in ("_pb2", "_pb2_grpc")}


PAGES = [name for name in tracked() if name.endswith(".md") and not name.startswith("benchmarks/")]


@pytest.mark.parametrize("name", PAGES)  # a part of docs/benchmarks.md stands in benchmarks/
def test_the_links_of_a_document_lead_somewhere(name: str) -> None:
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(name))
    broken = [link for link in linked if not (ROOT / name).parent.joinpath(link).exists()]
    assert broken == []
