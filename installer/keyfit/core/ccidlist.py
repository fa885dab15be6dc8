"""The list of USB readers in a PC/SC driver bundle's `Info.plist`: read it, add one entry, take it back.

The file is read as pcsc-lite reads it, not as XML: real bundles hold `<array>` elements that are never closed, and what
counts is what the daemon makes of them. Its lexer (pcsc-lite, `src/tokenparser.l`) works line by line and knows three
things: `#` starts a comment up to the end of the line, `<key>..</key>` of letters, digits and blanks, and
`<string>..</string>` up to the last `</string>` of the line. A string belongs to the key before it; XML comments and
arrays mean nothing. That was checked against the daemon of Debian 12 (pcscd 1.9.9), line by line.

A daemon that meets lists of unequal length stops reading driver bundles altogether (`HPReadBundleValues` in
`src/hotplug_libudev.c`), which disables every reader of the machine. So nothing here returns such a file.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from keyfit.core.text import clean
from keyfit.errors import DataError

KEYS = ("ifdVendorID", "ifdProductID", "ifdFriendlyName")
"""The three lists whose n-th members belong together (pcsc-lite, `src/hotplug_libudev.c`)."""
MAX_BYTES = 2_000_000
"""Cap on a file: 60 times the libccid list of Debian 12."""
FRIENDLY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,59}")
"""Names that may be written: the alphabet of `CcidListEntry.friendly_name`, which no lexer and no XML parser minds."""

_TOKEN = re.compile(rb"#|<key>([A-Za-z0-9 \t]+)</key>|<string>")
_CLOSE = b"</string>"
_OWN_LINE = re.compile(rb"\r?\n[ \t]*\Z")
_HEX = re.compile(rb"[ \t]*(?:0[xX])?([0-9A-Fa-f]{1,8})")


class CcidEntry(Struct, frozen=True, kw_only=True):
    """One reader of the list."""

    id_vendor: int
    id_product: int
    friendly_name: str


class CcidList(Struct, frozen=True, kw_only=True):
    """The three lists as they stand in the file, which may be of unequal length."""

    vendor_ids: tuple[int, ...] = ()
    product_ids: tuple[int, ...] = ()
    friendly_names: tuple[str, ...] = ()

    @property
    def even(self) -> bool:
        """True if the three lists are of equal length; the daemon uses no driver at all otherwise."""
        return len(self.vendor_ids) == len(self.product_ids) == len(self.friendly_names)

    def entries(self) -> tuple[CcidEntry, ...]:
        """The readers that the daemon knows through this file: none if the lists are of unequal length."""
        if not self.even:
            return ()
        return tuple(CcidEntry(id_vendor=v, id_product=p, friendly_name=n)
                     for v, p, n in zip(self.vendor_ids, self.product_ids, self.friendly_names, strict=True))


class _Value(Struct, frozen=True):
    """A `<string>` and where it lies in the file."""

    text: bytes
    start: int
    end: int


class _Scan(Struct):
    """What the lexer finds: per key the number of times it appears, and its values (of its last appearance)."""

    values: dict[str, list[_Value]]
    seen: dict[str, int]


def parse(data: bytes) -> CcidList:
    """Read the lists as the daemon does. Never fails: what is no list is empty, what is no number is 0 (strtol)."""
    values = _scan(data).values
    vendors, products, names = (values.get(key, []) for key in KEYS)
    return CcidList(vendor_ids=tuple(_number(v.text) for v in vendors),
                    product_ids=tuple(_number(v.text) for v in products),
                    friendly_names=tuple(_name(v.text) for v in names))


def problems(data: bytes) -> tuple[str, ...]:
    """Everything that is wrong with the list, one line each; empty if it can be edited safely."""
    if len(data) > MAX_BYTES:
        return (f"The file has {len(data)} bytes; at most {MAX_BYTES} are read.",)
    scan = _scan(data)
    found = [f"{key} is missing." for key in KEYS if key not in scan.seen]
    found += [f"{key} appears {scan.seen[key]} times." for key in KEYS if scan.seen.get(key, 0) > 1]
    lists = parse(data)
    if not lists.even:
        found.append(f"The lists are of unequal length: {len(lists.vendor_ids)} vendor ids, "
                     f"{len(lists.product_ids)} product ids, {len(lists.friendly_names)} names.")
    for key in KEYS:
        for position, value in enumerate(scan.values.get(key, []), 1):
            found += _value_problems(key, position, value.text)
    return tuple(found + _duplicates(lists))


def add_entry(data: bytes, id_vendor: int, id_product: int, friendly_name: str) -> bytes:
    """Append one reader to the three lists; every other byte stays as it is.

    Raises:
        DataError: the file has problems already ("ccid-list-broken"), the values cannot be written
            ("ccid-list-entry"), or the pair is listed already ("ccid-list-duplicate").
    """
    _check_values(id_vendor, id_product, friendly_name)
    _refuse_broken(data)
    before = parse(data)
    if any((e.id_vendor, e.id_product) == (id_vendor, id_product) for e in before.entries()):
        raise DataError("ccid-list-duplicate", f"{id_vendor:04X}:{id_product:04X} is in the list already.")
    scan = _scan(data)
    texts = (f"0x{id_vendor:04X}", f"0x{id_product:04X}", friendly_name)
    inserts = []
    for key, text in zip(KEYS, texts, strict=True):
        values = scan.values.get(key)
        if not values:
            raise DataError("ccid-list-broken", f"The list {key} is empty; there is no place for an entry.")
        last = values[-1]
        line = _separator(data, last.start) or b"\n"
        inserts.append((last.end, last.end, line + b"<string>" + text.encode("ascii") + _CLOSE))
    changed = _replace(data, inserts)
    wanted = (*before.entries(), CcidEntry(id_vendor=id_vendor, id_product=id_product, friendly_name=friendly_name))
    return _checked(changed, wanted)


def remove_entry(data: bytes, id_vendor: int, id_product: int, friendly_name: str) -> bytes:
    """Take exactly that reader out again; without it in the list, return `data` as it is.

    After `add_entry` with the same values this gives back the original, byte for byte.

    Raises:
        DataError: "ccid-list-broken": the file has problems, so that what belongs together cannot be told.
    """
    _refuse_broken(data)
    before = parse(data).entries()
    entry = CcidEntry(id_vendor=id_vendor, id_product=id_product, friendly_name=clean(friendly_name))
    if entry not in before:
        return data
    index = len(before) - 1 - before[::-1].index(entry)
    scan = _scan(data)
    cuts = []
    for key in KEYS:
        value = scan.values[key][index]
        cuts.append((value.start - len(_separator(data, value.start)), value.end, b""))
    return _checked(_replace(data, cuts), before[:index] + before[index + 1 :])


def _scan(data: bytes) -> _Scan:
    scan = _Scan(values={}, seen={})
    key = ""
    offset = 0
    for line in data[:MAX_BYTES].split(b"\n"):
        for name, value in _tokens(line, offset):
            if value is not None:
                scan.values.setdefault(key, []).append(value)
            else:
                key = name
                scan.seen[key] = scan.seen.get(key, 0) + 1
                scan.values[key] = []
        offset += len(line) + 1
    return scan


def _tokens(line: bytes, offset: int) -> Iterator[tuple[str, _Value | None]]:
    """Keys (name, None) and strings ("", value) of one line."""
    close = line.rfind(_CLOSE)
    position = 0
    while match := _TOKEN.search(line, position):
        if match.group() == b"#":
            return
        position = match.end()
        if match.group(1) is not None:
            yield match.group(1).decode("ascii"), None
        elif close > position:
            yield "", _Value(line[position:close], offset + match.start(), offset + close + len(_CLOSE))
            position = close + len(_CLOSE)


def _number(text: bytes) -> int:
    match = _HEX.match(text)
    return int(match.group(1), 16) if match else 0


def _name(text: bytes) -> str:
    """`&amp;` is the one entity that the daemon undoes."""
    return clean(text.decode("utf-8", "replace").replace("&amp;", "&"))


def _value_problems(key: str, position: int, text: bytes) -> list[str]:
    if b"<" in text:
        return [f"{key} {position} shares its line with another value."]
    if key == KEYS[2]:
        return []
    match = _HEX.fullmatch(text.strip(b" \t"))
    if match is None or int(match.group(1), 16) > 0xFFFF:
        return [f"{key} {position} is no USB id: {clean(text.decode('ascii', 'replace'), 20)!r}."]
    return []


def _duplicates(lists: CcidList) -> list[str]:
    seen: set[tuple[int, int]] = set()
    found = []
    for pair in zip(lists.vendor_ids, lists.product_ids, strict=False):
        if pair in seen:
            found.append(f"{pair[0]:04X}:{pair[1]:04X} is listed twice.")
        seen.add(pair)
    return found


def _check_values(id_vendor: int, id_product: int, friendly_name: str) -> None:
    if not (0 <= id_vendor <= 0xFFFF and 0 <= id_product <= 0xFFFF):
        raise DataError("ccid-list-entry", f"USB ids have 16 bits, not {id_vendor:#x} and {id_product:#x}.")
    if FRIENDLY_NAME.fullmatch(friendly_name) is None or clean(friendly_name) != friendly_name:
        raise DataError("ccid-list-entry", f"A reader cannot be named {clean(friendly_name, 60)!r}.",
                        hint="Use letters, digits, single blanks and ._+()/- only.")


def _refuse_broken(data: bytes) -> None:
    found = problems(data)
    if found:
        raise DataError("ccid-list-broken", "The list of readers is damaged, so it is not edited: " + found[0], found,
                        hint="Install the driver's package again to get a sound list.")


def _separator(data: bytes, start: int) -> bytes:
    """Line break and indentation right before a value; empty if something else stands before it on its line."""
    match = _OWN_LINE.search(data[max(0, start - 200) : start])
    return match.group() if match else b""


def _replace(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for start, end, new in sorted(edits, reverse=True):
        data = data[:start] + new + data[end:]
    return data


def _checked(data: bytes, wanted: tuple[CcidEntry, ...]) -> bytes:
    """The edited file, after reading it back."""
    if problems(data) or parse(data).entries() != wanted:
        raise DataError("ccid-list-broken", "The list of readers is laid out in a way that cannot be edited safely.",
                        hint="Install the driver's package again to get a sound list.")
    return data
