"""Reads the configuration: one TOML file, then the environment, then every mistake at once."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from spoa.config.model import Config
from spoa.config.places import NoHome
from spoa.config.storeurl import HIDDEN, without_password

DEFAULT_PATH = Path("/etc/kat/kat.toml")
VARIABLE = "KAT_"

# haproxy.cfg's own, though they are named like a section of ours.
OF_HAPROXY = ("KAT_ACL", "KAT_LOG")

# More than anybody writes; a mistaken path to a disk image is refused, not read.
MAX_FILE_BYTES = 1024 * 1024

# What of [store] is shown as it is when it is wrong.
_PLAIN = {("store", "prefix"), ("store", "fence"), ("store", "clock_skew_ms")}

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
    file = file_of(path, environ)
    tree = _read(file) if file else {}
    names = [name for name in environ if _is_ours(name)]
    unknown = [name for name in names if _key(name) not in _settings(_key(name))]
    variables = {_key(name): name for name in names if name not in unknown}
    for key, name in variables.items():
        _put(tree, key, _typed(key, environ[name]))
    mistakes = [f"{name}: unknown variable{_other_variable(name)}" for name in unknown]
    try:
        config = Config.model_validate(tree)
    except NoHome as error:
        mistakes.append(str(error))
    except ValidationError as error:
        mistakes += _mistakes(error, tree, file, variables)
    if mistakes:
        # Not chained: pydantic's own text may quote a password.
        raise ConfigError(mistakes) from None
    return config


def url_in(file: Path) -> str:
    """Return the store's URL as this file has it, whatever overrides it. Raises ConfigError."""
    match _read(file):
        case {"store": {"url": str(url)}}:
            return url
    return ""


def file_of(path: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Say which file is read; None, if nobody names one and the default one is not there."""
    if path:
        return path
    if named := environ.get("KAT_CONFIG"):
        return Path(named)
    try:
        DEFAULT_PATH.stat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # something is there: reading it will say what is wrong
    return DEFAULT_PATH


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
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5000 digits is a ValueError of int().
        raise ConfigError([f"{file}: is not TOML: {error}"]) from None


def _is_ours(name: str) -> bool:
    """Tell our variables, and what was meant to be one, from those that haproxy.cfg reads."""
    rest = name.removeprefix(VARIABLE).lower()
    if not name.startswith(VARIABLE) or name in OF_HAPROXY:
        return False
    fields = Config.model_fields
    return "__" in rest or rest in fields or rest.partition("_")[0] in fields


def _key(variable: str) -> Key:
    return tuple(variable.removeprefix(VARIABLE).lower().split("__"))


def _typed(key: Key, text: str) -> object:
    """Read a number or a boolean: the environment knows only text, and the file's types hold."""
    kind = _settings(key)[key]
    if kind not in {bool, int, float}:
        return text
    try:
        return TypeAdapter[object](kind).validate_python(text)
    except ValidationError:
        return text  # the model refuses it, with its own words


def _put(tree: Tree, key: Key, value: object) -> None:
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
    for fault in error.errors(include_url=False):
        where = fault["loc"] or (fault.get("ctx", {}).get("key", ""),)
        key = tuple(str(part) for part in where if part != "[key]")
        origin = _variable(variables, key) or file
        # Nobody knows what stands under an unknown key: it may be a password.
        is_about_key = fault["type"] == "extra_forbidden" or "[key]" in fault["loc"]
        value = _name(key) if is_about_key else _value(tree, key)
        lines.append(": ".join([*([str(origin)] if origin else []), value, _allowed(fault, key)]))
    return lines


def _name(key: Key) -> str:
    """Write a key. One that looks like none may be a value in the wrong place."""
    parts = (part if _is_plain(part) or key[0] == "acl" else HIDDEN for part in key)
    return ".".join(parts)


def _is_plain(part: str) -> bool:
    return part.isdigit() or part.replace("-", "_").isidentifier()


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
    return " = ".join([_name(key), *_shown(key, value)])


def _shown(key: Key, value: object) -> list[str]:
    """Show a value, but no container, and no text in `store` that may be a password."""
    match value:
        case None:
            return []
        case dict():
            return ["a section"]
        case list():
            return ["a list"]
        case _:
            if key[-1].endswith("_file") and str(value).startswith("/"):
                return [repr(value)]
            is_plain = key in _PLAIN or key[0] != "store"
            return [
                repr(value) if is_plain and "://" not in str(value) else without_password(value)
            ]


def _allowed(fault: ErrorDetails, key: Key) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key" + _did_you_mean(key)
    if fault["type"] == "tuple_type":
        return "must be a text, or a list of texts"
    if fault["type"] == "path_type":
        return "must be an absolute path"
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
    known = list(_known(Config, key))
    neighbours = [name[-1] for name in known if name[:-1] == key[:-1]]
    close = [(*key[:-1], name) for name in difflib.get_close_matches(key[-1], neighbours, 1)]
    elsewhere = [name for name in known if name[-1] == key[-1]]
    if match := [*close, *elsewhere]:
        return f"; did you mean {'.'.join(match[0])}?"
    return ""


def _other_variable(name: str) -> str:
    known = [VARIABLE + "__".join(key).upper() for key in _settings(_key(name))]
    close = difflib.get_close_matches(name.upper(), known, 1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _settings(key: Key) -> dict[Key, object]:
    """List what a variable can set, with its type: what is no section."""
    known = _known(Config, key)
    sections = {at[:-1] for at in known} | {("acl",), ("allowlist",)}
    return {at: kind for at, kind in known.items() if at not in sections}


def _known(model: type[BaseModel], key: Key, above: Key = ()) -> dict[Key, object]:
    """List every key there is; in a table of names, below the name that `key` has there."""
    known: dict[Key, object] = {}
    for name, field in model.model_fields.items():
        below = (*above, name)
        kind = field.annotation
        known[below] = kind
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            below = (*below, key[1] if key[0] == name and len(key) > 1 else "NAME")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            known |= _known(kind, key, below)
    return known
