"""The audit as lines on stdout."""

import io
import json
import sys

import pytest

from spoa.config.sections import Log, LogFormat
from spoa.worker.auditlog import AuditLog
from tokens.audit import Journal
from tokens.check import Check

_TOLD = (
    '[{"event":"consumed","user":"J\u00fcrgen\\u2028x\\" y"},{"event":"refused","n":3}]'.encode()
)


def test_an_event_is_a_line_of_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    """Each event is one line with its facts; none can forge another."""
    AuditLog(Log())(_TOLD)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith('level=info msg=audit event=consumed user="J\\u00fcrgen\\u2028x\\" y"')
    assert second.endswith("level=info msg=audit event=refused n=3")


def test_an_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With log.format = json each line is an object, whatever the level of the log is."""
    AuditLog(Log.model_validate({"format": LogFormat.JSON, "level": "error"}))(_TOLD)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["event"], first["user"]) == ("consumed", 'J\u00fcrgen\u2028x" y')
    assert (second["msg"], second["n"]) == ("audit", 3)


def test_it_is_what_a_journal_wants(capsys: pytest.CaptureFixture[str]) -> None:
    """A journal's event comes out as a line."""
    journal = Journal(b"kat:audit", 0, AuditLog(Log()))
    journal.add(
        b"consumed",
        Check(b"demo", b"", b"", b"", b"", b"", b"\xc0\x00\x02\x07", 0),
        b"0123456789ab",
        b"u",
    )
    assert journal.take(0.0) is None
    assert (
        "event=consumed acl=demo kid=0123456789ab user=u src=192.0.2.7" in capsys.readouterr().out
    )


class _Closed(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_closed_stdout_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads our stdout and goes away costs one line on stderr, and no worker."""
    audit_log = AuditLog(Log())
    monkeypatch.setattr("spoa.log.log.propagate", True)
    monkeypatch.setattr(sys, "stdout", _Closed())
    for _ in range(3):
        audit_log(_TOLD)
    assert [record.getMessage() for record in caplog.records] == [
        "no audit on stdout any more: [Errno 32] Broken pipe"
    ]
