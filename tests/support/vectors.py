"""What real HAProxy said, recorded by `record_vectors`."""

from dataclasses import dataclass
from pathlib import Path

from spoa.dissect.transcript import AGENT, HAPROXY, Segment, read_transcript

DIRECTORY = Path(__file__).parent.parent / "spop" / "vectors"
VERSIONS = ("2.6", "3.0", "3.2")


@dataclass(frozen=True)
class Vector:
    """One connection, as the agent's side of the wire saw it."""

    path: Path

    @property
    def segments(self) -> list[Segment]:
        with self.path.open("rb") as capture:
            return list(read_transcript(capture))

    @property
    def from_haproxy(self) -> bytes:
        return b"".join(part.data for part in self.segments if part.direction == HAPROXY)

    @property
    def frames(self) -> list[bytes]:
        """Every frame of both sides, HAProxy's first."""
        return [
            frame
            for direction in (HAPROXY, AGENT)
            for frame in _split(
                b"".join(part.data for part in self.segments if part.direction == direction)
            )
        ]

    @property
    def closings(self) -> list[tuple[str, str]]:
        return [(part.direction, part.closing) for part in self.segments if part.closing]

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def vector(version: str, name: str) -> Vector:
    return Vector(DIRECTORY / version / f"{name}.txt")


def all_vectors() -> list[Vector]:
    return [Vector(path) for path in sorted(DIRECTORY.glob("*/*.txt"))]


def _split(data: bytes) -> list[bytes]:
    frames = []
    while data:
        size = 4 + int.from_bytes(data[:4])
        frames.append(data[:size])
        data = data[size:]
    return frames
