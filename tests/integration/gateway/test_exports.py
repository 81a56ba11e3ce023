"""`cachesvc env --for PROGRAM`: what it prints makes the real program read through a gateway.

Story: each program runs in a process of its own, with the variables that a shell took from the
text, or with the lines that the text tells to write.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from cachesvc.devorigin import DevOrigin
from cachesvc.exports import PROGRAMS, exports
from tests.integration.gateway.gate import Gate, gateway_over
from tests.integration.loaders.gateway import STAND_INS
from tests.support import run_cli

DATA = b"a,b\n1,2\n3,4\n"
TELL = "import sys; sys.stdout.buffer.write(bytes(data))"
PROGRAM = {
    "boto3": ("boto3", "import boto3; data = boto3.client('s3').get_object(Bucket='bucket',"
              " Key='key.csv')['Body'].read()"),
    "webdataset": ("awscli", "import subprocess; data = subprocess.run(['aws', 's3', 'cp',"
                   " 's3://bucket/key.csv', '-'], check=True, capture_output=True).stdout"),
    "mosaicml": ("streaming", f"import sys; sys.path.append({STAND_INS!r});"
                 " from streaming.base.storage.download import CloudDownloader as C;"
                 " import pathlib, tempfile; local = tempfile.mkdtemp() + '/key.csv';"
                 " C.get('s3://bucket').download('s3://bucket/key.csv', local);"
                 " data = pathlib.Path(local).read_bytes()"),
    "vllm": ("runai_model_streamer_s3", "from runai_model_streamer.file_streamer.file_streamer"
             " import FileChunks, FileStreamer; one = FileStreamer().__enter__();"
             " one.stream_files([FileChunks(0, 's3://bucket/key.csv', [0], [12])]);"
             " data = b''.join(bytes(found[-1].numpy()) for found in one.get_chunks())"),
    "obstore": ("obstore", "import obstore; from obstore.store import S3Store;"
                " data = obstore.get(S3Store('bucket'), 'key.csv').bytes()"),
    "polars": ("polars", "import polars; data = polars.scan_csv('s3://bucket/key.csv').collect()"
               ".write_csv().encode()"),
    "s3torchconnector": ("s3torchconnectorclient", "from s3torchconnectorclient."
                         "_mountpoint_s3_client import MountpointS3Client as C;"
                         " data = b''.join(bytes(one)"
                         " for one in C(region='us-east-1',"
                         " user_agent_prefix='test').get_object('bucket', 'key.csv'))"),
}  # fmt: skip


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    work = tmp_path_factory.mktemp("exports")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin:
        origin.put("bucket", "key.csv", DATA)
        with gateway_over(origin.url, work / "node") as gate:
            yield gate


def read(script: str, text: str) -> bytes:
    """What a script reads, in a shell that has evaluated the text."""
    command = f'eval "$TEXT"; unset TEXT; exec {sys.executable} -c "$SCRIPT"'
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, timeout=60, check=False,
        env=os.environ | {"TEXT": text, "SCRIPT": f"{script}; {TELL}", "AWS_REGION": "us-east-1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(PROGRAM))
def test_the_variables_make_the_program_read_through_the_gateway(gate: Gate, program: str) -> None:
    module, script = PROGRAM[program]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    before = gate.count("s3_requests_total", op="GetObject", code="200") + gate.count(
        "s3_requests_total", op="GetObject", code="206"
    )
    assert read(script, exports(program, gate.url)) == DATA
    after = gate.count("s3_requests_total", op="GetObject", code="200") + gate.count(
        "s3_requests_total", op="GetObject", code="206"
    )
    assert after > before


def snippet(text: str) -> str:
    """The lines that a text tells to write, as one."""
    return " ".join(line[6:] for line in text.splitlines() if line.startswith("#     "))


def test_pyarrow_reads_by_the_line_to_write(gate: Gate) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    line = snippet(exports("pyarrow", gate.url))
    script = f"import pyarrow.fs; data = {line}.open_input_stream('bucket/key.csv').read()"
    assert read(script, exports("pyarrow", gate.url)) == DATA


def test_duckdbs_line_is_its_language() -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    line = snippet(exports("duckdb", "10.0.0.1:7072"))
    expected = (
        "CREATE SECRET (TYPE s3, PROVIDER credential_chain, ENDPOINT '10.0.0.1:7072',"
        " URL_STYLE 'path', USE_SSL false);"
    )
    assert " ".join(line.split()) == expected
    assert duckdb.extract_statements(line), "it parses; the extension httpfs may not be there"
    assert "USE_SSL true" in exports("duckdb", "https://gateway")


def test_the_command_prints_for_every_program() -> None:
    for program in PROGRAMS:
        result = run_cli("env", "--for", program, "--gateway", "10.0.0.1:7072")
        assert result.exit_code == 0
        assert result.stdout == exports(program, "10.0.0.1:7072") + "\n"
        assert "10.0.0.1:7072" in result.stdout
        for line in result.stdout.splitlines():
            assert line.startswith(("# ", "export "))
    default = run_cli("env", "--for", "boto3").stdout
    assert "export AWS_ENDPOINT_URL_S3=http://127.0.0.1:7072" in default
    assert run_cli("env", "--for", "nothing").exit_code == 2


@pytest.mark.parametrize(
    "gateway",
    [
        "nonsense",
        ":7072",
        "http://",
        "a b:1",
        "ftp://host:1",
        "",
        "h;touch made:1",
        "http://$(ls):1",
    ],
)
def test_what_is_no_gateway_is_refused_and_never_given_to_a_shell(gateway: str) -> None:
    with pytest.raises(ValueError, match="is no gateway: give HOST:PORT"):
        exports("boto3", gateway)


@pytest.mark.parametrize(
    "gateway", ["[::1]:7072", "host-1.svc:80", "http://host", "https://a.b:1/"]
)
def test_addresses_and_urls_are_taken(gateway: str) -> None:
    assert gateway.rstrip("/") in exports("boto3", gateway)
