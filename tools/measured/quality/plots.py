"""A plain line plot, drawn with PIL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (760, 420)
LEFT, TOP, RIGHT, BOTTOM = 64, 40, 210, 48
# Okabe and Ito's colours, which people with colour blindness can tell apart.
LINES = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7")
GRID, INK = "#dddddd", "#333333"
SCALE = 2


def line_plot(title: str, across: str, up: str, lines: Mapping[str, Sequence[float]]) -> Image.Image:
    """Values at 1, 2, 3, … of each line. across, up: what the axes show."""
    width, height = (SCALE * side for side in SIZE)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font, small = (ImageFont.load_default(SCALE * points) for points in (15, 12))
    count = max(map(len, lines.values()))
    ticks = nice_ticks(min(map(min, lines.values())), max(map(max, lines.values())))

    def place(n: float, value: float) -> tuple[float, float]:
        x = LEFT + (n / max(1, count - 1)) * (SIZE[0] - LEFT - RIGHT)
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return SCALE * x, SCALE * (SIZE[1] - BOTTOM - share * (SIZE[1] - TOP - BOTTOM))

    for tick in ticks:
        draw.line([place(0, tick), place(count - 1, tick)], GRID, SCALE)
        x, y = place(0, tick)
        draw.text((x - 8 * SCALE, y), f"{tick:g}", INK, small, "rm")
    for n in range(0, count, 1 + count // 16):
        x, y = place(n, ticks[0])
        draw.text((x, y + 8 * SCALE), str(n + 1), INK, small, "mt")
    for number, (name, values) in enumerate(lines.items()):
        colour = LINES[number % len(LINES)]
        points = [place(n, value) for n, value in enumerate(values)]
        draw.line(points, colour, 3 * SCALE, joint="curve")
        for x, y in points:
            draw.ellipse([x - 4 * SCALE, y - 4 * SCALE, x + 4 * SCALE, y + 4 * SCALE], colour)
        x, y = SCALE * (SIZE[0] - RIGHT + 24), SCALE * (TOP + 10 + 24 * number)
        draw.line([x, y, x + 24 * SCALE, y], colour, 3 * SCALE)
        draw.text((x + 32 * SCALE, y), name, INK, small, "lm")
    draw.text((SCALE * LEFT, SCALE * 12), f"{title}; {up}", INK, font)
    draw.text((SCALE * (SIZE[0] + LEFT - RIGHT) / 2, height - 8 * SCALE), across, INK, small, "mb")
    return image


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values, evenly spaced, from below `low` to above `high`."""
    rough = max(high - low, 1e-6) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]
