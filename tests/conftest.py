"""Every test runs alike everywhere: the same random examples, and credentials for nobody."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from cachesvc_client import passed
from hypothesis import settings

# One certificate in place of the system's 140, which take each new client and each node 0.06 s,
# twice. Nothing is signed with it: what speaks TLS in a test brings its own.
AUTHORITY = str(Path(__file__).with_name("authority.pem"))
AWS_FOR_NOBODY = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_CA_BUNDLE": AUTHORITY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

settings.register_profile(
    "cachesvc", derandomize=True, print_blob=True, deadline=None, max_examples=100
)
settings.load_profile("cachesvc")

# the descriptions of AWS's services are read once in a run, and not for each client: 0.1 s
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# As the client sets it where it is the first to import gRPC: with fork support on, a fork beside
# threads that are in calls can crash the child, and some test before has imported gRPC by itself.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

for _name in [name for name in os.environ if name.startswith(("AWS_", "CACHESVC_"))]:
    del os.environ[_name]
os.environ.update(AWS_FOR_NOBODY, SSL_CERT_FILE=AUTHORITY)


@pytest.fixture(autouse=True)
def _credentials_for_nobody() -> Iterator[None]:
    """No test reaches anybody's account: what it sets in the environment, it takes back."""
    _check_environment()
    yield
    _check_environment()


@pytest.fixture
def copied_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client behind a Unix socket copies comes as files as soon as what it maps does: the
    objects of tests are small.
    """
    monkeypatch.setattr(passed, "COPIED_BYTES", passed.SHOWN_BYTES)


def _check_environment() -> None:
    found = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert {name: found.get(name) for name in AWS_FOR_NOBODY} == AWS_FOR_NOBODY
    strange = found.keys() - AWS_FOR_NOBODY.keys()
    assert not strange, f"a test left {strange} in the environment"
