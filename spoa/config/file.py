"""Reads the configuration: one TOML file, then the environment, then every mistake at once."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spoa.config.model import Config
from spoa.config.storeurl import without_password

DEFAULT_PATH = Path("/etc/kat/kat.toml")
VARIABLE = "KAT_"
TOP_LEVEL = ("state_dir", "run_dir")

# More than anybody writes; a mistaken path to a disk image is refused, not read.
MAX_FILE_BYTES = 1024 * 1024

Tree = dict[str, object]
Key = tuple[str, ...]


class ConfigError(Exception):
    """The configuration cannot be used. `mistakes` holds one sentence for each reason."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the file (`path`, else $KAT_CONFIG, else the default one) and the environment.

    Raises ConfigError with all mistakes, each with its file or variable, key, value and what is
    allowed.
    """
    file = path or _file_of(environ)
    tree = _read(file) if file else {}
    variables = {_key(name): name for name in environ if _is_ours(name)}
    for key, name in variables.items():
        _put(tree, key, environ[name])
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # Not chained: pydantic's own text may quote a password.
        raise ConfigError(_mistakes(error, tree, file, variables)) from None


def _file_of(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("KAT_CONFIG"):
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def _read(file: Path) -> Tree:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError([f"{file}: has more than {MAX_FILE_BYTES} bytes"])
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{file}: is not UTF-8 (at line {line})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file}: is not TOML: {error}"]) from None


def _is_ours(name: str) -> bool:
    """Tell our variables from those that haproxy.cfg reads: ours name a section, with two `_`."""
    rest = name.removeprefix(VARIABLE)
    return rest != name and ("__" in rest or rest.lower() in TOP_LEVEL)


def _key(variable: str) -> Key:
    return tuple(variable.removeprefix(VARIABLE).lower().split("__"))


def _put(tree: Tree, key: Key, value: str) -> None:
    """Lay one variable over the file. A value where the file needs a section stays its mistake."""
    for part in key[:-1]:
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            return
        tree = branch
    tree[key[-1]] = value


def _mistakes(
    error: ValidationError, tree: Tree, file: Path | None, variables: Mapping[Key, str]
) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        key = tuple(str(part) for part in fault["loc"] if part != "[key]")
        origin = _variable(variables, key) or file
        # Nobody knows what stands under an unknown key: it may be a password.
        is_unknown = fault["type"] == "extra_forbidden"
        value = ".".join(key) if is_unknown else _value(tree, key)
        lines.append(": ".join([*([str(origin)] if origin else []), value, _allowed(fault, key)]))
    return lines


def _variable(variables: Mapping[Key, str], key: Key) -> str | None:
    """Find the variable that set this key, or a key below it or above."""
    return next((name for at, name in variables.items() if _is_within(at, key)), None)


def _is_within(one: Key, other: Key) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))


def _value(tree: Tree, key: Key) -> str:
    """Write `section.key = value`, without secrets."""
    value: object = tree
    for part in key:
        match value:
            case dict():
                value = value.get(part)
            case list() if part.isdigit():
                value = value[int(part)]
            case _:
                break
    name = ".".join(key)
    if value is None or isinstance(value, dict):
        return name or "the configuration"
    shown = without_password(value) if isinstance(value, str) else value
    return f"{name} = {shown!r}"


def _allowed(fault: ErrorDetails, key: Key) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key" + _did_you_mean(key)
    if fault["type"] in {"model_type", "dict_type"}:
        return "must be a section: [name] and lines below it"
    return (
        fault["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "must")
        .replace("String should", "must")
    )


def _did_you_mean(key: Key) -> str:
    """Look among the neighbours of an unknown key first, then for the same name elsewhere."""
    known = [*_known(Config, key)]
    neighbours = [name[-1] for name in known if name[:-1] == key[:-1]]
    close = [(*key[:-1], name) for name in difflib.get_close_matches(key[-1], neighbours, 1)]
    elsewhere = [name for name in known if name[-1] == key[-1]]
    if match := [*close, *elsewhere]:
        return f"; did you mean {'.'.join(match[0])}?"
    return ""


def _known(model: type[BaseModel], key: Key, above: Key = ()) -> Iterator[Key]:
    """List every key there is; in a table of names, below the name that `key` has there."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        below = (*above, name)
        kind = field.annotation
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            below = (*below, key[1] if key[0] == name and len(key) > 1 else "NAME")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _known(kind, key, below)
