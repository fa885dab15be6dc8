"""What the cheap check remembers, asks and understands; its stories are in tests/flow/test_trust_poll.py."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from keyfit import places
from keyfit.trust.poll import goes_directly, is_unchanged, recall, remember
from keyfit.ui.quick import parse

KEY: dict[str, Any] = {"version": "1.0", "urls": ["https://a.example.com", "https://b.example.com/x/"],
                       "inputs": {"/file": [1, 2, 3], "/none": None}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a memory of now."""
    made = tmp_path / "metadata"
    made.mkdir(mode=0o700)
    remember(str(made), **KEY, url="https://b.example.com/x/metadata/timestamp.json", etag='W/"1"', strict_at=time.time(),
             expires=time.time() + 3600, data={"updates": []}, messages=[("info", "code", "text", "")])
    return made


def known(folder: Path, **changed: Any) -> dict[str, Any] | None:
    return recall(str(folder), **(KEY | {"now": time.time()} | changed))


def test_what_was_remembered_is_recalled(folder: Path) -> None:
    found = known(folder)

    assert found is not None
    assert found["url"] == "https://b.example.com/x/metadata/timestamp.json"
    assert found["messages"] == [["info", "code", "text", ""]]


@pytest.mark.parametrize("changed", [
    {"version": "1.1"}, {"urls": ["https://b.example.com/x/"]}, {"urls": KEY["urls"][::-1]}, {"inputs": {}},
    {"inputs": {"/file": [1, 2, 4], "/none": None}}, {"inputs": {"/file": [1, 2, 3], "/none": [1, 1, 1]}},
])
def test_it_is_of_this_program_repository_and_machine(folder: Path, changed: dict[str, Any]) -> None:
    assert known(folder, **changed) is None


@pytest.mark.parametrize(("later_s", "stands"), [(-1, False), (1, True), (3599, True), (3601, False), (90_000, False),
                                                 (float("nan"), False)])
def test_a6_how_long_it_stands(folder: Path, later_s: float, stands: bool) -> None:
    """A6: until something expires; never before it was written."""
    strict_at = json.loads((folder / "poll.json").read_text())["strict_at"]

    assert (known(folder, now=strict_at + later_s) is not None) is stands


def test_a6_a_day_at_most(folder: Path) -> None:
    """A6."""
    now = time.time()
    change(folder, strict_at=now, expires=now + 1e9)

    assert known(folder, now=now + 86_399) is not None
    assert known(folder, now=now + 86_401) is None


def change(folder: Path, **fields: Any) -> None:
    path = folder / "poll.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("fields", [
    {"etag": '"x"\r\nX-Injected: 1'}, {"etag": "no quotes"}, {"etag": '"'}, {"etag": 7}, {"etag": '"é"'},
    {"etag": '"' + "x" * 300 + '"'}, {"strict_at": "yesterday"}, {"strict_at": float("nan")}, {"expires": True},
    {"expires": float("nan")}, {"data": {}}, {"data": []}, {"data": {"updates": 1}}, {"messages": None},
    {"messages": [["fatal", "a", "b", "c"]]}, {"messages": [["info", "a", "b"]]}, {"messages": [["info", "a", "b", 1]]},
    {"messages": [1]}, {"url": "https://c.example.com/metadata/timestamp.json"}, {"url": "file:///etc/passwd"},
    {"url": None}, {"version": 1}, {"urls": None}, {"inputs": []},
], ids=str)
def test_h4_odd_content_is_no_memory(folder: Path, fields: dict[str, Any]) -> None:
    """H4."""
    assert known(folder) is not None
    change(folder, **fields)

    assert known(folder) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"{}", b"null", b"[" * 60_000, b"{" + b" " * 70_000 + b"}"],
                         ids=range(8))
def test_h4_a_damaged_file_is_no_memory(folder: Path, data: bytes) -> None:
    """H4."""
    (folder / "poll.json").write_bytes(data)

    assert known(folder) is None


def twin(path: Path) -> None:
    path.with_name("twin").hardlink_to(path)


