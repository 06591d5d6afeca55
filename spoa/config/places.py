"""Where files are when nobody says so: the system's directories for root, else the user's own."""

import os
from pathlib import Path


def default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/kat")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "kat"


def default_run_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/run/kat")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "kat" if base else default_state_dir() / "run"
