"""Taking gzip off: one whole stream, in bounded steps, and nothing else."""

import gzip
import os
import struct
import time
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.trust.coding import CodingError, gunzip
from keyfit.trust.limits import CHUNK_BYTES


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start:start + size] for start in range(0, len(data), size))


@given(st.binary(max_size=3000), st.integers(1, 100), st.integers(0, 9))
def test_whatever_was_packed_comes_out(data: bytes, size: int, level: int) -> None:
    assert b"".join(gunzip(pieces(gzip.compress(data, level), size))) == data


@pytest.mark.parametrize("data", [os.urandom(3_000_000), bytes(3_000_000), b"ab" * 1_500_000],
                         ids=["random", "zeros", "repeats"])
@pytest.mark.parametrize("size", [1000, 65_536, 10_000_000])
def test_large_files_come_in_steps(data: bytes, size: int) -> None:
    steps = list(gunzip(pieces(gzip.compress(data), size)))

    assert b"".join(steps) == data
    assert max(map(len, steps)) <= CHUNK_BYTES


@pytest.mark.parametrize("cut", range(20))
def test_a_stream_without_its_end_is_refused(cut: int) -> None:
    """Every length that is too short, down to nothing at all; also those where all of the content is there."""
    whole = gzip.compress(b"")

    with pytest.raises(CodingError, match="without its end"):
        list(gunzip(iter([whole[:cut]])))


@pytest.mark.parametrize("more", [b"x", b"\0", gzip.compress(b"second")], ids=["letter", "zero", "member"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_anything_behind_the_stream_is_refused(more: bytes, size: int) -> None:
    with pytest.raises(CodingError, match="after its end"):
        list(gunzip(pieces(gzip.compress(b"first") + more, size)))


@given(st.binary(min_size=10, max_size=200), st.data())
def test_a_changed_byte_never_gives_other_content(data: bytes, draw: st.DataObject) -> None:
    packed = bytearray(gzip.compress(data, mtime=0))
    place = draw.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= draw.draw(st.integers(1, 255))

    try:
        out = b"".join(gunzip(iter([bytes(packed)])))
    except CodingError:
        return
    assert out == data  # fields of the header that say nothing about the content


@pytest.mark.parametrize("data", [b"", b"plain text", b"\x1f\x8b", zlib.compress(b"zlib, not gzip"), b"<html>"])
def test_what_is_no_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(CodingError):
        list(gunzip(iter([data])))


def endless(start: bytes, again: bytes) -> Iterator[bytes]:
    yield start
    while True:
        yield again


@pytest.mark.parametrize(("start", "again"), [
    (b"\x1f\x8b\x08\x00" + bytes(6), struct.pack("<BHH", 0, 0, 0xFFFF) * 1000),
    (b"\x1f\x8b\x08\x08" + bytes(6), b"name" * 1000),
    (b"\x1f\x8b\x08\x10" + bytes(6), b"comment" * 1000),
], ids=["empty-blocks", "name", "comment"])
def test_a7_input_without_end_that_holds_nothing_is_cut(start: bytes, again: bytes) -> None:
    """A7: it would pass every limit on what comes out, because nothing does."""
    with pytest.raises(CodingError, match="next to nothing"):
        list(gunzip(endless(start, again)))


def test_a7_little_content_buys_little_of_nothing() -> None:
    """A7: a well-packed beginning does not pay for an endless rest."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(bytes(50_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    came = 0

    def stream() -> Iterator[bytes]:
        nonlocal came
        for chunk in endless(start, struct.pack("<BHH", 0, 0, 0xFFFF) * 1000):
            came += len(chunk)
            yield chunk

    with pytest.raises(CodingError, match="next to nothing"):
        for _ in gunzip(stream()):
            pass
    assert came < len(start) + 1_000_000


def test_a7_a_bomb_is_taken_in_small_steps() -> None:
    """A7: whoever stops after the first step has not paid for the rest."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(500)) + packer.flush()
    began = time.process_time()

    first = next(gunzip(iter([bomb])))

    assert len(first) == CHUNK_BYTES
    assert time.process_time() - began < 0.1
