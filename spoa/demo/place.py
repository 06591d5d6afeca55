"""Where the demo lives: a place that no real agent uses, and one demo at a time."""

import fcntl
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from spoa.config.endpoint import UnixEndpoint
from spoa.config.file import DEFAULT_PATH, load
from spoa.config.model import Config
from spoa.config.places import NoHome, default_state_dir
from spoa.demo.programs import DemoError
from spoa.listen import is_answered

ACL = "demo"

# Written anew each time: what somebody changes in it is not the demo any more.
# The agent's usual 80 ms are for machines that have nothing else to do: this one runs a browser.
_CONFIGURATION = f"""\
[acl.{ACL}]
mode = "session"

[limits]
deadline_ms = 900
"""
PROCESSING = "1s"
"""How long HAProxy waits for such an agent."""

_OWN_PLACE = "give the demo a place of its own: KAT_STATE_DIR=/some/folder kat demo"


@dataclass(frozen=True, slots=True)
class Place:
    """One folder, for the agent, its store, its socket, and what the demo itself writes."""

    folder: Path
    is_default: bool

    def config(self) -> Config:
        """Say where an agent here has its things. Raises ConfigError."""
        # Before anything is written: its file says nothing of places.
        return load(Path(os.devnull), {"KAT_STATE_DIR": str(self.folder)})

    @property
    def variables(self) -> dict[str, str]:
        """Mean this demo's agent by the environment."""
        return {"KAT_STATE_DIR": str(self.folder), "KAT_CONFIG": str(self.file)}

    @property
    def file(self) -> Path:
        """The agent's configuration."""
        return self.folder / "demo/kat.toml"

    @property
    def kat(self) -> str:
        """Write `kat` so that another terminal, in any folder, means this demo's agent."""
        kat = shlex.quote(str(Path(sys.prefix) / "bin" / "kat"))
        if self.is_default:
            return kat
        # env -i: whatever else is set there may mean a real agent.
        settings = (f"{name}={shlex.quote(text)}" for name, text in self.variables.items())
        return f"env -i {' '.join(settings)} {kat}"


def find_place(environ: Mapping[str, str] = os.environ) -> Place:
    """Choose $KAT_STATE_DIR, else the default folder, else, beside a real agent, one of our own.

    Raises DemoError.
    """
    if chosen := environ.get("KAT_STATE_DIR"):
        return Place(Path(chosen), is_default=False)
    with suppress(NoHome):
        default = default_state_dir()
        if not _is_configured(environ) and not _is_of_real_agent(default):
            return Place(default, is_default=True)
    return Place(_own_folder(), is_default=False)


def _is_configured(environ: Mapping[str, str]) -> bool:
    """Tell whether a real agent is set up here, readable for us or not."""
    return os.path.lexists(DEFAULT_PATH.parent) or any(
        name in {"KAT_CONFIG", "KAT_RUN_DIR"} or (name.startswith("KAT_") and "__" in name)
        for name in environ
    )


def _is_of_real_agent(folder: Path) -> bool:
    return os.path.lexists(folder / "redis") and not os.path.lexists(folder / "demo")


def _own_folder() -> Path:
    """Make a folder that nobody else can have prepared for us."""
    folder = Path(tempfile.gettempdir()) / f"kat-demo-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DemoError(f"{folder} cannot be used: {error.strerror}") from None
    is_private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or not is_private:
        raise DemoError(f"{folder} cannot be used: it is not yours alone; {_OWN_PLACE}")
    return folder


@contextmanager
def occupied(config: Config) -> Iterator[Path]:
    """Keep other demos out for as long as the `with` block lasts. Yields the demo's folder.

    Raises DemoError, and has touched nothing then, when a demo or an agent runs here already.
    """
    folder = config.state_dir / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DemoError(f"{folder} cannot be used: {error.strerror}") from None
    try:
        _take(lock, config.state_dir)
        _refuse_running_agent(config)
        _prepare(folder)
        yield folder
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode(errors="replace")
        raise DemoError(
            f"a demo is running in {folder} already (pid {pid}); end it first, or {_OWN_PLACE}"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _refuse_running_agent(config: Config) -> None:
    for endpoint in config.endpoints:
        if isinstance(endpoint, UnixEndpoint) and is_answered(endpoint.path):
            raise DemoError(
                f"an agent is running at {endpoint} already (`ss -xlp src {endpoint.path}` names "
                f"it); stop it first, or {_OWN_PLACE}"
            )


def _prepare(folder: Path) -> None:
    """Write the configuration, and remove last time's logs: what is quoted is of this time."""
    try:
        for log in folder.glob("*.log"):
            log.unlink()
        (folder / "kat.toml").write_text(_CONFIGURATION)
    except OSError as error:
        raise DemoError(f"{folder} cannot be used: {error.strerror}") from None
