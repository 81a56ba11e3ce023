"""The plot of docs/benchmarks.md: panels of horizontal bars with their range, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.harness import Figure

_WIDTH, _LABEL, _BAR, _ROW, _HEAD = 860, 250, 500, 20, 44
_OURS, _OTHERS, _CEILING = "#1f6f8b", "#b8b8b8", "#e0c285"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: its title, and a bar for each system."""

    title: str
    bars: Sequence[tuple[str, Figure]]


def svg(panels: Sequence[Panel], ceilings: Sequence[str]) -> str:
    """All panels, one below the other."""
    parts: list[str] = []
    top = 0
    for panel in panels:
        parts += _panel(panel, ceilings, top)
        top += _HEAD + _ROW * len(panel.bars) + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" '
        f'height="{top}" font-family="sans-serif" font-size="12">'
    )
    frame = f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head, frame, *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, ceilings: Sequence[str], top: int) -> list[str]:
    most = max((figure.highest for _, figure in panel.bars), default=1) or 1
    parts = [
        f'<text x="10" y="{top + 26}" font-size="15" font-weight="bold">'
        f"{escape(panel.title)}</text>"
    ]
    for number, (name, figure) in enumerate(panel.bars):
        y = top + _HEAD + number * _ROW
        middle = y + _ROW / 2 - 2
        colour = _CEILING if name in ceilings else _OURS if "cachesvc" in name else _OTHERS
        low, median, high = (
            _LABEL + _BAR * value / most for value in (figure.lowest, figure.median, figure.highest)
        )
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{median - _LABEL:.1f}" height="{_ROW - 5}" '
            f'fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="black"/>',
            f'<text x="{high + 6:.1f}" y="{y + 12}">{figure.median:.3g}</text>',
        ]
    return parts
