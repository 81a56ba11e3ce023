"""Without torch, or numpy, the loaders of tensors say what to install, or to use in its place,
before anything is fetched.

Story: it was "No module named 'torch'", and without numpy it came behind the header.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cachesvc_client.tensors import load_state_dict, open_safetensors

URI = "s3://models/model.safetensors"


@pytest.mark.parametrize(
    ("load", "missing", "advice"),
    [
        (load_state_dict, "torch", r"pip install '\.\[torch\]' in a clone, or .* open_safetensors"),
        (partial(open_safetensors, framework="torch"), "torch", "pip install"),
        (
            open_safetensors,
            "numpy",
            r"pip install '\.\[tensors\]' in a clone, or .* framework='torch'",
        ),
    ],
)
def test_the_error_names_the_library_and_what_to_do(
    load: Callable[[str], Any], missing: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"{missing} is not installed: {advice}"):
        load(URI)
