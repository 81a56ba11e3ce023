"""The marks: which ratio of which figures, what it has to be, and whether it was reached.

Rules: a ratio compares values of the same round; its median counts. A mark whose figures are
missing is not reached and not missed: it says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import (
    cold_fill,
    hot_big,
    hot_small,
    placed,
    safetensors_load,
    stalled,
    stampede,
)
from benchmarks.catalog import (
    ARRAY,
    GRPC,
    LANE,
    LANE_RAW,
    NGINX_CACHE,
    NGINX_RAW,
    REGION,
    REGION_AGAIN,
    REGION_FIRST,
    SYSTEMS,
)  # fmt: skip
from benchmarks.harness import Figure
from benchmarks.measure import Outcome

Values = Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of the marks. found: the ratio, or the value; None: not measured."""

    what: str
    wanted: str
    found: Figure | None
    reached: bool | None
    remark: str = ""


class Found:
    """The outcomes of a run, and the figures of the benchmarks that are not tables."""

    def __init__(self, outcomes: Mapping[str, Outcome], figures: Mapping[str, object]) -> None:
        self.outcomes = outcomes
        self.figures = figures

    def values(self, workload: str, case: str, system: str, figure: str) -> Values:
        outcome = self.outcomes.get(workload)
        return outcome.values(case, system, figure) if outcome else None

    def figure(self, benchmark: str, name: str) -> Figure | None:
        """A figure that a benchmark printed itself; None if it was not run, or skipped.

        Raises:
            LookupError: it was run, and has no such figure.
        """
        table = self.figures.get(benchmark)
        if not isinstance(table, dict) or "skipped" in table:
            return None
        value = table.get(name)
        if not isinstance(value, dict):
            raise LookupError(f"benchmark {benchmark} has no figure {name!r}")
        return Figure(**value)

    def reason(self, workload: str, *systems: str) -> str:
        outcome = self.outcomes.get(workload)
        if outcome is None:
            return f"{workload} was not run"
        reasons = [
            why for name, why in outcome.skipped.items() if name.startswith((*systems, "all"))
        ]
        return "; ".join(dict.fromkeys(reasons)) or "not measured"


def _ratio(ours: Values, theirs: Values) -> Figure | None:
    if not ours or not theirs or len(ours) != len(theirs) or not all(theirs):
        return None
    return Figure.of([a / b for a, b in zip(ours, theirs, strict=True)])


def _mark(
    what: str, bound: float, found: Figure | None, *, most: bool = False, why: str = ""
) -> Mark:
    wanted = f"at {'most' if most else 'least'} {bound:g}"
    if found is None:
        return Mark(what, wanted, None, None, why or "not measured")
    reached = found.median <= bound if most else found.median >= bound
    return Mark(what, wanted, found, reached, why)


def _against(
    found: Found, what: str, place: tuple[str, str, str], ours: str, theirs: str, bound: float,
    most: bool = False,
) -> Mark:  # fmt: skip
    """place: workload, case, figure."""
    workload, case, figure = place
    ratio = _ratio(
        found.values(workload, case, ours, figure), found.values(workload, case, theirs, figure)
    )
    why = "" if ratio else found.reason(workload, ours, theirs)
    return _mark(what, bound, ratio, most=most, why=why)


def _value(
    found: Found, what: str, workload: str, case: str, system: str, figure: str, bound: float
) -> Mark:
    """A figure that may be this much at most, in every round."""
    values = found.values(workload, case, system, figure)
    if not values:
        return _mark(what, bound, None, most=True, why=found.reason(workload, system))
    mark = _mark(what, bound, Figure.of(values), most=True)
    return replace(mark, reached=max(values) <= bound)


def _fastest(found: Found, workload: str, case: str, names: Sequence[str]) -> str:
    """Of these systems the one with the highest median of GB/s; the first, if there is none."""
    speeds = {name: found.values(workload, case, name, "GB/s") for name in names}
    medians = {name: Figure.of(values).median for name, values in speeds.items() if values}
    return max(medians, key=lambda name: medians[name]) if medians else names[0]


