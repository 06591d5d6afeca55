"""The Lua scripts that stand beside this module."""

from hashlib import sha1
from importlib.resources import files


def load_script(name: str) -> tuple[bytes, bytes]:
    """Return a script, and its SHA-1: by that EVALSHA calls it."""
    text = files(__package__).joinpath(name).read_bytes()
    return text, sha1(text, usedforsecurity=False).hexdigest().encode()
