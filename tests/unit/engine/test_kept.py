"""Files of installed packages, kept to go back to."""

import hashlib
from pathlib import Path

import pytest

from keyfit.engine.kept import FOLDER, Kept
from keyfit.errors import StorageError, TrustError
from keyfit.model.catalog import Payload

DATA = b"a driver" * 1000


def payload(data: bytes = DATA) -> Payload:
    return Payload(file="driver.deb", sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))


def source(folder: Path, data: bytes = DATA) -> Path:
    path = folder / "driver.deb"
    path.write_bytes(data)
    return path


def test_a_file_is_kept_until_it_is_not_needed(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "state")
    assert kept.holds(payload().sha256) is None
    kept.keep(payload(), source(tmp_path))
    kept.keep(payload(), tmp_path / "is not read again")
    found = kept.holds(payload().sha256)
    assert found is not None
    assert found.read_bytes() == DATA
    kept.tidy({payload().sha256})
    assert kept.holds(payload().sha256) == found
    kept.tidy(())
    assert not (tmp_path / "state" / FOLDER).exists()


@pytest.mark.parametrize("data", [b"other" + DATA[5:], DATA + b"x", DATA[:-1]])
def test_d2_other_bytes_are_not_kept(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TrustError):
        Kept(tmp_path).keep(payload(), source(tmp_path, data))
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_file_that_was_damaged_is_replaced(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.keep(payload(), source(tmp_path))
    (tmp_path / FOLDER / payload().sha256).write_bytes(b"damaged")
    assert kept.holds(payload().sha256) is None
    kept.keep(payload(), source(tmp_path))
    assert kept.holds(payload().sha256) is not None


def test_d1_d3_a_folder_that_is_a_link_or_open_to_others_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / FOLDER).symlink_to(tmp_path / "elsewhere")
    kept = Kept(tmp_path)
    with pytest.raises(StorageError):
        kept.keep(payload(), source(tmp_path))
    (tmp_path / "elsewhere" / payload().sha256).write_bytes(DATA)
    assert kept.holds(payload().sha256) is None
    kept.tidy(())
    assert (tmp_path / "elsewhere" / payload().sha256).exists()
    (tmp_path / FOLDER).unlink()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER).chmod(0o777)
    with pytest.raises(StorageError):
        kept.keep(payload(), source(tmp_path))


def test_d3_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary")
    (tmp_path / FOLDER).mkdir(0o700)
    (tmp_path / FOLDER / payload().sha256).symlink_to(canary)
    kept = Kept(tmp_path)
    assert kept.holds(payload().sha256) is None
    kept.keep(payload(), source(tmp_path))
    assert canary.read_bytes() == b"canary"
    assert kept.holds(payload().sha256) is not None


def test_d4_tidying_removes_what_a_power_cut_left_and_follows_no_link(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary")
    kept = Kept(tmp_path)
    kept.keep(payload(), source(tmp_path))
    (tmp_path / FOLDER / ".0123456789abcdef").write_bytes(DATA[:100])
    (tmp_path / FOLDER / ("0" * 64)).symlink_to(canary)
    kept.tidy({payload().sha256})
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [payload().sha256]
    assert canary.read_bytes() == b"canary"
