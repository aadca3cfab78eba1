"""The contests as bars, in SVG: of those at several numbers of connections the one at 16."""

from html import escape

from contests import MOORAGE, SUBJECTS
from report import median

WIDTH, LABELS, BAR, GAP = 1000, 330, 16, 26
OWN, OTHERS = "#0b7285", "#adb5bd"


def svg(contests, caption):
    """One group of bars for each contest, each group on a scale of its own."""
    parts, y = [], 48
    for contest in (one for one in contests if one.connections == 16 or one.unit == "MB/s"):
        title = f"{contest.work}, {contest.unit}, {contest.connections} connections"
        parts.append(_text(8, y, title.replace(", 1 connections", ""), "bold"))
        y += 8
        values = {who: median(cell) for who, cell in contest.cells.items()}
        for who in sorted(values, key=SUBJECTS.index):
            parts += _bar(y, who, values[who], max(values.values()))
            y += BAR + 3
        y += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    )
    return "\n".join([head, _text(8, 20, caption), *parts, "</svg>\n"])


def _bar(y, who, value, most):
    length = (WIDTH - LABELS - 80) * value / most
    weight = "bold" if who == MOORAGE else "normal"
    return [
        _text(8, y + 12, who, weight),
        f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{OWN if who == MOORAGE else OTHERS}"/>',
        _text(LABELS + length + 6, y + 12, f"{value:,.0f}", weight),
    ]


def _text(x, y, text, weight="normal"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(text)}</text>'
