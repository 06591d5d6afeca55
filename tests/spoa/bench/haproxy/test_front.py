import sys
from pathlib import Path

import pytest

from spoa.bench.haproxy import front as subject_of_this_test
from spoa.bench.haproxy.front import NAMED_BY, Haproxy, find_haproxies, front, is_whole
from spoa.bench.haproxy.gateway import Subject
from spoa.bench.servers import NotStarted
from tests.support.haproxy import binary


def test_those_named_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names HAProxys gets exactly those, by their versions."""
    monkeypatch.setenv(NAMED_BY, f"{binary('3.2')}:{binary('2.6')}")
    found = find_haproxies()
    assert [one.version.rpartition(".")[0] for one in found] == ["3.2", "2.6"]
    assert all(one.has_lua for one in found)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (sys.executable, "is not a HAProxy that can be run"),
        ("/nowhere/haproxy", "/nowhere/haproxy is not a HAProxy that can be run"),
        (f"{binary('3.2')}:{binary('3.2')}", r"are both HAProxy 3\.2\.\d+: name one of them"),
    ],
)
def test_what_cannot_be_measured_is_told(
    named: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence."""
    monkeypatch.setenv(NAMED_BY, named)
    with pytest.raises(NotStarted, match=told):
        find_haproxies()


def test_lua_is_an_option_of_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built without it is measured without it."""
    built_without = tmp_path / "haproxy"
    built_without.write_text("#!/bin/sh\necho 'HAProxy version 2.8.3 2023/09/07'\n")
    built_without.chmod(0o700)
    monkeypatch.setenv(NAMED_BY, str(built_without))
    assert find_haproxies() == [Haproxy(built_without, "2.8.3", has_lua=False)]


def test_who_has_no_haproxy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to get one, and how to name one."""
    monkeypatch.delenv(NAMED_BY, raising=False)
    monkeypatch.setattr(subject_of_this_test, "_CHECKOUT", tmp_path)
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(NotStarted, match=f"apt install haproxy`, or set {NAMED_BY}=PATH"):
        find_haproxies()


def test_what_haproxy_said_is_told(tmp_path: Path) -> None:
    """A HAProxy that does not start ends the run with its own words."""
    haproxy = Haproxy(binary("3.2"), "3.2", has_lua=True)
    failure = pytest.raises(NotStarted, match=r"HAProxy ended at once\n(.*\n)*.*nbthread")
    with failure, front(tmp_path / "front", haproxy, Subject.NO_FILTER, -1, "/a", "/s"):
        pass


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", b"HTTP/1.1 204 No Content\r\n\r\n"],
)
def test_an_answer_ends_where_it_says(answer: bytes) -> None:
    """No byte before its last one ends it."""
    assert is_whole(answer)
    assert not any(is_whole(answer[:end]) for end in range(len(answer)))
