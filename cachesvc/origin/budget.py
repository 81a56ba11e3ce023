"""How many retries an origin may cost: a token bucket that requests fill and retries empty.

Rules: pure; the clock is passed in, in milliseconds, and may never run backwards for long (a step
back earns nothing). Every first request earns `share` of a retry, every second `per_second`
retries, up to `most`; a retry costs one.

Story: when an origin is down, every request wants to be repeated, and the repeats are what keeps it
down. With a budget the load of retries is at most `share` of the requests plus a trickle, however
many callers there are. The size of the bucket follows the standard retry mode of the AWS SDKs (500
tokens, 5 a retry: one hundred retries).
"""

from __future__ import annotations


class RetryBudget:
    """Retries that one origin may still spend. Not thread-safe: it belongs to the event loop."""

    __slots__ = ("_last_ms", "_tokens", "most", "per_second", "share")

    def __init__(
        self, share: float = 0.1, per_second: float = 10.0, most: float = 100.0, now_ms: float = 0.0
    ) -> None:
        if share < 0 or per_second < 0 or most < 1:
            raise ValueError(
                f"retry budget of share {share}, {per_second} a second, at most {most}:"
                " share and per_second may not be negative, most must be 1 or more"
            )
        self.share = share
        self.per_second = per_second
        self.most = most
        self._tokens = most
        self._last_ms = now_ms

    def request(self, now_ms: float) -> None:
        """A request goes out for the first time: it earns its share."""
        self._earn(now_ms, self.share)

    def take(self, now_ms: float) -> bool:
        """Whether one retry may go out now; if so, it is paid."""
        self._earn(now_ms, 0.0)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _earn(self, now_ms: float, share: float) -> None:
        elapsed_ms = max(0.0, now_ms - self._last_ms)
        self._last_ms = max(self._last_ms, now_ms)
        earned = share + elapsed_ms * self.per_second / 1000.0
        self._tokens = min(self.most, self._tokens + earned)


def backoff_ms(failures: int, base_ms: float, cap_ms: float, jitter: float) -> float:
    """Full jitter: anywhere between nothing and an exponentially growing bound.

    failures: how many attempts failed in a row, 1 or more. jitter: uniform in [0, 1).
    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
    """
    bound_ms: float = base_ms * 2.0 ** min(failures - 1, 32)
    return jitter * min(cap_ms, bound_ms)
