"""Charts as SVG text, in the page's own colours: horizontal bars, stacked bars, lines. Nothing but Python's own library."""

import math
from html import escape

palette = {
    "ours, topology": "#7fc4d6",
    "OpenCV, ": "#f0bd8a",
    "SciPy and": "#c9ad85",
    "ours, 1 thread": "#8db9e3",
    "ours": "#1f6fb5",
    "GPU": "#2a9d6b",
    "OpenCV": "#dd8a3c",
    "ITK": "#9a6cb0",
    "scikit-image": "#cf5b5f",
    "SciPy": "#a07c52",
    "FFTW": "#8a8f98",
}
others = [
    "#1f6fb5",
    "#dd8a3c",
    "#2a9d6b",
    "#cf5b5f",
    "#9a6cb0",
    "#a07c52",
    "#4fb3bf",
    "#c2a83e",
    "#e58bb4",
    "#6b7280",
    "#7fb069",
    "#3f4e8c",
]


def colour(series, index=0):
    for name, value in palette.items():
        if series.startswith(name):
            return value
    return others[index % len(others)]


def number(value):
    """Three figures, no exponent."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 4)}f}"


def nice_steps(largest, count=5):
    """Round numbers from 0 to beyond `largest`."""
    rough = largest / count if largest > 0 else 1
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough * 0.999)
    return [i * step for i in range(int(math.ceil(largest / step - 1e-9)) + 1)]


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(str(words))}</text>'


def legend(names, x, y, width):
    parts, at = [], x
    for i, name in enumerate(names):
        length = 32 + 6.7 * len(name)
        if at + length > width and at > x:
            at, y = x, y + 18
        parts.append(
            f'<rect x="{at:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2" fill="{colour(name, i)}"/>' + text(at + 15, y, name, "small")
        )
        at += length
    return "".join(parts), y + 16


def svg(width, height, parts, title):
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>" + "".join(parts) + "</svg>"
    )


def bars(title, groups, unit, log=False, mark=None, width=920):
    """`groups`: [(label, [(series, value), ...]), ...]. `mark`: (value, words): a line across all."""
    groups = [(label, [(s, v) for s, v in values if v is not None and v > 0]) for label, values in groups]
    groups = [(label, values) for label, values in groups if values]
    if not groups:
        return ""
    series = list(dict.fromkeys(s for _, values in groups for s, _ in values))
    left, right, thick, gap = 230, 70, 13, 12
    largest = max(v for _, values in groups for _, v in values)
    least = min(v for _, values in groups for _, v in values)
    key, top = legend(series, left, 14, width)
    if all(len(values) == 1 for _, values in groups):
        key, top = "", 4
    parts, top = [key], top + 6
    length = width - left - right
    if log:
        low, high = math.floor(math.log10(least) - 0.05), math.ceil(math.log10(largest) + 0.02)
        ticks = [10**e for e in range(low, high + 1)]
        place = lambda v: left + length * (math.log10(v) - low) / max(1, high - low)
    else:
        ticks = nice_steps(largest)
        place = lambda v: left + length * v / ticks[-1]
    bottom = top + sum(len(values) * (thick + 2) + gap for _, values in groups)
    for tick in ticks:
        parts.append(f'<line x1="{place(tick):.1f}" y1="{top - 4:.1f}" x2="{place(tick):.1f}" y2="{bottom:.1f}" class="grid"/>')
        parts.append(text(place(tick), bottom + 14, f"{tick:g}", "tick", "middle"))
    parts.append(text(left + length, bottom + 30, unit + (", logarithmic" if log else ""), "tick", "end"))
    y = top
    for label, values in groups:
        parts.append(text(left - 10, y + len(values) * (thick + 2) / 2 + 4, label, "label", "end"))
        for name, value in values:
            end = place(value)
            parts.append(
                f'<rect x="{left}" y="{y:.1f}" width="{max(1.5, end - left):.1f}" height="{thick}" rx="2" '
                f'fill="{colour(name, series.index(name))}"><title>{escape(f"{label}, {name}: {number(value)} {unit}")}</title></rect>'
            )
            parts.append(text(end + 5, y + thick - 2.5, number(value), "value"))
            y += thick + 2
        y += gap
    if mark and ticks[0] <= mark[0] <= ticks[-1]:
        at = place(mark[0])
        parts.append(
            f'<line x1="{at:.1f}" y1="{top - 4:.1f}" x2="{at:.1f}" y2="{bottom:.1f}" class="mark"/>'
            + text(at + 4, bottom - 2, mark[1], "small")
        )
    return svg(width, bottom + 38, parts, title)


def stacked(title, rows, unit, width=920):
    """`rows`: [(label, [(part, value), ...]), ...]: one bar each, its parts one after another."""
    rows = [(label, values) for label, values in rows if values]
    if not rows:
        return ""
    names = sorted({name for _, values in rows for name, _ in values}, key=lambda n: -max(dict(v).get(n, 0) for _, v in rows))
    left, right, thick, gap = 230, 70, 26, 12
    ticks = nice_steps(max(sum(v for _, v in values) for _, values in rows))
    length = width - left - right
    key, top = legend(names, left, 14, width)
    parts, top = [key], top + 6
    bottom = top + len(rows) * (thick + gap)
    for tick in ticks:
        x = left + length * tick / ticks[-1]
        parts.append(
            f'<line x1="{x:.1f}" y1="{top - 4:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" class="grid"/>'
            + text(x, bottom + 14, f"{tick:g}", "tick", "middle")
        )
    parts.append(text(left + length, bottom + 30, unit, "tick", "end"))
    for i, (label, values) in enumerate(rows):
        y, x = top + i * (thick + gap), left
        parts.append(text(left - 10, y + thick / 2 + 4, label, "label", "end"))
        for name in names:
            value = dict(values).get(name, 0)
            part = length * value / ticks[-1]
            if part > 0:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{part:.1f}" height="{thick}" fill="{colour(name, names.index(name))}">'
                    f"<title>{escape(f'{label}, {name}: {number(value)} {unit}')}</title></rect>"
                )
                if part > 34:
                    parts.append(text(x + part / 2, y + thick / 2 + 4, number(value), "inside", "middle"))
            x += part
        parts.append(text(x + 6, y + thick / 2 + 4, number(sum(v for _, v in values)), "value"))
    return svg(width, bottom + 38, parts, title)


def lines(title, series, x_name, y_name, log_x=True, from_zero=True, ideal=None, dots=True, marks=(), width=920, height=300):
    """`series`: {name: [(x, y), ...]}. `ideal`: the same for a dashed line. `marks`: [(y, words)]: lines across."""
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    everything = [p for points in series.values() for p in points] + list(ideal or [])
    xs, ys = [x for x, _ in everything], [y for _, y in everything] + [y for y, _ in marks]
    left, right = 62, 20
    parts, top = legend(list(series), left, 14, width)
    parts, top = [parts], top + 8
    bottom, length = top + height, width - left - right
    ticks = nice_steps(max(ys), 6)
    low, high = min(xs), max(xs)
    scale = (lambda v: math.log2(v)) if log_x else (lambda v: v)
    x_of = lambda v: left + length * ((scale(v) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5)
    y_of = lambda v: bottom - height * v / ticks[-1]
    for tick in ticks:
        parts.append(
            f'<line x1="{left}" y1="{y_of(tick):.1f}" x2="{width - right}" y2="{y_of(tick):.1f}" class="grid"/>'
            + text(left - 8, y_of(tick) + 4, f"{tick:g}", "tick", "end")
        )
    for x in sorted(set(xs)) if len(set(xs)) < 12 else nice_steps(high, 8)[:-1]:
        parts.append(text(x_of(max(x, low)), bottom + 16, f"{x:g}", "tick", "middle"))
    parts.append(text(width - right, bottom + 33, x_name, "tick", "end") + text(left - 50, top - 12, y_name, "tick"))
    for y, words in marks:
        parts.append(
            f'<line x1="{left}" y1="{y_of(y):.1f}" x2="{width - right}" y2="{y_of(y):.1f}" class="mark"/>'
            + text(width - right - 4, y_of(y) - 5, words, "small", "end")
        )
    if ideal:
        parts.append('<polyline class="ideal" points="' + " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in ideal) + '"/>')
    for i, (name, points) in enumerate(series.items()):
        stroke = colour(name, i)
        parts.append(
            f'<polyline fill="none" stroke="{stroke}" stroke-width="{2.2 if dots else 1.1}" points="'
            + " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
            + '"/>'
        )
        for x, y in points if dots else []:
            parts.append(
                f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.6" fill="{stroke}">'
                f'<title>{escape(f"{name}, {x:g}: {number(y)}")}</title></circle>'
            )
    return svg(width, bottom + 42, parts, title)
