"""PC/SC through ctypes: which readers are there, and what card answered in each.

Only four calls are bound: making and giving back a context, listing readers, and asking for their state. Nothing here
connects to a card. Sources: pcsc-lite's `pcsclite.h`, `winscard.h` and `wintypes.h`; for Windows learn.microsoft.com,
`SCardListReadersA` and `SCARD_READERSTATEA`; for macOS the SDK's `PCSC/pcsclite.h` and `PCSC/wintypes.h`.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keyfit.core.text import clean
from keyfit.model.certificate import Reader
from keyfit.token.protocol import MAX_READER_NAME, MAX_READERS, PcscError, ReadersAnswer

SCARD_SCOPE_SYSTEM = 2
SCARD_STATE_UNAWARE = 0
SCARD_STATE_PRESENT = 0x20
SUCCESS = 0
TIMEOUT = 0x8010000A
NO_READERS = 0x8010002E
NO_SERVICE = 0x8010001D
SERVICE_STOPPED = 0x8010001E
NO_ACCESS = 0x8010006A
"""`SCARD_W_SECURITY_VIOLATION`: the daemon refuses this user (polkit)."""
ERRORS = {
    0x80100001: "SCARD_F_INTERNAL_ERROR",
    0x80100004: "SCARD_E_INVALID_PARAMETER",
    0x80100006: "SCARD_E_NO_MEMORY",
    0x80100008: "SCARD_E_INSUFFICIENT_BUFFER",
    0x80100009: "SCARD_E_UNKNOWN_READER",
    TIMEOUT: "SCARD_E_TIMEOUT",
    0x80100013: "SCARD_F_COMM_ERROR",
    0x80100017: "SCARD_E_READER_UNAVAILABLE",
    NO_SERVICE: "SCARD_E_NO_SERVICE",
    SERVICE_STOPPED: "SCARD_E_SERVICE_STOPPED",
    NO_READERS: "SCARD_E_NO_READERS_AVAILABLE",
    NO_ACCESS: "SCARD_W_SECURITY_VIOLATION",
}
"""Return values by name (pcsc-lite, `pcsclite.h.in`; Windows `winerror.h` has the same numbers)."""
MAX_LIST_BYTES = MAX_READERS * (MAX_READER_NAME + 1) + 1

LIBRARIES = {"win32": "winscard.dll", "darwin": "/System/Library/Frameworks/PCSC.framework/PCSC"}
LIBRARY = "libpcsclite.so.1"
"""Library by platform; every other system has pcsc-lite's (package libpcsclite1 in Debian)."""


class PcscFailed(Exception):
    """A call failed; `code` is its return value as an unsigned 32-bit number."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {ERRORS.get(code, f'0x{code:08X}')}")
        self.code = code


class Abi:
    """The types of one platform.

    Linux: DWORD and LONG are `unsigned long` and `long`, also where these have 64 bits, and SCARDCONTEXT is a LONG
    (pcsc-lite, `wintypes.h`, `pcsclite.h`). macOS: DWORD is `uint32_t`, LONG and SCARDCONTEXT `int32_t`, the structure
    is packed to single bytes. Windows: 32-bit DWORD and LONG, SCARDCONTEXT is as wide as a pointer, rgbAtr has 36 bytes.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        wide = platform not in ("win32", "darwin")
        self.dword: Any = ctypes.c_ulong if wide else ctypes.c_uint32
        self.long: Any = ctypes.c_long if wide else ctypes.c_int32
        self.context: Any = ctypes.c_size_t if platform == "win32" else self.long
        self.atr_bytes = 36 if platform == "win32" else 33
        self.suffix = "A" if platform == "win32" else ""
        self.encoding = "mbcs" if sys.platform == "win32" else "utf-8"
        fields = [
            ("szReader", ctypes.c_char_p),
            ("pvUserData", ctypes.c_void_p),
            ("dwCurrentState", self.dword),
            ("dwEventState", self.dword),
            ("cbAtr", self.dword),
            ("rgbAtr", ctypes.c_ubyte * self.atr_bytes),
        ]
        space: dict[str, Any] = {"_fields_": fields}
        if platform == "darwin":
            space = {"_pack_": 1, "_layout_": "ms", **space}
        self.reader_state: Any = type("ReaderState", (ctypes.Structure,), space)


