"""A folder takes its place at once, and only where an earlier one of ours was."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keyfit.errors import HostError, StorageError
from keyfit.publisher.site import folder as folders
from keyfit.publisher.site.folder import MARKER, fresh_folder, write


def put(out: Path, **files: str) -> None:
    with fresh_folder(out) as folder:
        for name, text in files.items():
            write(folder, name, text.encode())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_is_readable_for_a_web_server(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with fresh_folder(tmp_path / "www") as folder:
            write(folder, "en/index.html", b"x")
    finally:
        os.umask(old)

    for path, mode in (("", 0o755), ("en", 0o755), ("en/index.html", 0o644)):
        assert (tmp_path / "www" / path).stat().st_mode & 0o777 == mode
    assert names(tmp_path) == ["www"]


def test_a_folder_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    put(tmp_path / "www", one="1", both="1")
    put(tmp_path / "www", two="2", both="2")

    assert names(tmp_path / "www") == [MARKER, "both", "two"]
    assert (tmp_path / "www" / "both").read_text() == "2"
    assert names(tmp_path) == ["www"]


@pytest.mark.parametrize("kind", ["empty", "full", "file", "link", "dangling", "forged"])
def test_what_was_not_made_here_is_never_touched(tmp_path: Path, kind: str) -> None:
    out, other = tmp_path / "www", tmp_path / "other"
    put(other, a="1")
    match kind:
        case "empty":
            out.mkdir()
        case "full":
            out.mkdir()
            (out / "letter.txt").write_text("mine")
        case "file":
            out.write_text("mine")
        case "link":
            out.symlink_to(other)
        case "dangling":
            out.symlink_to(tmp_path / "nowhere")
        case "forged":
            out.mkdir()
            (out / MARKER).write_text("[]")
    before = names(tmp_path)

    with pytest.raises(HostError) as caught:
        put(out, a="2")

    assert caught.value.code == "out-not-ours"
    assert names(tmp_path) == before
    assert (other / "a").read_text() == "1"


def test_files_that_somebody_added_are_not_lost(tmp_path: Path) -> None:
    put(tmp_path / "www", a="1")
    (tmp_path / "www" / "proof-of-ownership.txt").write_text("mine")

    with pytest.raises(HostError, match=r"proof-of-ownership\.txt"):
        put(tmp_path / "www", a="2")

    assert (tmp_path / "www" / "a").read_text() == "1"


def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    put(tmp_path / "www", a="1")

    with pytest.raises(StorageError):
        put(tmp_path / "www", **{"a": "2", "a/b": "a file cannot lie in a file"})

    assert (tmp_path / "www" / "a").read_text() == "1"
    assert names(tmp_path) == ["www"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        put(tmp_path / "missing" / "www", a="1")
    assert caught.value.code == "cannot-write"


def test_readers_see_a_whole_folder_at_any_time(tmp_path: Path) -> None:
    """Someone reads the site over and over while it is made anew: never is a file missing, and both files of one reading
    of the folder are of the same making."""
    out = tmp_path / "www"
    put(out, a="0", b="0")
    seen: list[tuple[str, str]] = []
    errors: list[OSError] = []
    end = threading.Event()

    def read() -> None:
        while not end.is_set():
            try:
                handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    opened = [os.open(name, os.O_RDONLY, dir_fd=handle) for name in ("a", "b")]
                except FileNotFoundError:
                    continue  # of the folder before, which is being deleted
                finally:
                    os.close(handle)
                seen.append((os.read(opened[0], 9).decode(), os.read(opened[1], 9).decode()))
                for one in opened:
                    os.close(one)
            except OSError as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        put(out, a=str(number), b=str(number))
    end.set()
    reader.join()

    assert errors == []
    assert len(set(seen)) > 3
    assert all(a == b for a, b in seen)


def test_without_an_exchange_the_old_folder_is_kept_until_the_new_one_is_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems, and on file systems that cannot exchange names."""
    monkeypatch.setattr(folders, "_exchange", lambda: None)
    put(tmp_path / "www", a="1")
    put(tmp_path / "www", a="2")
    assert (tmp_path / "www" / "a").read_text() == "2"
    assert names(tmp_path) == ["www"]

    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".new-" in self.name and target.name == "www":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError):
        put(tmp_path / "www", a="3")
    assert (tmp_path / "www" / "a").read_text() == "2"
    assert names(tmp_path) == ["www"]


def test_a_killed_run_leaves_the_old_folder(tmp_path: Path) -> None:
    put(tmp_path / "www", a="1")
    program = f"""
import os
from pathlib import Path
from keyfit.publisher.site.folder import fresh_folder, write
with fresh_folder(Path({str(tmp_path / "www")!r})) as folder:
    write(folder, "a", b"2")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9

    assert (tmp_path / "www" / "a").read_text() == "1"
    put(tmp_path / "www", a="3")
    assert (tmp_path / "www" / "a").read_text() == "3"