def _hot(found: Found) -> list[Mark]:
    big = ("hot-big", hot_big.case_name(1), "GB/s")
    small = ("hot-small", hot_small.case_name(4, 1), "p50 us")
    region_us = found.values(*small[:2], REGION, small[2])
    return [
        _region_against_array(found, big),
        *_region_against_sockets(found),
        _with(
            _against(
                found, "TCP lane / nginx sendfile, raw client, 8 MiB, GB/s", big, LANE_RAW,
                NGINX_RAW, 1,
            ),
            "buffer at a page", found.figure("lane", "8 MiB to a page, lane / nginx"),
        ),
        _lane_cpu(found, big[:2]),
        _with(
            _against(found, "CacheClient lane / nginx raw, 8 MiB, GB/s", big, LANE, NGINX_RAW, 0.9),
            "buffer at a page", found.figure("lane", "8 MiB to a page, CacheClient / nginx"),
        ),
        *_lane_small(found, small),
        _mark(
            "4 KiB from a Region, p50 us", 5, Figure.of(region_us) if region_us else None,
            most=True, why="" if region_us else found.reason("hot-small", REGION),
        ),
    ]  # fmt: skip


def _lane_small(found: Found, place: tuple[str, str, str]) -> list[Mark]:
    """Where the scheduler puts both ends on one core or on two, as it likes, and where it may not:
    a read between two cores takes three times as long, whoever answers.
    """
    what, checking = "TCP lane / nginx, raw client, 4 KiB, p50", hot_small.CHECKING.name
    free = _against(found, f"{what}, placed by chance", place, LANE_RAW, NGINX_RAW, 1, most=True)
    free = _beside(free, found, placed.CHECKING, place, checking, NGINX_RAW)
    marks = [_with(free, "the same places again", found.figure("lane", "4 KiB, lane / nginx"))]
    for where in placed.ONE, placed.EACH:
        ours, ceiling = (
            found.figure("placed", f"{where}, {name} / nginx")
            for name in (placed.LANE, placed.CHECKING)
        )
        why = "" if ours else "placed was not run"
        mark = _mark(f"{what}, {where}", 1, ours, most=True, why=why)
        marks.append(_with(mark, placed.CHECKING, ceiling))
    return marks


def _lane_cpu(found: Found, place: tuple[str, str]) -> Mark:
    """Where the kernel does a transmission decides whose processor time it is: the server's, which
    sends, or the client's, which has made room. Both ends together don't depend on that.
    """
    mark = _against(
        found, "TCP lane / nginx sendfile, raw client, 8 MiB, server CPU-s/GiB",
        (*place, "server CPU-s/GiB"), LANE_RAW, NGINX_RAW, 1.2, most=True,
    )  # fmt: skip
    both = [
        _sums(*(found.values(*place, name, f"{end} CPU-s/GiB") for end in ("server", "client")))
        for name in (LANE_RAW, NGINX_RAW)
    ]
    return _with(mark, "server and client together", _ratio(*both))


def _sums(ours: Values, theirs: Values) -> Values:
    if not ours or not theirs or len(ours) != len(theirs):
        return None
    return [a + b for a, b in zip(ours, theirs, strict=True)]


def _region_against_array(found: Found, place: tuple[str, str, str]) -> Mark:
    what = "Region in place, mapped again / array in place"
    mark = _against(found, what, place, REGION_AGAIN, ARRAY, 0.8)
    return _beside(mark, found, "mapped first", place, REGION_FIRST, ARRAY)


def _region_against_sockets(found: Found) -> list[Mark]:
    """Both the same work: nobody reads what was delivered, or everybody reads it once.

    How often the array's speed is the peer's bounds the second, whatever mapping costs.
    """
    sockets = [one.name for one in SYSTEMS.values() if one.over_socket]
    marks = []
    for case in hot_big.UNREAD, hot_big.ADDED_UP:
        place = ("hot-big", case, "GB/s")
        fastest = _fastest(found, *place[:2], sockets)
        what = f"Region in place, mapped again / {fastest} (fastest over a socket), {case}"
        mark = _against(found, what, place, REGION_AGAIN, fastest, 8)
        mark = _beside(mark, found, "mapped first", place, REGION_FIRST, fastest)
        marks.append(_beside(mark, found, "array in place", place, ARRAY, fastest))
    return marks