def link(path: Path) -> None:
    path.rename(path.with_name("twin"))
    path.symlink_to("twin")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [
    twin, link, fifo, directory, link_to_folder, Path.unlink, lambda path: path.chmod(0o620), lambda path: path.chmod(0o602),
    lambda path: path.parent.chmod(0o770), lambda path: path.parent.chmod(0o702),
], ids=["twin", "link", "fifo", "directory", "link-to-folder", "nothing", "group", "others", "folder-group", "folder-others"])
def test_d3_what_others_could_have_written_is_no_memory(folder: Path, spoil: Callable[[Path], None]) -> None:
    """D3."""
    spoil(folder / "poll.json")

    assert known(folder) is None


@pytest.mark.parametrize("etag", ["", "1", '"a\n"'])
def test_a_server_without_a_usable_tag_is_not_remembered(tmp_path: Path, etag: str) -> None:
    remember(str(tmp_path), **KEY, url="https://a.example.com/metadata/timestamp.json", etag=etag, strict_at=1.0, expires=2.0,
             data={"updates": []}, messages=[])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [b"", b"\r\n\r\n", b"304\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n", b"SSH-2.0-x\r\n\r\n",
                                    b"HTTP/1.1 200 304\r\n\r\n", b"\0" * 100_000, b"HTTP/1.1 304\r\n" + b"x: y\r\n" * 10_000])
def test_an_answer_that_is_none(answer: bytes) -> None:
    """Only a whole head that begins with the one status counts."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                try:
                    connection.sendall(answer)
                except OSError:
                    return  # it had read enough

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metadata/timestamp.json"
        assert is_unchanged(url, '"x"', "keyfit/test") is False
        thread.join()


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"])
def test_a_proxy_means_the_long_way(variable: str) -> None:
    url, here = "https://drivers.example.com/metadata/timestamp.json", "http://127.0.0.1:8000/metadata/timestamp.json"
    assert goes_directly(url, {"PATH": "/bin", "no_proxy": "*"})
    assert not goes_directly(url, {variable: "http://proxy.example.com:3128"})
    assert goes_directly(url, {variable: ""})
    assert goes_directly(here, {variable: "http://proxy.example.com:3128"})


@pytest.mark.parametrize("url", ["http://drivers.example.com/x", "ftp://127.0.0.1/x", "file:///x", "https:///x", "127.0.0.1/x",
                                 "http://127.0.0.1.example.com/x", "http://127.0.0.x/y", "https://a@b/x", "https://a:99999999/x",
                                 "https://a:b/x", "https://a b/x", "https://ä/x", "http://0x7f.0.0.1/x", ""])
def test_f1_addresses_that_the_cheap_request_leaves_alone(url: str) -> None:
    """F1."""
    assert not goes_directly(url, {})
    assert not is_unchanged(url, '"x"', "keyfit/test")


def test_d6_an_elevated_process_ignores_the_environment_here_too() -> None:
    """D6: the cheap check reads the same variables as the rest, and for ordinary users only."""
    assert parse(["--check", "--root", "/t"], {}) == ({"--check"}, {"--root": ["/t"]})
    given = parse(["--check", "--json"], {"KEYFIT_ROOT": "/r", "KEYFIT_REPOSITORY": "https://a https://b"})
    assert given == ({"--check", "--json"}, {"--root": ["/r"], "--repository": ["https://a", "https://b"]})
    assert parse(["--check", "--repository=https://a", "--repository", "https://b"], {}) == (
        {"--check"}, {"--repository": ["https://a", "https://b"]})


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--check", "--help"], ["--check", "acme"], ["--check", "--root"],
                                       ["--check", "--root", "--json"], ["--check", "--root="], ["--check", "-x"]])
def test_what_the_cheap_check_does_not_understand(arguments: list[str]) -> None:
    assert parse(arguments, {}) is None


@pytest.mark.parametrize("home", [None, "", " ", "/somewhere"])
def test_a_users_cache_is_where_others_have_theirs(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """By the XDG base directory specification, as platformdirs has it, which costs more to import."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", home)

    assert places.cache_dir("/a/tree", None) == platformdirs.user_cache_dir("keyfit", appauthor=False)
