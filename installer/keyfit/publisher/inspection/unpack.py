"""Opens the compressed streams that packages are made of. Nothing is written; what comes out is capped."""

import bz2
import gzip
import lzma
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from keyfit.publisher.inspection.limits import MAX_UNPACKED_BYTES
from keyfit.publisher.inspection.source import Capped, Malformed, Readable, Source

_ZSTD = Path("/usr/bin/zstd")
_ready: "list[subprocess.Popen[bytes]]" = []
"""Started and waiting for a stream."""
MAX_LZMA_MEMORY = 512 * 1024 * 1024
"""xz -9 asks for 64 MiB; the format would allow 4 GiB (xz(1))."""
_MAGIC = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bz2"), (b"\x28\xb5\x2f\xfd", "zst"))
"""RFC 1952; the .xz file format, 2.1.1.1; bzip2; RFC 8878, 3.1.1."""


def compression(source: Source) -> str:
    """"gz", "xz", "bz2", "zst", or "" if it begins like none of them."""
    first = source.read(0, min(8, source.size))
    return next((name for magic, name in _MAGIC if first.startswith(magic)), "")


@contextmanager
def unpacked(source: Source, limit: int = MAX_UNPACKED_BYTES) -> Iterator[Capped]:
    """What a compressed stretch holds, as a stream that can only be read forward.

    Raises:
        Malformed: it is damaged, or more than `limit` bytes come out of it.
    """
    name = compression(source)
    if name == "zst":
        with _zstd(source) as stream:
            yield Capped(stream, limit)
        return
    readers: dict[str, Callable[[], Readable]] = {
        "gz": lambda: gzip.GzipFile(fileobj=source.stream()), "xz": lambda: _Xz(source),
        "bz2": lambda: bz2.BZ2File(source.stream()), "": source.stream}
    yield Capped(readers[name](), limit)


class _Xz:
    """xz with a limit on memory, which `lzma.open` has not; several streams one after the other."""

    def __init__(self, source: Source) -> None:
        self._chunks = source.chunks()
        self._engine = self._fresh()
        self._waiting = b""

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_AUTO, memlimit=MAX_LZMA_MEMORY)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        while True:
            if self._engine.eof:
                rest = (self._engine.unused_data or next(self._chunks, b"")).lstrip(b"\0")
                if not rest:
                    return b""
                self._engine, self._waiting = self._fresh(), rest
            if self._engine.needs_input and not self._waiting:
                self._waiting = next(self._chunks, b"")
                if not self._waiting:
                    raise EOFError("the stream ends too early")
            data = self._engine.decompress(self._waiting, max_length=size)
            self._waiting = b""
            if data:
                return data


@contextmanager
def _zstd(source: Source) -> Iterator[Readable]:
    """Through the program zstd: Python has the format since 3.14 only. It gets the bytes by a pipe and no name."""
    if not _ZSTD.is_file():
        raise Malformed(f"this is packed with zstd; to look inside, {_ZSTD} is needed and is not there")
    try:
        child = _ready.pop() if _ready else _started()
    except OSError as error:
        raise Malformed("there are more parts packed with zstd than a package of this kind has") from error
    if child.stdin is None or child.stdout is None:
        raise Malformed("the program zstd could not be given a pipe")
    feeder = threading.Thread(target=_feed, args=(source, child.stdin), daemon=True)
    feeder.start()
    try:
        yield _ZstdOutput(child, child.stdout)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        feeder.join()


def start_unpackers(count: int) -> None:
    """Start the program zstd as often as it may be needed, for a process that will soon not be able to start any."""
    if _ZSTD.is_file():
        _ready.extend(_started() for _ in range(count))


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([_ZSTD, "--decompress", "--stdout", "--quiet", "--memory=512MB"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)


def _feed(source: Source, pipe: IO[bytes]) -> None:
    with suppress(OSError, Malformed), pipe:
        for piece in source.chunks():
            pipe.write(piece)


class _ZstdOutput:
    """What the program prints; its end counts only if the program was content."""

    def __init__(self, child: "subprocess.Popen[bytes]", output: IO[bytes]) -> None:
        self._child = child
        self._output = output

    def read(self, size: int, /) -> bytes:
        data = self._output.read(size)
        if not data and self._child.wait():
            raise EOFError("zstd says that it is damaged")
        return data