def list_readers(check: Callable[[], None] = lambda: None) -> ReadersAnswer:
    """The readers and the answers-to-reset of the cards in them.

    Args:
        check: called between the calls; may raise to stop.
    """
    try:
        library = _load()
    except OSError as error:
        return ReadersAnswer(error="no-library", detail=clean(str(error), 200))
    try:
        return ReadersAnswer(readers=tuple(_Calls(library, Abi(), check).readers()))
    except PcscFailed as error:
        return ReadersAnswer(error=_kind(error.code), detail=str(error))


def _kind(code: int) -> PcscError:
    if code in (NO_SERVICE, SERVICE_STOPPED):
        return "no-daemon"
    return "no-access" if code == NO_ACCESS else "failed"


def _load() -> Any:
    name = LIBRARIES.get(sys.platform, LIBRARY)
    if sys.platform == "win32":
        return ctypes.WinDLL(name, winmode=0x800)  # LOAD_LIBRARY_SEARCH_SYSTEM32: never from the current folder
    return ctypes.CDLL(name)


class _Calls:
    """The bound functions."""

    def __init__(self, library: Any, abi: Abi, check: Callable[[], None]) -> None:
        self._library, self._abi, self._check = library, abi, check

    def readers(self) -> Iterator[Reader]:
        with self._context() as context:
            names = self._names(context)
            if not names:
                return
            states = (self._abi.reader_state * len(names))()
            for state, name in zip(states, names, strict=True):
                state.szReader, state.dwCurrentState = name, SCARD_STATE_UNAWARE
            code = self._call("SCardGetStatusChange" + self._abi.suffix, context, self._abi.dword(0), states,
                              self._abi.dword(len(names)))
            if code not in (SUCCESS, TIMEOUT):
                raise PcscFailed("SCardGetStatusChange", code)
            for state, name in zip(states, names, strict=True):
                yield Reader(name=clean(name.decode(self._abi.encoding, "replace"), MAX_READER_NAME), atr=_atr(state))

    @contextmanager
    def _context(self) -> Iterator[Any]:
        context = self._abi.context()
        code = self._call("SCardEstablishContext", self._abi.dword(SCARD_SCOPE_SYSTEM), None, None,
                          ctypes.byref(context))
        if code != SUCCESS:
            raise PcscFailed("SCardEstablishContext", code)
        try:
            yield context
        finally:
            self._call("SCardReleaseContext", context, checked=False)

    def _names(self, context: Any) -> list[bytes]:
        """Readers by name: a multi-string, each name ending in NUL and the list in one more."""
        buffer = ctypes.create_string_buffer(MAX_LIST_BYTES)
        length = self._abi.dword(MAX_LIST_BYTES)
        code = self._call("SCardListReaders" + self._abi.suffix, context, None, buffer, ctypes.byref(length))
        if code == NO_READERS:
            return []
        if code != SUCCESS:
            raise PcscFailed("SCardListReaders", code)
        return [name for name in buffer.raw[: min(length.value, MAX_LIST_BYTES)].split(b"\0") if name][:MAX_READERS]

    def _call(self, name: str, *arguments: Any, checked: bool = True) -> int:
        if checked:
            self._check()
        function = getattr(self._library, name)
        function.restype = self._abi.long
        return int(function(*arguments)) & 0xFFFFFFFF


def _atr(state: Any) -> str:
    if not state.dwEventState & SCARD_STATE_PRESENT:
        return ""
    return bytes(state.rgbAtr[: min(state.cbAtr, 33)]).hex().upper()
