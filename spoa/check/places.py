"""Judges directories: whether `kat serve` can use or make them, and whom they let through."""

import grp
import os
import stat
from pathlib import Path


def fault_of(directory: Path) -> str | None:
    """Say why `kat serve` could neither write to this directory nor make it.

    It is not made here: it would belong to whoever checks.
    """
    if os.path.lexists(directory):
        return None if _is_usable(directory) else f"{directory} is no directory we can write to"
    above = next(parent for parent in directory.parents if os.path.lexists(parent))
    return None if _is_usable(above) else f"{directory} cannot be made: {above} is not writable"


def _is_usable(directory: Path) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)  # noqa: PTH112 - Path.is_dir raises


def closed_to(group: str, path: str) -> Path | None:
    """Name the first directory above `path` that this group may not pass, of those that exist."""
    gid = grp.getgrnam(group).gr_gid
    for directory in reversed(Path(os.path.realpath(path)).parents):
        try:
            found = directory.stat()
        except OSError:
            return None  # whoever binds there says why
        passes = stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & passes:
            return directory
    return None


def is_open_to_all(file: Path) -> bool:
    """Tell whether every user of this machine may read this file. Raises OSError."""
    return bool(file.stat().st_mode & stat.S_IROTH)
