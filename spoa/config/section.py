"""What all sections of the configuration have in common."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


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


def readable(path: Path) -> Path:
    """Refuse a file that cannot be read. Raises ValueError with a sentence."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


def items(value: object) -> object:
    """Take a text with commas for a list: the environment knows no lists."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def paired(key: Path | None, info: ValidationInfo) -> Path | None:
    """Refuse a certificate without its key, and the other way round, of `cert_file` before."""
    if "cert_file" in info.data and (key is None) is not (info.data["cert_file"] is None):
        raise ValueError("belongs to cert_file: set both of them, or none")
    return key


PemFile = Annotated[Path, AfterValidator(absolute), AfterValidator(readable)] | None
