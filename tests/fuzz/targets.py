"""What is fuzzed: each target takes any bytes and raises nothing but what it says is wrong with the code.

A target lets the errors through that its parser is documented to raise, and holds what comes out against what the rest of the
program relies on.
"""

import io
import os
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec

from keyfit import strictjson
from keyfit.core import ccidlist, descriptors
from keyfit.core.handoff import check_page
from keyfit.core.text import MAX_DEVICE_TEXT, clean
from keyfit.engine import archives
from keyfit.engine.archives.policy import Limits
from keyfit.engine.helper import messages
from keyfit.engine.helper.frames import BadFrame, Channel, ChannelClosed
from keyfit.errors import DataError, KeyfitError, PolicyError, TrustError
from keyfit.model.catalog import Grant, Manifest
from keyfit.model.certificate import ModuleReport
from keyfit.publisher.brandfile import parse_brand
from keyfit.publisher.inspection.inftext import read_inf
from keyfit.publisher.inspection.source import Malformed
from keyfit.token.protocol import MAX_SLOTS, safe_report
from keyfit.token.recording import parse_recording
from keyfit.trust.manifests import decode_grant, decode_manifest
from tests.sim.archivetable import BLOCK, FILES, checked

MANIFEST = "usb/1234/0001-linux-amd64.json"
GRANT = "grant/acme.json"
_SMALL = Limits(total_bytes=300_000, free_bytes=100_000, entries=64, seconds=20.0)
"""So that a bomb is one before it costs the fuzzer time."""


class Broken(Exception):
    """The code under test did what it never may."""


def request(data: bytes) -> None:
    """What the elevated helper reads first (security C3): a frame, in it a request."""
    reading, writing = os.pipe()
    try:
        os.write(writing, data[:60_000])
        os.close(writing)
        channel = Channel(reading, -1, patience_s=5.0)
        made = channel.receive(messages.Request)
    except (BadFrame, ChannelClosed) as error:
        _safe(error)
        return
    finally:
        os.close(reading)
    _same(made, messages.Request)


def json_request(data: bytes) -> None:
    """The same without a frame around it, so that the fuzzer has not to find one."""
    try:
        made: Any = strictjson.decode(data, messages.Request, max_bytes=65_536)  # type: ignore[arg-type]
    except ValueError as error:
        _one_line(str(error))
        return
    _same(made, messages.Request)


def manifest(data: bytes) -> None:
    """A signed manifest (security H4)."""
    try:
        made = decode_manifest(data, MANIFEST)
    except TrustError as error:
        _safe(error)
        return
    if made.path != MANIFEST:
        raise Broken("a manifest for another target")
    _same(made, Manifest)


def grant(data: bytes) -> None:
    """A signed grant (security H4)."""
    try:
        made = decode_grant(data, GRANT)
    except TrustError as error:
        _safe(error)
        return
    _same(made, Grant)


def archive(data: bytes) -> None:
    """An archive (security H3): what is taken has exactly the listed files."""
    try:
        hashes = archives.check(io.BytesIO(data), FILES, None, _SMALL)
    except archives.Refused as error:
        _one_line(str(error))
        return
    if set(hashes) != set(FILES):
        raise Broken("other files than those on the list")


def archive_names(data: bytes) -> None:
    """The names in an archive of any content."""
    total = 0
    try:
        for entry, content in archives.read(io.BytesIO(data), _SMALL):
            parts = entry.name.split("/")
            if entry.name.startswith("/") or ".." in parts or "\\" in entry.name or not entry.name.isprintable():
                raise Broken(f"the name {entry.name!a}")
            came = sum(map(len, content))
            if came != entry.size:
                raise Broken("another size than it said")
            total += came
    except archives.Refused as error:
        _one_line(str(error))
    if total > _SMALL.total_bytes:
        raise Broken("more than is allowed")


