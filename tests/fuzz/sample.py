"""How hard the fuzz tests try, and the object that they speak of."""

from __future__ import annotations

from hypothesis import settings

from cachesvc.core.types import ObjectName

FUZZ = settings(max_examples=300)
NAME = ObjectName("bucket", "key")
