"""The tables of a Windows Installer database.

Microsoft has not published how tables lie in the file. This is after Wine's `dlls/msi/{table,string}.c` (LGPL; read, not
copied) and is held against msitools in the tests: stream names are packed two characters into one; `_StringPool` and
`_StringData` hold all texts; `_Columns` describes the columns; a table's rows lie column after column.
"""

from collections.abc import Iterator, Mapping
from struct import unpack, unpack_from

from msgspec import Struct

from keyfit.publisher.inspection.cfb import STREAM, CompoundFile, Entry
from keyfit.publisher.inspection.source import Malformed

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_TABLE_MARK = "\u4840"
_VALID, _STRING, _NULLABLE = 0x0100, 0x0800, 0x1000
MAX_TABLE_BYTES = 64 * 1024 * 1024
MAX_COLUMNS = 32
"""Windows Installer's own limit (learn.microsoft.com: "Database Limits")."""
MAX_ROWS = 200_000

Row = Mapping[str, str | int | None]


def unpacked_name(name: bytes) -> str:
    """A stream's name as the database means it; tables begin with U+4840."""
    text = ""
    for char in name.decode("utf-16-le", "replace"):
        code = ord(char)
        if 0x3800 <= code < 0x4800:
            text += _ALPHABET[(code - 0x3800) & 0x3F] + _ALPHABET[(code - 0x3800) >> 6]
        elif 0x4800 <= code < 0x4840:
            text += _ALPHABET[code - 0x4800]
        else:
            text += char
    return text


class _Column(Struct, frozen=True):
    name: str
    kind: int

    @property
    def is_text(self) -> bool:
        return bool(self.kind & _STRING) and not self.is_stream

    @property
    def is_stream(self) -> bool:
        return self.kind & ~_NULLABLE & 0xFFFF == _STRING | _VALID

    def width(self, reference: int) -> int:
        if self.is_stream:
            return 2
        if self.kind & _STRING:
            return reference
        return 4 if self.kind & 0xFF == 4 else 2


class Database:
    """Reads tables by name.

    Raises:
        Malformed: the text pool or the description of the columns is not in the form.
    """

    def __init__(self, container: CompoundFile) -> None:
        self._container = container
        self.streams: dict[str, Entry] = {}
        for entry in container.children(container.root):
            if entry.kind == STREAM:
                self.streams[unpacked_name(entry.name)] = entry
        pool = self._table_bytes("_StringPool")
        if pool is None or len(pool) < 4:
            raise Malformed("expected a Windows Installer database, there is no text pool")
        self._reference = 3 if pool[3] & 0x80 else 2
        self._texts = list(_texts(pool, self._table_bytes("_StringData") or b""))
        self._columns: dict[str, list[_Column]] = {}
        for table, _, name, kind in self._raw_rows("_Columns", [_Column("Table", _STRING), _Column("Number", 2),
                                                                _Column("Name", _STRING), _Column("Type", 2)]):
            self._columns.setdefault(str(table), []).append(_Column(str(name), int(kind or 0)))

    def rows(self, table: str) -> Iterator[Row]:
        """The rows of a table, by column; none if there is no such table."""
        columns = self._columns.get(table, [])
        if len(columns) > MAX_COLUMNS:
            raise Malformed(f"expected at most {MAX_COLUMNS} columns in {table!a}, came {len(columns)}")
        for values in self._raw_rows(table, columns):
            yield dict(zip((column.name for column in columns), values, strict=True))

    def tables(self) -> list[str]:
        """Names of all tables that have columns."""
        return sorted(self._columns)

    def stream(self, name: str) -> Entry | None:
        """A stream that is no table, such as "Binary.setup" or a cabinet."""
        return self.streams.get(name)

    def _table_bytes(self, name: str) -> bytes | None:
        entry = self.streams.get(_TABLE_MARK + name)
        return None if entry is None else self._container.read(entry, MAX_TABLE_BYTES)

    def _raw_rows(self, table: str, columns: list[_Column]) -> Iterator[tuple[str | int | None, ...]]:
        data = self._table_bytes(table) or b""
        width = sum(column.width(self._reference) for column in columns)
        count = len(data) // width if width else 0
        if count > MAX_ROWS or (width and len(data) % width):
            raise Malformed(f"expected rows of {width} bytes in {table!a}, came {len(data)} bytes")
        values: list[list[str | int | None]] = []
        position = 0
        for column in columns:
            size = column.width(self._reference)
            values.append([self._value(column, data, position + row * size, size) for row in range(count)])
            position += count * size
        yield from zip(*values, strict=True)

    def _value(self, column: _Column, data: bytes, position: int, size: int) -> str | int | None:
        number = int.from_bytes(data[position : position + size], "little")
        if column.is_text:
            if number >= len(self._texts):
                raise Malformed("expected the number of a text in the pool")
            return self._texts[number]
        if number == 0 or column.is_stream:
            return None
        return number - (0x8000_0000 if size == 4 else 0x8000)


def _texts(pool: bytes, data: bytes) -> Iterator[str]:
    """All texts in the order of their numbers; number 0 is the empty one."""
    codepage = unpack_from("<I", pool)[0] & 0x7FFFFFFF
    encoding = _encoding(codepage)
    words = unpack(f"<{len(pool) // 2}H", pool[: len(pool) // 2 * 2])
    yield ""
    position, index = 0, 2
    while index + 1 < len(words):
        length, references = words[index], words[index + 1]
        index += 2
        if not length and references:  # longer than 64 KiB: the next pair is the length
            if index + 1 >= len(words):
                raise Malformed("expected the length of a long text")
            length = words[index + 1] << 16 | words[index]
            index += 2
        if position + length > len(data):
            raise Malformed("expected all texts inside the text data")
        yield data[position : position + length].decode(encoding, "replace")
        position += length


def _encoding(codepage: int) -> str:
    import codecs

    name = "utf-8" if codepage == 65001 else f"cp{codepage}" if codepage else "latin-1"
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "latin-1"


def summary(data: bytes) -> dict[int, str | int]:
    """The properties of a summary information stream ([MS-OLEPS]: PropertySetStream, one set; texts and numbers only).

    Raises:
        Malformed: it is not in the form.
    """
    def number(position: int) -> int:
        if position + 4 > len(data):
            raise Malformed("expected a property inside the summary information")
        return int(unpack_from("<I", data, position)[0])

    start, found = number(44), dict[int, str | int]()
    for index in range(min(number(start + 4), 64)):
        identifier, place = number(start + 8 + 8 * index), start + number(start + 12 + 8 * index)
        kind = number(place) & 0xFFFF
        if kind in (2, 3):  # VT_I2, VT_I4
            found[identifier] = number(place + 4)
        elif kind == 30:  # VT_LPSTR
            text = data[place + 8 : place + 8 + min(number(place + 4), 65_536)]
            found[identifier] = text.rstrip(b"\0").decode("utf-8", "replace")
    return found
