"""What leaves this checkout: the wheel, the documents, and what no file of it may hold."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"spoa", "tokens", "haproxy"}
GENERATED = {"__pycache__", "dist", "build", "results"}
# Links go to documentation and to names reserved for examples. Anything else (a mirror, a package
# index, somebody's server) has no business in a file that others will run.
HOSTS = re.compile(
    r"127(?:\.\d+){3}|(?:.+\.)?example(?:\.com|\.org|\.net)?|.+\.(?:invalid|localhost|test)"
    r"|(?:\w+\.)?(?:haproxy\.org|redis\.io|valkey\.io|python\.org|prometheus\.io|w3\.org)"
    r"|github\.com|keepachangelog\.com|semver\.org|www\.rfc-editor\.org|www\.apache\.org"
)
MACHINE_PATH = re.compile(r"""(?<![\w.}>~-])/(?:work|root|home/\w+)/[\w.-]""")


def files() -> Iterator[Path]:
    """Every file that is written by hand: no dot directory but .ci, nothing generated."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [n for n in below if n == ".ci" or not (n.startswith(".") or n in GENERATED)]
        yield from (Path(folder, name) for name in names if not name.endswith(".pyc"))


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the wheel and return the names in it."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl"))).namelist()


def test_the_wheel_installs_three_packages_and_nothing_else(wheel: list[str]) -> None:
    """`spoa`, `tokens` and `haproxy` are generic names: a fourth would be taken by surprise."""
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_every_file_of_its_packages(wheel: list[str]) -> None:
    """An installed `kat demo` finds the HAProxy files, pages and scripts of the checkout."""
    ours = {str(p.relative_to(ROOT)) for p in files() if p.relative_to(ROOT).parts[0] in PACKAGES}
    assert ours - set(wheel) == set()
    needed = {"haproxy/haproxy.cfg", "haproxy/kat.spoe.conf", "tokens/policy/redeem.lua"}
    needed |= {f"spoa/bench/haproxy/{name}.lua" for name in ("ask_redis", "requests")}
    assert needed <= set(wheel)
    assert "tokens/py.typed" in wheel, "type checkers of other services look for it"


def hot_modules() -> list[str]:
    """Name the modules of which there is a compiled form."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    return [path.strip("/").removesuffix(".py").replace("/", ".") for path in hook["include"]]


def test_the_form_under_test_is_the_one_that_was_asked_for() -> None:
    """Without a word all modules are their source; KAT_TEST_FORM=compiled means every hot one.

    So do those of a process that is started by its name.
    """
    files = f"(i.import_module(m).__file__ for m in {hot_modules()})"
    look = f"import importlib as i; print(*{files}, sep='\\n')"
    started = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True
    )
    ours = [str(importlib.import_module(name).__file__) for name in hot_modules()]
    ending = ".so" if os.environ.get("KAT_TEST_FORM") == "compiled" else ".py"
    found = {Path(file).suffix for file in (*ours, *started.stdout.splitlines())}
    assert found == {ending}


def test_files_are_plain_ascii() -> None:
    """HAProxy, Lua and a console in a data centre all read every file as it was written."""
    assert [str(path) for path, text in texts() if not text.isascii()] == []


def test_addresses_lead_to_documentation_or_to_examples() -> None:
    """No file names a package index, a mirror or a machine of ours."""
    found = {
        f"{path}: {host}"
        for path, text in texts()
        for host in re.findall(r"https?://(?:[^/\s@]*@)?([\w-]+(?:\.[\w-]+)+)", text)
        if not HOSTS.fullmatch(host)
    }
    assert found == set()


def test_no_path_of_a_machine() -> None:
    """Nothing points into somebody's home or checkout."""
    hits = {f"{p}: {m[0]}" for p, text in texts() for m in MACHINE_PATH.finditer(text)}
    assert hits == set()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-agent.lock"])
def test_locks_hold_pins_and_hashes_only(lock: str) -> None:
    """Every requirement is one exact version with hashes; where to fetch it is not our business."""
    requirements = (ROOT / lock).read_text().replace("\\\n", "").splitlines()
    assert requirements
    strange = [r for r in requirements if not re.fullmatch(r"\S+==\S+( ; .+?)?(\s+--hash=\S+)+", r)]
    assert strange == []


def test_both_locks_agree() -> None:
    """The image runs the very versions that were tested."""
    agent, everything = (
        set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-agent.lock", "requirements.lock")
    )
    assert agent - everything == set()


def anchors(document: str) -> set[str]:
    """Return the fragments by which the headings of a Markdown document are reached."""
    headings = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize(
    "document",
    sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_of_documents_resolve(document: Path) -> None:
    """Each relative link of a document leads to a file, and its fragment to a heading there."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target, fragment in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text):
        file = (document.parent / target) if target else document
        assert file.exists(), f"{document.name} links to {target}, which is not there"
        assert not fragment or fragment in anchors(file.read_text()), f"no heading {fragment}"
