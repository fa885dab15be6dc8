"""The bank's page is opened as the user, with a clean environment, or not at all. `xdg-open` is a script that writes down
what it was given."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfit.errors import PolicyError
from keyfit.invoker import invoking_user
from keyfit.platforms import browser_opener
from keyfit.platforms.linux import browser, programs

PAGE = "https://bank.example/token?step=1&lang=zh_CN;$x'(*)"


class Opener:
    """Waits for what the script writes into a FIFO, so no test has to guess how long it takes."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.fifo = folder / "said"
        self.path = folder / "xdg-open"
        os.mkfifo(self.fifo)
        self.fifo.chmod(0o666)
        self.path.write_text(f'#!/bin/sh\n(printf "%s\\n" "$@"; echo --; id -u; id -G; env) > {self.fifo}\n')
        self.path.chmod(0o755)

    def said(self) -> tuple[list[str], str, str, dict[str, str]]:
        """Arguments, user id, groups, environment."""
        lines = self.fifo.read_text().splitlines()
        end = lines.index("--")
        environment = dict(line.split("=", 1) for line in lines[end + 3:])
        return lines[:end], lines[end + 1], lines[end + 2], environment


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    for name in ("SUDO_UID", "PKEXEC_UID", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    # not pytest's own folder, which other users may not enter
    with tempfile.TemporaryDirectory(prefix="keyfit-opener-") as folder:
        made = Opener(Path(folder))
        monkeypatch.setitem(programs.PROGRAMS, "xdg-open", (str(made.path),))
        yield made


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> pwd.struct_passwd:
    """The ordinary user: the one who runs the tests, or for root the one that sudo would name."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setenv("SUDO_UID", str(nobody.pw_uid))
    return nobody


def test_g3_the_page_is_one_argument_and_the_browser_is_not_elevated(opener: Opener, user: pwd.struct_passwd) -> None:
    assert browser_opener()(PAGE) is True

    arguments, uid, groups, environment = opener.said()
    assert arguments == [PAGE]
    assert uid == str(user.pw_uid) != "0"
    assert "0" not in groups.split()
    assert (environment["HOME"], environment["USER"], environment["DISPLAY"]) == (user.pw_dir, user.pw_name, ":7")


def test_c5_the_browser_gets_the_session_and_nothing_else(
    opener: Opener, user: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "BROWSER", "_PYI_APPLICATION_HOME_DIR", "KEYFIT_ROOT"):
        monkeypatch.setenv(name, "/canary")

    assert browser.open_page(PAGE)

    environment = opener.said()[3]
    assert "/canary" not in environment.values()
    assert environment["PATH"] == programs.CLEAN_ENVIRONMENT["PATH"]


@pytest.mark.parametrize("page", ["http://bank.example/", "--help", " https://bank.example/", "https://bank.example\\@x/",
                                  "file:///etc/passwd", "https://user@bank.example/"])
def test_g2_a_page_that_is_not_plain_https_is_never_handed_over(
    opener: Opener, user: pwd.struct_passwd, page: str
) -> None:
    opener.path.unlink()  # would be named as missing if it were looked for

    with pytest.raises(PolicyError):
        browser.open_page(page)


def test_without_a_graphical_session_the_caller_is_told(
    opener: Opener, user: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY")

    assert browser.open_page(PAGE) is False


def test_without_an_opener_the_caller_is_told(opener: Opener, user: pwd.struct_passwd) -> None:
    opener.path.unlink()

    assert browser.open_page(PAGE) is False


@pytest.mark.parametrize("value", ["", "0", "-1", "root", "65534x", "99999999999", "\u0661", "2147483646"])
def test_g3_root_without_an_ordinary_user_behind_it_opens_nothing(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SUDO_UID", value)
    monkeypatch.setattr(browser.posix, "geteuid", lambda: 0)

    assert invoking_user() is None
    assert browser.open_page(PAGE) is False


def test_the_user_behind_pkexec_counts_as_well(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.posix, "geteuid", lambda: 0)

    found = invoking_user({"PKEXEC_UID": str(pwd.getpwnam("nobody").pw_uid)})

    assert found is not None
    assert found.name == "nobody"
