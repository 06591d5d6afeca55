"""HAProxy tries an application again by itself. The agent must never hear of it."""

from http import HTTPStatus
from pathlib import Path

from tests.e2e.scene import TOKEN, staged, until


def test_a_failed_connection_is_tried_again_without_asking(
    haproxy_binary: Path, tmp_path: Path
) -> None:
    """Three retries of a refused connection are one question to the agent."""
    settings = {"KAT_TIMEOUT_CONNECT": "20ms"}
    with staged(haproxy_binary, tmp_path, settings=settings) as stage:
        assert stage.ask(f"X-KAT: {TOKEN}").status == 200
        stage.agent.notifies.clear()
        stage.application.stop()
        assert stage.ask(f"X-KAT: {TOKEN}", target="/retried").status == 503
        until(lambda: '"/retried"' in stage.haproxy.log())
        (line,) = [line for line in stage.haproxy.log().splitlines() if '"/retried"' in line]
        assert "3 0/0 id=" in line, f"HAProxy did not retry: {line}"
        assert len(stage.agent.notifies) == 1


def test_a_failed_request_is_tried_again_without_asking(
    haproxy_binary: Path, tmp_path: Path
) -> None:
    """A layer 7 retry sends the request again, and asks nobody."""
    settings = {"KAT_RETRY_ON": "all-retryable-errors"}
    with staged(haproxy_binary, tmp_path, settings=settings) as stage:
        stage.application.statuses = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY]
        assert stage.ask(f"X-KAT: {TOKEN}").status == 200
        assert len(stage.application.take()) == 3
        assert len(stage.agent.notifies) == 1


def test_by_default_no_request_is_sent_twice(haproxy_binary: Path, tmp_path: Path) -> None:
    """One token, one request: what the application answered is not asked for again."""
    with staged(haproxy_binary, tmp_path) as stage:
        stage.application.statuses = [HTTPStatus.SERVICE_UNAVAILABLE]
        assert stage.ask(f"X-KAT: {TOKEN}").status == 503
        assert len(stage.application.take()) == 1
