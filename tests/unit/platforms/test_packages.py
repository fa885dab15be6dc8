"""dpkg's status file, read without dpkg."""

import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.platforms.linux.host import LinuxHost
from keyfit.platforms.linux.packages import is_installed, native_architecture, versions


def package(name: str, state: str = "install ok installed", version: str = "1.0-1", architecture: str = "amd64") -> str:
    return (f"Package: {name}\nStatus: {state}\nPriority: optional\nArchitecture: {architecture}\nVersion: {version}\n"
            f"Description: text\n Package: fake\n Status: install ok installed\n")


STATUS = "\n".join([
    package("dpkg", version="1.21.22"),
    package("libccid", version="1.5.2-1"),
    package("libccid-dev", state="deinstall ok config-files"),
    package("libc6", version="2.36"), package("libc6", version="2.35", architecture="i386"),
    package("wine32", version="8.0", architecture="i386"),
    package("pcscd", state="hold ok installed", version="1:2.0"),
    package("half", state="install ok half-configured"),
    package("unpacked", state="install ok unpacked"),
    package("triggers", state="install ok triggers-pending"),
    package("data", architecture="all"),
]).encode()


def test_installed_packages_have_versions_and_others_have_not() -> None:
    assert versions(STATUS) == {
        "dpkg": "1.21.22", "libccid": "1.5.2-1", "libc6": "2.36", "libc6:i386": "2.35", "wine32": "8.0",
        "wine32:i386": "8.0", "pcscd": "1:2.0", "triggers": "1.0-1", "data": "1.0-1",
    }


@pytest.mark.parametrize("name", ["libccid", "libccid-dev", "libcci", "pcscd", "half", "unpacked", "triggers", "wine32",
                                  "fake", "dpkg", "data", "none", ""])
def test_the_quick_question_gets_the_same_answer_as_the_whole_list(name: str) -> None:
    assert is_installed(STATUS, name) == (name in versions(STATUS))


def test_the_tree_says_its_own_architecture() -> None:
    assert native_architecture(STATUS) == "amd64"
    assert native_architecture(package("dpkg", architecture="arm64").encode()) == "arm64"
    assert native_architecture(package("dpkg", state="deinstall ok config-files").encode()) == ""
    assert native_architecture(b"") == ""


def test_the_last_paragraph_counts_without_an_empty_line_after_it() -> None:
    assert is_installed(package("pcscd").rstrip().encode(), "pcscd")


@given(st.binary(max_size=300), st.text(max_size=5))
def test_a_broken_status_file_is_survived(status: bytes, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    assert is_installed(status, name) in (True, False)
    assert isinstance(versions(status), dict)


def test_this_machine_has_the_packages_that_dpkg_says_it_has() -> None:
    if shutil.which("dpkg-query") is None:
        assert LinuxHost("/").package_versions() is not None
        return
    shown = subprocess.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n"],
                           capture_output=True, text=True, check=True).stdout
    by_dpkg = {line.split()[1]: line.split()[2] for line in shown.splitlines() if line.startswith("installed ")}

    found = LinuxHost("/").package_versions()

    assert {name: version for name, version in found.items() if ":" not in name} == by_dpkg


def test_the_quick_question_is_quick() -> None:
    desktop = "\n".join(package(f"package-{number}", version="1" * 500) for number in range(5_000)).encode()
    start = time.perf_counter()

    assert is_installed(desktop, "package-4999")
    assert time.perf_counter() - start < 0.05
