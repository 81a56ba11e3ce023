"""Signed URLs for the fill threads, kept for a few minutes.

Rules: at most `limit_count` are kept, the one used longest ago leaves first; a URL is handed out
only in the first part of its validity; `forget` after the origin has refused one. Lives on the
event loop.

Story: aiobotocore knows about credentials, their refresh, regions and addressing; a fill thread
knows sockets. A presigned URL is what passes between them: it signs the host and the path, and
leaves Range and If-Match open, so that one signature serves all GETs of an object.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from cachesvc.core.errors import OriginError
from cachesvc.core.types import ObjectName

KEEP_S = 300.0
VALID_S = 900
SIGN_S = 10.0  # signing asks nobody, but credentials that expire are fetched anew before


class Signer:
    """Presigned URLs of one client, by object."""

    def __init__(self, limit_count: int) -> None:
        self._limit_count = limit_count
        self._kept: OrderedDict[ObjectName, tuple[str, float]] = OrderedDict()

    async def url(self, client: Any, name: ObjectName) -> tuple[str, bool]:
        """A URL that gets the object, and whether it was signed just now.

        Raises: what botocore raises; OriginError if the credentials are not there within SIGN_S.
        """
        url, until_s = self._kept.get(name, ("", 0.0))
        if time.monotonic() < until_s:
            self._kept.move_to_end(name)
            return url, False
        try:
            async with asyncio.timeout(SIGN_S):
                signed: str = await client.generate_presigned_url(
                    "get_object", Params={"Bucket": name.bucket, "Key": name.key}, ExpiresIn=VALID_S
                )
        except TimeoutError as error:
            raise OriginError(
                f"{name}: nothing could be signed within {SIGN_S:g} s, because the credentials do"
                " not come: check what this node takes them from (metadata endpoint, role, profile)"
            ) from error
        self._kept[name] = (signed, time.monotonic() + KEEP_S)
        self._kept.move_to_end(name)
        if len(self._kept) > self._limit_count:
            self._kept.popitem(last=False)
        return signed, True

    def forget(self, name: ObjectName) -> None:
        self._kept.pop(name, None)
