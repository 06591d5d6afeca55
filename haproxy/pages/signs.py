"""The sign of each page: lines in a square of 24, drawn in the accent colour."""

from collections.abc import Mapping
from typing import Final

SIGNS: Final[Mapping[str, str]] = {
    # A key.
    "403-missing": '<circle cx="8" cy="15.5" r="4"/><path d="M11 12.5 19.5 4M15.5 8l3 3"/>',
    # Out of the door.
    "401": '<path d="M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M16 8l4 4-4 4M20 12H10"/>',
    # A padlock.
    "403": '<rect x="5" y="10.5" width="14" height="9.5" rx="2"/>'
    '<path d="M8 10.5V8a4 4 0 0 1 8 0v2.5M12 14.5V16"/>',
    # A clock.
    "429": '<circle cx="12" cy="12" r="8.5"/><path d="M12 7v5l3 2"/>',
    # An hourglass.
    "503": '<path d="M6.5 3.5h11M6.5 20.5h11M8 3.5V7c0 2.5 4 3 4 5s-4 2.5-4 5v3.5'
    'M16 3.5V7c0 2.5-4 3-4 5s4 2.5 4 5v3.5"/>',
    # Through the door.
    "confirm": '<path d="M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M10 8l4 4-4 4M14 12H4"/>',
    # Done.
    "logout": '<path d="M5 12.5 10 17.5 19.5 7.5"/>',
}
