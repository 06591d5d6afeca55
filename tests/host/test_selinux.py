"""host/selinux/kat.cil compiles, and says one thing. Whether it suffices, no test here can know."""

import re
import subprocess
from pathlib import Path

from tests.host.machine import ROOT

CIL = ROOT / "host/selinux/kat.cil"

# What the policies of Fedora and RHEL declare, as far as secilc needs it.
POLICY = """\
(handleunknown allow)
(mls false)
(sid kernel)
(sidorder (kernel))
(class unix_stream_socket (connectto))
(classorder (unix_stream_socket))
(user system_u)
(role system_r)
(role object_r)
(userrole system_u system_r)
(sensitivity s0)
(sensitivityorder (s0))
(userlevel system_u (s0))
(userrange system_u ((s0)(s0)))
(type haproxy_t)
(type unconfined_service_t)
(type other_t)
(roletype system_r haproxy_t)
(roletype system_r unconfined_service_t)
(sidcontext kernel (system_u system_r haproxy_t ((s0)(s0))))
(allow other_t self (unix_stream_socket (connectto)))
"""


def compiled(folder: Path, text: str) -> "subprocess.CompletedProcess[str]":
    (folder / "policy.cil").write_text(POLICY)
    (folder / "kat.cil").write_text(text)
    compiler = ["secilc", "-o", "policy", "-f", "contexts", "policy.cil", "kat.cil"]
    return subprocess.run(
        compiler, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_rule_compiles(tmp_path: Path) -> None:
    """SELinux's compiler takes the file beside a policy that has both types."""
    done = compiled(tmp_path, CIL.read_text())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_rule_does_not(tmp_path: Path) -> None:
    """A type or a permission that no policy has is refused."""
    for right, wrong in (("haproxy_t", "harpoxy_t"), ("connectto", "connecto")):
        assert compiled(tmp_path, CIL.read_text().replace(right, wrong)).returncode != 0


def test_it_allows_one_thing() -> None:
    """HAProxy may connect to the agent: no other rule, no type, nothing permissive."""
    said = re.sub(r"(?m)^;.*\n", "", CIL.read_text()).strip()
    assert said == "(allow haproxy_t unconfined_service_t (unix_stream_socket (connectto)))"


def test_the_page_never_switches_it_off() -> None:
    """No command of docs/host.md makes SELinux, or a domain, permissive."""
    page = (ROOT / "docs/host.md").read_text()
    assert not re.search(r"setenforce|permissive|SELINUX=", page)
