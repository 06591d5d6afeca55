"""SVG as text: elements, their style in light and dark, and how wide a text will be.

A picture carries its style, and no script, font or link, so that it looks the same in a page, in a
file of its own and on a code host.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 640
MARGIN: Final = 24

TITLE_PX: Final = 16
TEXT_PX: Final = 12
BOLD_PX: Final = 13
"""So wide is bold text: as if it were larger."""

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# About Helvetica, and generous: a reader's font may be wider, DejaVu Sans is.
_NARROW: Final = dict.fromkeys(" .,:;'|!ijlt()[]/-", 0.38)
_WIDE: Final = dict.fromkeys("mwMW@%", 0.95)
_EM: Final = _NARROW | _WIDE
_CAPITAL: Final = 0.72
_OTHER: Final = 0.63
_SQUARE: Final = 1.0

_COLOURS: Final = """\
.kat{font:12px "Helvetica Neue",Helvetica,Arial,"Liberation Sans",system-ui,sans-serif;\
font-variant-numeric:tabular-nums}
.kat .paper{fill:#fff}.kat .ink{fill:#1c2430}.kat .soft{fill:#5b6675}.kat .title{fill:#1c2430;\
font-size:16px;font-weight:600}
.kat .strong{font-weight:600}
.kat .ours{fill:#1f6fb2}.kat .other{fill:#b7c0cc}
.kat .grid{stroke:#e7eaef}.kat .axis{stroke:#b7c0cc}.kat .range{stroke:#1c2430;stroke-opacity:.55}
.kat .cut{stroke:#fff;stroke-width:3}
.kat .line{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}
.kat .lead{fill:none;stroke:#b7c0cc}
.kat .our-line{stroke:#1f6fb2}.kat .other-line{stroke:#7d8897}
.kat .dot{stroke:#fff;stroke-width:1.5}.kat .other-dot{fill:#7d8897}
@media (prefers-color-scheme:dark){
.kat .paper{fill:#161b22}.kat .ink,.kat .title{fill:#e4e8ee}.kat .soft{fill:#9aa5b4}
.kat .ours{fill:#5aa9e6}.kat .other{fill:#495464}
.kat .grid{stroke:#262d37}.kat .axis{stroke:#495464}.kat .range{stroke:#e4e8ee}
.kat .lead{stroke:#495464}.kat .cut,.kat .dot{stroke:#161b22}
.kat .our-line{stroke:#5aa9e6}.kat .other-line{stroke:#8793a3}.kat .other-dot{fill:#8793a3}
}"""


@dataclass(frozen=True, slots=True)
class Caption:
    """What a picture is called, what its numbers are, and the same picture in words."""

    name: str
    """Of its file; unique in a page."""
    title: str
    unit: str


def document(caption: Caption, words: str, height: float, elements: Iterable[str]) -> str:
    """Frame a picture: paper, title, unit, and for those who cannot see it the same in words."""
    title, about = f"{caption.name}-title", f"{caption.name}-about"
    shown = fitted(caption.title, WIDTH - 2 * MARGIN, TITLE_PX)
    size = f'width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    named = f'role="img" aria-labelledby="{escaped(title)} {escaped(about)}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="kat" {size} {named}>',
            f'<title id="{escaped(title)}">{escaped(caption.title)}</title>',
            f'<desc id="{escaped(about)}">{escaped(words)}</desc>',
            f"<style>{_COLOURS}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height:g}" rx="8"/>',
            text(MARGIN, 34, shown, "title"),
            text(MARGIN, 54, fitted(caption.unit, WIDTH - 2 * MARGIN), "soft"),
            *elements,
            "</svg>",
        ]
    )


def text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escaped(content)}</text>"
    )


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def block(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Fill a rectangle; a pixel of it is seen however little it is."""
    size = f'width="{max(width, 1):.1f}" height="{height:g}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size} rx="2"/>'


def path(places: Iterable[tuple[float, float]], kind: str) -> str:
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="{kind}" d="M{way}"/>'


def circle(place: tuple[float, float], kind: str, said: str) -> str:
    x, y = place
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">{tip(said)}</circle>'


def tip(content: str) -> str:
    """Show these words when somebody points at the element that this stands in."""
    return f"<title>{escaped(content)}</title>"


def width_of(content: str, px: float = TEXT_PX) -> float:
    """Estimate how wide a text will be, rather too wide."""
    return px * sum(
        _EM.get(c, _CAPITAL if c.isupper() or not c.isascii() else _OTHER) for c in content
    )


def fitted(content: str, width: float, px: float = TEXT_PX) -> str:
    """Shorten a text in its middle until it is no wider."""
    kept = len(content)
    shown = content
    while width_of(shown, px) > width and kept > 2:
        kept -= 1
        shown = content[: (kept + 1) // 2].rstrip() + "..." + content[-(kept // 2) :].lstrip()
    return shown


def escaped(content: str) -> str:
    """Write any text so that XML can hold it, in an element and in quotes."""
    return escape(_NOT_XML.sub("?", content), quote=True)
