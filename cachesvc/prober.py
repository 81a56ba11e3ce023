"""The prober: which version a read is of, and of an object that nobody knows the bytes as well.

Story: a read that names no version asks the keeper of versions. If this node knows nothing of the
object, neither its version nor any block 0, there is nothing that a HEAD could save: one GET of
what the read wants first of block 0 tells the version in its head and brings the bytes in its body.
Whoever asks meanwhile shares it.

Rules: a probe only if the name is surely unknown: else its bytes might be here, or on their way.
Everybody who waits for a probe holds it, as readers do flights: when the last one leaves, it stops.
"""

from __future__ import annotations

from cachesvc.coalescer import Coalescer
from cachesvc.core.plan import first_extent
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Geometry, ObjectName
from cachesvc.flight import Hold, Probe
from cachesvc.store import Store
from cachesvc.versions import Checked, Versions


class Prober:
    """Asks for versions on behalf of reads. Event loop only."""

    def __init__(
        self, store: Store, coalescer: Coalescer, versions: Versions, geometry: Geometry
    ) -> None:
        self._store = store
        self._coalescer = coalescer
        self._versions = versions
        self._geometry = geometry

    async def version(self, request: ReadRequest) -> tuple[Checked, Hold | None]:
        """The version, checked as the request demands, and a hold on the probe that may have
        brought it: for the caller to close.

        Raises: ObjectNotFound, AccessDenied, OriginError, Overloaded.
        """
        hold, probe = self._hold(request)
        try:
            checked = await self._versions.get(request.name, request.max_age_s, probe)
        except BaseException:
            if hold is not None:
                hold.close()
            raise
        return checked, hold

    def _hold(self, request: ReadRequest) -> tuple[Hold | None, Probe | None]:
        """A hold on the probe of the object, and the probe if it begins with this."""
        current = self._coalescer.probing(request.name)
        if current is not None:
            return self._coalescer.share(current), None
        if not self.unknown(request.name):
            return None, None
        extent = first_extent(request.name, request.ranges, self._geometry)
        if extent is None:
            return None, None
        max_age_s = self._versions.allowance_s(request.name, request.max_age_s)
        probe = Probe(extent, self._versions.clock, max_age_s)
        return self._coalescer.probe(probe), probe

    def unknown(self, name: ObjectName) -> bool:
        """Whether nothing is known of the object, so that a read of block 0 would begin a probe."""
        return (
            self._versions.unknown(name)
            and self._coalescer.unknown(name)
            and self._store.none_of(name)
        )
