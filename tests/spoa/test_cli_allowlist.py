"""`kat allowlist`, as typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spoa.cli.app import app

SECTION = '[allowlist.edge1]\nruntime = "unix:/nowhere/kat.sock"\nacl = { wiki = "#500" }\n'


def _typed(tmp_path: Path, config: str, *options: str) -> tuple[int, str]:
    file = tmp_path / "kat.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n{config}')
    done = CliRunner().invoke(app, ["allowlist", "-c", str(file), *options])
    return done.exit_code, done.output


@pytest.mark.parametrize("options", [[], ["--show"]])
def test_without_a_haproxy_there_is_nothing_to_keep(options: list[str], tmp_path: Path) -> None:
    """It names the section that is missing, and does not wait for nothing."""
    code, output = _typed(tmp_path, "", *options)
    assert code == 2
    assert output == "kat: no HAProxy to keep: the configuration has no section [allowlist.NAME]\n"


def test_json_is_for_show(tmp_path: Path) -> None:
    """A daemon prints no JSON."""
    assert _typed(tmp_path, SECTION, "--json") == (2, "kat: --json goes with --show\n")


def test_tls_files_that_cannot_be_used_are_a_sentence(tmp_path: Path) -> None:
    """They are looked at before anything runs."""
    (tmp_path / "ca.pem").write_text("no PEM")
    config = (
        f'[allowlist.edge1]\nca_file = "{tmp_path}/ca.pem"\nruntime = "edge1:9999"\n'
        'acl = { wiki = "#500" }\n'
    )
    code, output = _typed(tmp_path, config, "--show")
    assert code == 2
    assert output.startswith("kat: allowlist.edge1: ca_file ")
