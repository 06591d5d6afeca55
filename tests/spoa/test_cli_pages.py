"""`kat pages`, as typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from haproxy.pages import SHIPPED, read, render

DEADLINE_S = 30
_MAIN = "from spoa.cli import main; main()"


def kat(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _MAIN, "pages", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in folder.iterdir()}


def test_without_texts_the_shipped_pages_are_written(tmp_path: Path) -> None:
    """The folder is made, every file is in it, and nothing that was needed on the way."""
    done = kat(tmp_path / "errors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "11 files" in done.stdout
    assert "reload HAProxy" in done.stdout
    assert content(tmp_path / "errors") == render(read())


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Pages of ours are replaced, whatever they were; a file of another name is not touched."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    folder = tmp_path / "errors"
    folder.mkdir()
    (folder / "400.http").write_text("theirs")
    (folder / "401.html").symlink_to(elsewhere)
    assert kat(folder).returncode == 0
    assert content(folder) == {**render(read()), "400.http": "theirs"}
    assert elsewhere.read_text() == "theirs"


def test_haproxy_may_read_what_root_wrote(tmp_path: Path) -> None:
    """The files have the mode that the umask gives to any new file."""
    assert kat(tmp_path).returncode == 0
    (tmp_path / "new").touch()
    assert {file.stat().st_mode for file in tmp_path.iterdir()} == {
        (tmp_path / "new").stat().st_mode
    }


def test_texts_of_ones_own(tmp_path: Path) -> None:
    """A file with one text, in any script, changes that text and no other."""
    texts = tmp_path / "texts.toml"
    texts.write_text('[page.401]\ntitle = "\u041f\u0440\u0438\u0432\u0435\u0442, 100%"', "utf-8")
    assert kat(tmp_path / "errors", "--texts", texts).returncode == 0
    assert content(tmp_path / "errors") == render(read(texts.read_text("utf-8")))


def test_the_shipped_texts_can_be_printed() -> None:
    """`--print-texts` needs no folder, and prints a file that changes nothing."""
    done = kat("--print-texts")
    assert (done.returncode, done.stdout, done.stderr) == (0, SHIPPED, "")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (b'[page.401]\ntitel = "x"', "page.401.titel: unknown key; do you mean page.401.title?"),
        (b'[page.401]\ntext = "' + b"x" * 9000 + b'"', "401.html would have "),
        (b"\xff", "is not UTF-8 (at line 1)"),
        (b"#" * (1024 * 1024 + 1), "has more than 1048576 bytes"),
    ],
)
def test_texts_that_make_no_pages_change_nothing(
    tmp_path: Path, texts: bytes, sentence: str
) -> None:
    """The sentence names the file, the exit code says whose fault it is, and nothing is written."""
    file, folder = tmp_path / "texts.toml", tmp_path / "errors"
    file.write_bytes(texts)
    done = kat(folder, "--texts", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"kat: {file}: {sentence}")
    assert not folder.exists()


def test_every_mistake_has_a_line(tmp_path: Path) -> None:
    """Two mistakes are two sentences."""
    file = tmp_path / "texts.toml"
    file.write_text('accent = "#ffffff"\nlanguage = ""')
    done = kat(tmp_path / "errors", "--texts", file)
    assert [line.startswith(f"kat: {file}: ") for line in done.stderr.splitlines()] == [True, True]


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there is named with the reason."""
    done = kat(tmp_path, "--texts", tmp_path / "none.toml")
    reason = f"kat: {tmp_path}/none.toml: cannot be read: No such file or directory\n"
    assert (done.returncode, done.stderr) == (2, reason)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("file", "File exists"), ("none/errors", "No such file or directory")],
)
def test_a_folder_that_cannot_be_written(tmp_path: Path, folder: str, reason: str) -> None:
    """It is named with the system's reason, and the exit code is that of a failure."""
    (tmp_path / "file").touch()
    done = kat(tmp_path / folder)
    sentence = f"kat: {tmp_path / folder}: cannot be written: {reason}\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_page_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where a folder has the name of a page, the half-done work is cleared away."""
    (tmp_path / "401.html").mkdir()
    (tmp_path / "401.html" / "theirs").touch()
    done = kat(tmp_path)
    assert done.returncode == 1
    assert list(tmp_path.glob(".*")) == []
