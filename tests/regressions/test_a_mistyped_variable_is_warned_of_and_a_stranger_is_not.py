"""CACHESVC_NODE_CAPACITY, with one underscore, is no setting, and the log names the one meant.

Story: it was ignored without a word, and the node ran with the default. It cannot be refused as an
unknown key is: Kubernetes sets CACHESVC_NODE_SERVICE_HOST and its like for a Service of that name.
"""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from cachesvc.config import load

MEANT = {
    "CACHESVC_NODE_CAPACITY": "CACHESVC_NODE__CAPACITY",
    "CACHESVC_CAPACITY": "CACHESVC_NODE__CAPACITY",
    "CACHESVC_NODE_DATADIR": "CACHESVC_NODE__DATA_DIR",
    "CACHESVC_NODE_ID": "CACHESVC_NODE__NODE_ID",
    "CACHESVC_NODE_NODE_ID": "CACHESVC_NODE__NODE_ID",
    "CACHESVC_TOKEN_FILE": "CACHESVC_NODE__TOKEN_FILE",
}
STRANGERS = [
    *("CACHESVC_ENDPOINT", "CACHESVC_TOKEN", "NODE_CAPACITY", "CACHESVC_NODE_SERVICE_HOST"),
    *("CACHESVC_NODE_SERVICE_PORT", "CACHESVC_NODE_SERVICE_PORT_GRPC", "CACHESVC_NODE_PORT"),
    *("CACHESVC_NODE_SERVICE_PORT_LANE", "CACHESVC_NODE_SERVICE_PORT_ADMIN"),
    *("CACHESVC_NODE_PORT_7071_TCP", "CACHESVC_NODE_PORT_7071_TCP_ADDR", "CACHESVC_SERVICE_HOST"),
    *("CACHESVC_NODE_PORT_7071_TCP_PORT", "CACHESVC_NODE_PORT_7071_TCP_PROTO", "CACHESVC_PORT"),
]


def test_a_mistyped_variable_is_warned_of_and_a_stranger_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in [*MEANT, *STRANGERS]:
        monkeypatch.setenv(variable, "tcp://10.0.0.1:7071")
    with capture_logs() as logged:
        assert load({"data_dir": "/d"}).capacity == 10 << 30
    assert {one["variable"]: one["did_you_mean"] for one in logged} == MEANT
    assert {one["log_level"] for one in logged} == {"warning"}
