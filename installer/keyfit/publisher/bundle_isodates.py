"""Sets every date in an ISO 9660 image, since the library that writes it puts the time of writing there.

Sources: ECMA-119, third edition, 8.4 (volume descriptors), 9.1 (directory records); IEEE P1282 (Rock Ridge), 4.1.6 "TF";
IEEE P1281 (SUSP), 5.1 "CE".
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_SECTOR = 2048
_FIRST_DESCRIPTOR = 16
_PRIMARY, _SUPPLEMENTARY, _LAST = 1, 2, 255
_ROOT_RECORD_AT = 156
_VOLUME_DATES_AT = (813, 830, 864)
"""Creation, modification and effective date."""
_EXPIRATION_AT = 847
_UNSET = b"0" * 16 + b"\0"
_LONG_FORM = 0x80
_DIRECTORY = 0x02


def set_dates(image: Path, moment: datetime) -> None:
    """Date the volume and every file and folder in it `moment`.

    Raises:
        OSError: the image cannot be changed.
    """
    with image.open("r+b") as file:
        _Dates(file, moment.astimezone(UTC)).set()


class _Dates:
    """One image."""

    def __init__(self, file: BinaryIO, at: datetime) -> None:
        self._file = file
        self._short = bytes([at.year - 1900, at.month, at.day, at.hour, at.minute, at.second, 0])
        self._long = at.strftime("%Y%m%d%H%M%S").encode() + b"00\0"
        self._seen: set[int] = set()

    def set(self) -> None:
        """All descriptors, and the folders that each leads to."""
        number = _FIRST_DESCRIPTOR
        while (kind := self._read(number * _SECTOR, 1)[0]) != _LAST:
            if kind in (_PRIMARY, _SUPPLEMENTARY):
                for at in _VOLUME_DATES_AT:
                    self._write(number * _SECTOR + at, self._long)
                self._write(number * _SECTOR + _EXPIRATION_AT, _UNSET)
                root = number * _SECTOR + _ROOT_RECORD_AT
                self._write(root + 18, self._short)
                self._folder(*struct.unpack("<I4xI", self._read(root + 2, 12)))
            number += 1

    def _folder(self, sector: int, length: int) -> None:
        waiting = [(sector, length)]
        while waiting:
            sector, length = waiting.pop()
            if sector in self._seen:
                continue
            self._seen.add(sector)
            for at in self._records(sector, length):
                self._write(at + 18, self._short)
                head = self._read(at, 34)
                if head[25] & _DIRECTORY:
                    waiting.append(struct.unpack("<I4xI", head[2:14]))
                name_end = 33 + head[32] + (1 - head[32] % 2)
                self._system_use(at + name_end, at + head[0])

    def _records(self, sector: int, length: int) -> Iterator[int]:
        """Where the folder's records begin. None crosses the end of a sector; what is left there is zero."""
        start = sector * _SECTOR
        at = start
        while at < start + length:
            size = self._read(at, 1)[0]
            if size == 0:
                at += _SECTOR - at % _SECTOR
                continue
            yield at
            at += size

    def _system_use(self, at: int, end: int) -> None:
        """Rock Ridge's dates, and where the entries go on."""
        while at + 4 <= end:
            head = self._read(at, 28)
            signature, size = head[:2], head[2]
            if size < 4:
                return
            if signature == b"TF":
                self._time_stamps(at, head[4])
            elif signature == b"CE":
                block, offset, length = struct.unpack("<I4xI4xI", head[4:24])
                self._system_use(block * _SECTOR + offset, block * _SECTOR + offset + length)
            at += size

    def _time_stamps(self, at: int, flags: int) -> None:
        date = self._long if flags & _LONG_FORM else self._short
        for number in range((flags & 0x7F).bit_count()):
            self._write(at + 5 + number * len(date), date)

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)

    def _write(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)
