"""Windows driver packages: an INF, the files that it names, and a catalogue of their hashes, written here and signed by
osslsigncode. No tool on this system makes catalogues, so the list itself is encoded after what real ones look like
(szOID_CTL with a member per file; see `keyfit.publisher.inspection.catalogue`)."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.sim import signing

INF = """; made for tests
[Version]
Signature="$Windows NT$"
Class=SmartCardReader
ClassGuid={{50dd5230-ba8a-11d1-bf5d-0000f805f530}}
Provider=%Vendor%
DriverVer=06/01/2026,1.2.3.0
CatalogFile=acme.cat

[SourceDisksNames]
1="disk"
[SourceDisksFiles]
{file}=1
[DestinationDirs]
DefaultDestDir=13

[Manufacturer]
%Vendor%=Models,NTamd64
[Models.NTamd64]
%Device%=Install,USB\\VID_1234&PID_0001
%Device%=Install,USB\\VID_1234&PID_0002&MI_00

[Install.NT]
CopyFiles=Files
AddReg=Settings
[Files]
{file}
[Settings]
HKLM,"SOFTWARE\\Microsoft\\Cryptography\\Calais\\SmartCards\\Acme","80000001",0,"{file}"
HKR,,"Speed",0x00010001,7
[Install.NT.Services]
AddService=,2
{more}
[Strings]
Vendor="Acme Ltd."
Device="Acme One"
"""


def inf(file: str = "acme.dll", more: str = "", **changes: str) -> str:
    """An INF that is sound. `more` are further sections; `changes` replace words."""
    text = INF.format(file=file, more=more)
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


_ATTRIBUTES = {"OS": "2:10.0,2:10.0.22000", "OSAttr": "2:10.0", "HWID1": "usb\\vid_1234&pid_0001",
               "HWID2": "usb\\vid_1234&pid_0002&mi_00"}
"""What inf2cat notes in a catalogue beside the files."""


def catalogue(folder: Path, files: Mapping[str, bytes], identity: signing.Identity, *options: str) -> bytes:
    """A signed catalogue over files; programs count by their Authenticode hash, which the caller has put in `files`' place."""
    members = [_member(data) for data in files.values()]
    ctl = _sequence(_sequence(_oid("1.3.6.1.4.1.311.12.1.1")), _octets(b"0123456789abcdef"), _utc(datetime.now(UTC)),
                    _sequence(_oid("1.3.6.1.4.1.311.12.1.2"), b"\x05\x00"), _sequence(*members),
                    _tagged(0xA0, _sequence(*map(_named, _ATTRIBUTES.items()))))
    unsigned = _sequence(_oid("1.2.840.113549.1.7.2"), _tagged(0xA0, _sequence(
        b"\x02\x01\x01", _tagged(0x31), _sequence(_oid("1.3.6.1.4.1.311.10.1"), _tagged(0xA0, ctl)), _tagged(0x31))))
    source, target = folder / "unsigned.cat", folder / "signed.cat"
    source.write_bytes(unsigned)
    target.unlink(missing_ok=True)
    return signing.sign(identity, source, target, "-h", "sha256", *options).read_bytes()


def plain_hash(data: bytes) -> bytes:
    """What a catalogue has for a file that is no program."""
    return hashlib.sha256(data).digest()


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _member(digest: bytes) -> bytes:
    info = _sequence(_sequence(_oid("1.3.6.1.4.1.311.2.1.25"), _tagged(0xA2, _tagged(0x80))),
                     _sequence(_sequence(_oid("2.16.840.1.101.3.4.2.1"), b"\x05\x00"), _octets(digest)))
    return _sequence(_octets(digest), _tagged(0x31, _sequence(_oid("1.3.6.1.4.1.311.2.1.4"), _tagged(0x31, info))))


def _named(attribute: tuple[str, str]) -> bytes:
    """An extension with a name and a value (CAT_NAMEVALUE, wintrust.h)."""
    name, value = attribute
    pair = _sequence(_tagged(0x1E, name.encode("utf-16-be")), b"\x02\x04\x10\x01\x00\x01",
                     _octets((value + "\0").encode("utf-16-le")))
    return _sequence(_oid("1.3.6.1.4.1.311.12.2.1"), _octets(pair))


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, *parts)


def _octets(data: bytes) -> bytes:
    return _tagged(0x04, data)


def _utc(moment: datetime) -> bytes:
    return _tagged(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def _tagged(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    return _tagged(0x06, b"".join(_base128(number) for number in (first * 40 + second, *rest)))


def _base128(number: int) -> bytes:
    groups: Sequence[int] = [number & 0x7F]
    while number := number >> 7:
        groups = [number & 0x7F | 0x80, *groups]
    return bytes(groups)
