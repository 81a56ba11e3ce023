"""What can never work as it was written ends with exit code 2 and one line that names it.

Story: a bad URI ended with 1, as if the cluster had failed; numbers were refused in the words of a
library, or, `nan`, taken; some addresses were refused without being named. A file that was not
there was named twice or by no setting, and an origin without http:// in the words of a library.
"""

from __future__ import annotations

import pytest

from tests.support import run_cli

CLUSTER = ("--endpoint", "127.0.0.1:1")
NODE = ("node", "--data-dir", "/nowhere")
DEVORIGIN = ("devorigin", "--root", "/nowhere", "--listen")
WRONG = [
    *(
        (command, uri, *CLUSTER)
        for command in ("get", "stat", "where")
        for uri in ("b/k", "s3://b")
    ),
    *((command, "s3://b/k", "--endpoint", "host:no") for command in ("get", "stat", "where")),
    *((command, "--endpoint", "host:99999") for command in ("ring", "status")),
    ("ring", "--endpoint", "http://host:7071"),
    *((*NODE, f"--{port}", "127.0.0.1:99999") for port in ("lane", "grpc", "admin", "members")),
    (*NODE, "--lane", f"127.0.0.1:{'9' * 5000}"),
    (*NODE, "--members", "127.0.0.1:²"),
    *((*NODE, "--weight", weight) for weight in ("x", "0", "1.5", "")),
    *((*NODE, "--origin-gets", count) for count in ("x", "0", "5000")),
    *((*NODE, "--capacity", "x"), (*NODE, "--eviction", "no"), (*NODE, "--drain-timeout", "x")),
    (*NODE, "--origin-endpoint", "127.0.0.1:9000"),
    *((*NODE, option, "/absent/file") for option in ("--config", "--token-file")),
    (*NODE, "--members", "file:/absent/file"),
    *((*DEVORIGIN, address) for address in ("host", "host:no", "127.0.0.1:99999")),
    *((*DEVORIGIN, "127.0.0.1:0", "--first-byte-ms", number) for number in ("x", "nan", "-1")),
    (*DEVORIGIN, "127.0.0.1:0", "--per-connection-mb-s", "inf"),
    *((*DEVORIGIN, "127.0.0.1:0", "--first-byte-p99-ms", number) for number in ("x", "200")),
]


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:60])
def test_wrong_usage_ends_with_2_and_one_line(words: tuple[str, ...]) -> None:
    refused = run_cli(*words)
    assert refused.exit_code == 2, refused.output
    assert refused.stdout == ""
    assert refused.stderr.startswith("cachesvc: ")
    assert refused.stderr.count("\n") == 1
    assert "should be" not in refused.stderr
    wrong = next(word for word in words[1:] if word not in CLUSTER and word != "s3://b/k")
    wrong = words[-1] if wrong.startswith(("--", "/")) else wrong
    wrong = wrong.removeprefix("file:")
    assert wrong[:40] in refused.stderr
    options = [word for word in words if word.startswith("--") and word != "--data-dir"]
    if wrong.startswith("/absent"):
        assert refused.stderr.count(wrong) == 1
        assert refused.stderr.endswith(" cannot be read: No such file or directory\n")
    if words[0] == "node":
        assert options[0].removeprefix("--").replace("-", "_") in refused.stderr