def _beside(
    mark: Mark, found: Found, what: str, place: tuple[str, str, str], ours: str, theirs: str
) -> Mark:
    """The mark with another ratio in its remark, as median [lowest-highest]."""
    return _with(mark, what, _against(found, what, place, ours, theirs, 0).found)


def _with(mark: Mark, what: str, figure: Figure | None) -> Mark:
    """The mark with a figure in its remark, as median [lowest-highest], if there is one."""
    if figure is None:
        return mark
    text = f"{what}: {figure.median:.2f} [{figure.lowest:.2f}-{figure.highest:.2f}]"
    return replace(mark, remark="; ".join(filter(None, (mark.remark, text))))


def _gateway(found: Found) -> list[Mark]:
    ratio = found.figure("lane", "8 MiB, gateway / nginx")
    why = "" if ratio else "lane was not run"
    return [_mark("S3 gateway / nginx sendfile, 8 MiB, raw client", 0.8, ratio, why=why)]


def _grpc(found: Found) -> list[Mark]:
    speed = found.values("hot-big", hot_big.case_name(1), GRPC, "GB/s")
    why = "" if speed else found.reason("hot-big", GRPC)
    ratio = found.figure("grpc", "CacheClient / plain")
    return [
        _mark("gRPC Read, 8 MiB, GB/s", 0.6, Figure.of(speed) if speed else None, why=why),
        _with(
            _mark(
                "gRPC Read / plain protobuf messages", 2.5, ratio,
                why="" if ratio else "grpc was not run",
            ),
            "grpcio's client alone, messages passed through",
            found.figure("grpc", "passed through / plain"),
        ),
    ]  # fmt: skip


def _cold(found: Found) -> list[Mark]:
    place = ("cold-fill", cold_fill.RANGES, "GB/s")
    fastest = _fastest(found, *place[:2], [one.name for one in cold_fill.DIRECT])
    whole = ("cold-fill", cold_fill.WHOLE, "GB/s")
    once = found.values("stampede", stampede.CASE, LANE, "GETs per extent")
    fetched = found.values("stampede", stampede.CASE, LANE, "origin bytes / object")
    most = [max(pair) for pair in zip(once or (), fetched or (), strict=True)]
    ranges = _against(
        found, f"cold fill, CacheClient lane / {fastest} (fastest)", place, LANE, fastest, 0.95
    )
    for peer in NGINX_CACHE, cold_fill.RELAY.name, cold_fill.HASHING_RELAY.name:
        ranges = _beside(ranges, found, peer.partition(",")[0], place, peer, fastest)
    return [
        ranges,
        _against(found, f"cold fill in one call, CacheClient lane / {cold_fill.DIRECT_WHOLE.name}",
                 whole, LANE, cold_fill.DIRECT_WHOLE.name, 0.95),
        _value(found, "cold fill, origin bytes / object", "cold-fill", cold_fill.RANGES, LANE,
               "origin bytes / object", 1),
        _mark("stampede, GETs per extent", 1, Figure.of(most) if most else None, most=True,
              why="" if most else found.reason("stampede", LANE)),
    ]  # fmt: skip


def _memory(found: Found) -> list[Mark]:
    lane = f"{LANE_RAW}, {stalled.BESIDE}"
    p99 = ("stalled", stalled.CASE, "p99 us")
    return [
        _value(found, "eight processes, PSS together / weights, Region", "eight-processes",
               safetensors_load.EIGHT, REGION_FIRST, "PSS growth / weights", 1.1),
        _value(found, "1,000 stalled readers, MiB more memory", "stalled", stalled.CASE, lane,
               "server growth MiB", 64),
        _against(found, "p99 beside 1,000 stalled readers / alone", p99, lane,
                 f"{LANE_RAW}, {stalled.ALONE}", 1.2, most=True),
    ]  # fmt: skip


FAMILIES: tuple[Callable[[Found], list[Mark]], ...] = (_hot, _gateway, _grpc, _cold, _memory)


def all_marks(found: Found) -> list[Mark]:
    return [mark for family in FAMILIES for mark in family(found)]
