"""The list of what is installed, for those who may not read the record."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from keyfit.engine import installed
from keyfit.engine.journal import Journal
from keyfit.errors import HostError
from tests.sim import plans


def install(journal: Journal, brand: str, sequence: int) -> int:
    txn = journal.begin("install", msgspec.structs.replace(plans.plan(brand=brand), sequence=sequence))
    journal.finish(txn, "done")
    return txn


def test_it_follows_the_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    install(journal, "acme", 3)
    second = install(journal, "acme", 5)
    other = install(journal, "other", 1)
    assert installed.read(tmp_path) == journal.installed() == {"acme": 5, "other": 1}

    journal.finish(second, "undone")
    journal.finish(other, "removed")
    assert installed.read(tmp_path) == journal.installed() == {"acme": 3}


def test_everyone_may_read_it_and_it_says_nothing_else(tmp_path: Path) -> None:
    install(Journal(tmp_path), "acme", 3)

    path = tmp_path / installed.FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert json.loads(path.read_bytes()) == {"keyfit": 1, "brands": {"acme": 3}}
    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600


def test_who_may_not_read_the_record_reads_the_list(tmp_path: Path) -> None:
    """In a process without the right to read everything; root gives that right up."""
    install(Journal(tmp_path), "acme", 3)
    (tmp_path / "journal.sqlite").chmod(0)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    program = ("import sys; from pathlib import Path; from keyfit.engine.journal import Journal\n"
               "print(Journal(Path(sys.argv[1])).installed())")

    done = subprocess.run([*drop, sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{'acme': 3}\n", "")


def test_nothing_was_ever_installed(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").installed() == {}


@pytest.mark.parametrize("data", [None, b"", b"[]", b'{"brands": {"../x": 1}}', b'{"brands": {"acme": -1}}', b'{"more": 1}'])
def test_a_list_that_is_none_is_no_answer(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / installed.FILE_NAME).write_bytes(data)

    with pytest.raises(HostError) as caught:
        installed.read(tmp_path)
    assert caught.value.code == "record-unreadable"
    assert "sudo" in caught.value.hint


def test_d3_a_planted_link_is_neither_followed_nor_written_through(tmp_path: Path) -> None:
    """D3."""
    (tmp_path / "elsewhere").write_text('{"keyfit":1,"brands":{"acme":9}}')
    (tmp_path / installed.FILE_NAME).symlink_to("elsewhere")
    with pytest.raises(HostError):
        installed.read(tmp_path)

    installed.publish(tmp_path, [plans.plan(brand="other")])
    assert installed.read(tmp_path) == {"other": 1}
    assert "acme" in (tmp_path / "elsewhere").read_text()


def test_a_list_that_cannot_be_written_does_not_undo_what_happened(tmp_path: Path) -> None:
    (tmp_path / installed.FILE_NAME).mkdir()
    journal = Journal(tmp_path)

    install(journal, "acme", 3)
    assert journal.installed() == {"acme": 3}
