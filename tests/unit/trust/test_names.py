"""Names of targets and files: whatever is in them, they lead to one place below a folder, on every system (security A8)."""

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from keyfit.model.catalog import FileName, Payload, Slug, brand_target, device_target
from keyfit.trust.manifests import TARGET_NAME

ALPHABET = st.text(st.sampled_from("abcxyzCON019._-/\\:%~ \t\n\0é\u202e"), max_size=130)
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}


def leads_below(name: str) -> bool:
    """True if a path made of it stays in its folder on POSIX and on Windows, and is no device."""
    windows = PureWindowsPath("C:/folder", name)
    parts = (*PurePosixPath("/folder", name).parts[2:], *windows.parts[2:])
    return (PurePosixPath("/folder", name).is_relative_to("/folder") and windows.is_relative_to("C:/folder")
            and bool(parts) and ".." not in parts and not any(p.split(".")[0].strip(" ").lower() in DEVICES for p in parts)
            and not re.search(r'[\x00-\x1f\x7f<>:"|?*\\]', name))


@given(ALPHABET | st.from_regex(r"[a-z0-9][a-z0-9._/-]{0,130}", fullmatch=True))
@example("brand/../x")
@example("brand/nul/linux-amd64.json")
@example("com1")
@example("a/aux.json")
@example("a" * 121 + "\n")
def test_a8_a_target_name_that_is_taken_leads_below_its_folder(name: str) -> None:
    """A8."""
    if TARGET_NAME.fullmatch(name):
        assert leads_below(name)
        assert re.fullmatch("[a-z0-9][a-z0-9._/-]{0,120}", name)
        assert unquote(name) == name


@given(ALPHABET | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,125}", fullmatch=True))
@example("Nul.deb")
@example("con")
@example("LPT9.tar.gz")
def test_a8_a_file_name_that_is_taken_leads_below_its_folder(name: str) -> None:
    """A8."""
    try:
        msgspec.convert(name, FileName)
    except msgspec.ValidationError:
        return
    assert leads_below(name)
    assert "/" not in name
    assert not name.startswith(("-", "."))


@given(st.text(st.sampled_from("abcdeilmnoprtux0189-"), min_size=1, max_size=50), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
@example("con", 0, 0)
def test_a8_every_target_of_ours_has_a_name_that_is_taken(brand: str, vendor: int, product: int) -> None:
    """A8: the other way round."""
    assert TARGET_NAME.fullmatch(device_target(vendor, product, "windows", "amd64"))
    try:
        msgspec.convert(brand, Slug)
    except msgspec.ValidationError:
        assume(False)
    assert TARGET_NAME.fullmatch(brand_target(brand, "linux", "amd64"))


@pytest.mark.parametrize("name", ["console", "common", "auxiliary-1", "nul-terminated", "com10x", "lpt"])
def test_a8_names_that_only_begin_like_a_device_are_names(name: str) -> None:
    """A8: but nothing more is refused than has to be."""
    assert msgspec.convert(name, Slug) == name
    assert msgspec.convert(f"{name}.deb", FileName) == f"{name}.deb"
    assert TARGET_NAME.fullmatch(brand_target(name, "linux", "amd64"))


@pytest.mark.parametrize("length", [0, -1, 10_000_000_000, 2**64])
def test_a7_a_length_that_no_driver_has_is_refused_before_anything_is_fetched(length: int) -> None:
    """A7: ten gigabytes, for example."""
    data = json.dumps({"file": "a.deb", "sha256": "0" * 64, "length_bytes": length}).encode()
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=Payload)
