"""What the commands of an admin have in common: who acts, and how is told what was done."""

import contextlib
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli.progress import Progress
from spoa.cli.settings import FAILURE, USAGE, fail, quoted

if TYPE_CHECKING:
    from spoa.config.model import Config
    from tokens.admin.admin import Admin, Kept

# A Redis has a handful; a thousand is a typing error.
_MAX_REPLICAS = 1000
_MAX_WAIT_MS = 60_000

Replicas = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=_MAX_REPLICAS,
        help="How many replicas must confirm. Without it: one, where there are any.",
    ),
]
WaitMs = Annotated[
    int, typer.Option(min=1, max=_MAX_WAIT_MS, help="Milliseconds to wait for them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WAIT_MS = 1000
"""As long as tokens.admin.admin waits; said here for --help, which does not load redis."""

_SHOWN_LINES = 10
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


@contextlib.contextmanager
def acting(
    settings: "Config", *, replicas: int | None = None, wait_ms: int = WAIT_MS
) -> Iterator["Admin"]:
    """Give an admin at work. What goes wrong is a sentence, and the end."""
    from tokens.admin.admin import Admin  # noqa: PLC0415 - see load_or_exit
    from tokens.admin.fault import speaking_plainly  # noqa: PLC0415
    from tokens.store.client import StoreFault, StoreUnreachable, connect  # noqa: PLC0415

    store, audit = settings.store, settings.audit
    try:
        with (
            Progress(sys.stderr) as progress,
            connect(settings.store_url, store.tls) as client,
            speaking_plainly(settings.store_url),
        ):
            who = Admin(
                client,
                store.prefix,
                by=_os_user(),
                replicas=replicas,
                wait_ms=wait_ms,
                max_audit_entries=audit.max_entries if audit.stream else 0,
                progress=progress,
            )
            if store.fence and not who.is_met():
                warn(
                    f"no agent was ever seen here, there is no {store.prefix}fence: are store.url "
                    "and store.prefix those of the agents?"
                )
            yield who
    except ValueError as error:
        fail(str(error), code=USAGE)
    except StoreFault as error:
        is_away = isinstance(error, StoreUnreachable) and store.is_embedded
        fail(f"{error}; is `kat serve` running?" if is_away else str(error))


def end(kept: "Kept", wait_ms: int) -> None:
    """Say what is missing from a change that was made; FAILURE, if those are replicas."""
    warn_unless_audited(is_audited=kept.is_audited)
    warn_of_silent(kept.silent)
    asked, replicas = kept.confirmed
    if kept.unasked:
        fail(
            f"it is done, but whether replicas have it cannot be told: {kept.unasked}",
            code=FAILURE,
        )
    if not kept.confirmed.is_enough:
        fail(
            f"{replicas} of {asked} replicas confirmed within {wait_ms} ms: it is done, but if the "
            "primary fails now, it may be forgotten; run this once more to ask again",
            code=FAILURE,
        )


def warn_unless_audited(*, is_audited: bool) -> None:
    if not is_audited:
        warn("it is done, but Redis refuses to tell of it in the audit stream")


def warn_of_silent(names: Sequence[str]) -> None:
    for name in names:
        warn(
            f"the primary {name} does not answer: what only it has was not looked at; "
            "run this once more when it is back"
        )


def warn_of_each(sentences: Sequence[str]) -> None:
    """Say so many of them, and how many there are."""
    for sentence in sentences[:_SHOWN_LINES]:
        warn(sentence)
    if len(sentences) > _SHOWN_LINES:
        warn(f"and {len(sentences) - _SHOWN_LINES} more such")


def warn(sentence: str) -> None:
    print(f"kat: warning: {sentence}", file=sys.stderr)


def replicas_line(kept: "Kept") -> str:
    asked, replicas = kept.confirmed
    return f"replicas that confirmed: {replicas} (asked: {asked})"


def kept_fields(kept: "Kept") -> dict[str, object]:
    """Say the same in JSON."""
    asked, replicas = kept.confirmed
    return {
        "replicas": {"asked": asked, "confirmed": replicas},
        "audited": kept.is_audited,
        **({"unasked": kept.unasked} if kept.unasked else {}),
        **({"silent": list(kept.silent)} if kept.silent else {}),
    }


def moment(ms: int) -> str:
    """Write a time for people, who are in many time zones."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return "for ever"  # no writer of ours, but ZADD takes any number


def left(ms: int) -> str:
    """Write how long something still lasts, in its two largest units: 1h 59m."""
    rest = max(ms // 1000, 0)
    parts: list[str] = []
    for unit, size in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def seconds(duration: str) -> int:
    """Read a duration from the command line."""
    from spoa.config.duration import parse_duration  # noqa: PLC0415 - see load_or_exit

    try:
        return parse_duration(duration)
    except ValueError as error:
        fail(f"--for {quoted(duration)}: {error}", code=USAGE)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write rows in columns; an empty field is a -."""
    cells = [[shown(text) or "-" for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def shown(text: str) -> str:
    """Show what another program may have written, so that it cannot move the cursor."""
    return text if text.isprintable() else ascii(text)


def listed(names: Sequence[str]) -> str:
    """Write several as a person would: a, b and c."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _os_user() -> str:
    """Name who runs this: the one who became root by sudo, else as the system says.

    The environment may say anything, so it is believed for a name that the system knows.
    """
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwnam(os.environ["SUDO_USER"]).pw_name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
