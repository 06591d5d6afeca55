"""What all sections of the configuration have in common."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Immutable, and strict: an unknown key is a mistake, and no refusal quotes a value."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


def absolute(path: Path) -> Path:
    """Refuse a path that depends on where `kat` was called. Raises ValueError with a sentence."""
    if not path.is_absolute() or not str(path).isprintable():
        raise ValueError("must be an absolute path")
    return path
