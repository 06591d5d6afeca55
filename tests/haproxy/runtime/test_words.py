import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haproxy.runtime.words import acl_name, command, pattern, stream_id

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=99)


def read_as_haproxy(line: bytes) -> list[list[str]]:
    """Take lines apart as HAProxy does: ; and blanks part, unless a backslash is before them."""
    found: list[list[str]] = []
    for text in line.decode().split("\n"):
        for part in re.findall(r"(?:\\.|[^;\\])+", text):
            words = re.findall(r"(?:\\.|[^ \\])+", part)
            found.append([re.sub(r"\\(.)", r"\1", word) for word in words])
    return found


@given(st.lists(PRINTABLE.filter(lambda word: not word.startswith("<<")), min_size=1))
def test_a_command_is_one_command_of_these_words(words: list[str]) -> None:
    """Whatever can be printed stands in it as it is, and ends no command and no word."""
    assert read_as_haproxy(command(words)) == [words]


@pytest.mark.parametrize("word", ["", "a\nb", "a\r", "\t", "\x00", "\x7f", "\xe9", "<<", "<<x"])
def test_what_haproxy_would_not_take_as_it_is_is_refused(word: str) -> None:
    """A line has no control characters, and begins no payload."""
    with pytest.raises(ValueError, match=r"is not 1 to|begins with"):
        command(["show", "acl", word])


def test_a_word_has_a_limit() -> None:
    """HAProxy closes the connection for a line that does not fit into its buffer."""
    assert len(command(["x" * 1000])) == 1001
    with pytest.raises(ValueError, match="1 to 1000 printable"):
        command(["x" * 1001])


@pytest.mark.parametrize("name", ["#", "#x", "# 500", "#500x", "#-1", "#+5", "#1234567890", "@1"])
def test_what_haproxy_takes_for_another_acl_is_refused(name: str) -> None:
    """It reads `#x` as #0, the first ACL of the configuration, and @1 as a version."""
    with pytest.raises(ValueError, match="no name of an ACL"):
        acl_name(name)


@pytest.mark.parametrize("name", ["#0", "#500", "/etc/haproxy/a b.acl", "virt@airwatch", "x.acl"])
def test_numbers_files_and_virtual_files_are_names(name: str) -> None:
    """They are sent as they are written."""
    assert acl_name(name) == name


def test_an_entry_s_place_in_memory_is_no_pattern() -> None:
    """`del acl #500 #0x7f...` deletes whatever stands there."""
    with pytest.raises(ValueError, match="no address"):
        pattern("#0x7f7a6c0")


@pytest.mark.parametrize("text", ["", "7f", "0x", "0x1 ", "0x1;", "0X1", "0x" + 17 * "f"])
def test_a_stream_has_an_id_of_haproxy_s(text: str) -> None:
    """Nothing else is sent."""
    with pytest.raises(ValueError, match="no stream's id"):
        stream_id(text)