def archive_repaired(data: bytes) -> None:
    """A tar whose headers' check sums are put right before it is read, so that the fuzzer gets past them."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    made = b"".join(checked(block) if block[257:262] == b"ustar" and len(block) == BLOCK else block for block in blocks)
    archive(made)
    archive_names(made)


def usb_descriptors(data: bytes) -> None:
    """The bytes of a device (security H2)."""
    found = descriptors.parse(data)
    if (found is None) != (len(data) < descriptors.DEVICE_LENGTH):
        raise Broken("a device out of nothing, or none out of a whole one")
    if found is not None and not len(found.interfaces) <= descriptors.MAX_INTERFACES:
        raise Broken("too many interfaces")
    if found is not None and any(not 0 <= value <= 255 for each in found.interfaces for value in msgspec.structs.astuple(each)):
        raise Broken("a field out of range")


def ccid_list(data: bytes) -> None:
    """The list of readers: an edit is taken back to the byte, and never makes a list that the daemon would not read."""
    ccidlist.parse(data)
    try:
        changed = ccidlist.add_entry(data, 0x1234, 0x5678, "Fuzz Token 1")
    except DataError as error:
        _safe(error)
        return
    if ccidlist.problems(changed):
        raise Broken("an edited list with problems")
    if ccidlist.remove_entry(changed, 0x1234, 0x5678, "Fuzz Token 1") != data:
        raise Broken("not taken back to the byte")
    entry = next(iter(ccidlist.parse(data).entries()), None)
    if entry is not None:
        try:
            shorter = ccidlist.remove_entry(data, entry.id_vendor, entry.id_product, entry.friendly_name)
        except DataError:
            return
        if len(ccidlist.parse(shorter).entries()) != len(ccidlist.parse(data).entries()) - 1:
            raise Broken("more or less than one entry was taken out")


def driver_toml(data: bytes) -> None:
    """A brand's file, as a publisher gets it from somebody else."""
    brand, problems = parse_brand(data, "driver.toml")
    if (brand is None) != bool(problems):
        raise Broken("a brand with problems, or neither")
    for problem in problems:
        _one_line(problem)


def inf(data: bytes) -> None:
    """A Windows INF."""
    try:
        text = read_inf(data)
    except Malformed as error:
        _one_line(str(error))
        return
    text.values("version", "catalogfile")


def module_report(data: bytes) -> None:
    """What a child with a foreign module in it answers (security H1, H2)."""
    try:
        made = strictjson.decode(data, ModuleReport, max_bytes=1_000_000)
    except ValueError as error:
        _one_line(str(error))
        return
    safe = safe_report(made, "/module.so")
    if len(safe.slots) > MAX_SLOTS:
        raise Broken("too many slots")
    for slot in safe.slots:
        for text in (slot.slot, slot.label, slot.model, slot.manufacturer):
            _one_line(text)


def recording(data: bytes) -> None:
    """A recorded token."""
    try:
        parse_recording(data, "file")
    except DataError as error:
        _safe(error)


def text(data: bytes) -> None:
    """A string of a device (security H1), read as USB has it: UTF-16 with anything in it."""
    raw = data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace") if _pairs(data) else \
        data.decode("utf-8", "surrogateescape")
    shown = clean(raw)
    _one_line(shown)
    if len(shown) > MAX_DEVICE_TEXT or clean(shown) != shown:
        raise Broken("too long, or not the same when cleaned again")


def page(data: bytes) -> None:
    """An address that would be opened (security G2): what is let through is the same to every reader of addresses."""
    address = data.decode("utf-8", "surrogateescape")
    try:
        check_page(address)
    except PolicyError as error:
        _safe(error)
        return
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme != "https" or parts.netloc != host or not host.isascii() or host != host.lower() or "." not in host:
        raise Broken(f"let through: {address!a}")


def _pairs(data: bytes) -> bool:
    try:
        data.decode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _same(made: Any, kind: Any) -> None:
    """What was decoded is the same when it is written and read again."""
    if msgspec.json.decode(msgspec.json.encode(made), type=kind) != made:
        raise Broken("it changes when it is written and read again")


def _safe(error: KeyfitError) -> None:
    _one_line(error.message)
    _one_line(error.hint)


def _one_line(said: str) -> None:
    """One line of text that is safe to show."""
    for char in said:
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            raise Broken(f"said raw: {said[:200]!a}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (
        request, json_request, manifest, grant, archive, archive_names, archive_repaired, usb_descriptors, ccid_list, driver_toml,
        inf, module_report, recording, text, page)}
