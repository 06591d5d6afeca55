"""Where files are when nobody says so: the system's directories for root, else the user's own."""

import os
from pathlib import Path


class NoHome(Exception):
    """This user has no home directory, and nobody says where else. The message is a sentence."""


def default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/kat")
    return (_named("XDG_STATE_HOME") or _home() / ".local/state") / "kat"


def default_run_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/run/kat")
    base = _named("XDG_RUNTIME_DIR")
    return base / "kat" if base else default_state_dir() / "run"


def _named(variable: str) -> Path | None:
    """Read a directory. The XDG specification: a relative path is invalid and to be ignored."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else None


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise NoHome("state_dir: this user has no home directory: set state_dir or KAT_STATE_DIR")
    return home
