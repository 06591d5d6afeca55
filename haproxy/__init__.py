"""What HAProxy reads: its configuration, the SPOE engine and the error pages."""

from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).parent
"""The folder that HAProxy is to know as KAT_FILES."""

CONFIGURATION: Final = FILES / "haproxy.cfg"
