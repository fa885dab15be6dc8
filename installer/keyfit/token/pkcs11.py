"""The part of PKCS#11 2.40 that looks at a token without a login, through ctypes.

What is not bound cannot be called: there is no way from here to log in, to write, to sign or to reset anything
(security I1). Runs in the child process only. Section numbers are those of the OASIS standard "PKCS #11 Cryptographic
Token Interface Base Specification Version 2.40"; numbers and structures come from its header `pkcs11t.h`, the order
of the function list from `pkcs11f.h`.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PACK = 1 if sys.platform == "win32" else 0
"""Structures are packed to single bytes on Windows only (section 2.1, platform-specific directives); 0 is natural."""

CK_ULONG = ctypes.c_ulong
"""CK_ULONG is `unsigned long int` on every platform (pkcs11t.h): 32 bits on Windows."""

CKR_OK = 0
CKR_ARGUMENTS_BAD = 0x07
CKR_CANT_LOCK = 0x0A
CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191
CKR_BUFFER_TOO_SMALL = 0x150
RETURN_VALUES = {
    0x01: "CKR_CANCEL",
    0x02: "CKR_HOST_MEMORY",
    0x03: "CKR_SLOT_ID_INVALID",
    0x05: "CKR_GENERAL_ERROR",
    0x06: "CKR_FUNCTION_FAILED",
    CKR_ARGUMENTS_BAD: "CKR_ARGUMENTS_BAD",
    CKR_CANT_LOCK: "CKR_CANT_LOCK",
    0x12: "CKR_ATTRIBUTE_TYPE_INVALID",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x54: "CKR_FUNCTION_NOT_SUPPORTED",
    0xB1: "CKR_SESSION_COUNT",
    0xB3: "CKR_SESSION_HANDLE_INVALID",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNIZED",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    CKR_BUFFER_TOO_SMALL: "CKR_BUFFER_TOO_SMALL",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    CKR_CRYPTOKI_ALREADY_INITIALIZED: "CKR_CRYPTOKI_ALREADY_INITIALIZED",
}
"""Return values by name (pkcs11t.h); those that the bound functions return."""

CKF_OS_LOCKING_OK = 0x02
CKF_SERIAL_SESSION = 0x04
CKF_LOGIN_REQUIRED = 0x04
CKF_USER_PIN_INITIALIZED = 0x08
CKF_TOKEN_INITIALIZED = 0x400
CKF_USER_PIN_COUNT_LOW = 0x10000
CKF_USER_PIN_FINAL_TRY = 0x20000
CKF_USER_PIN_LOCKED = 0x40000
CKF_USER_PIN_TO_BE_CHANGED = 0x80000
CKA_CLASS = 0x00
CKA_LABEL = 0x03
CKA_VALUE = 0x11
CKO_CERTIFICATE = 0x01

FUNCTIONS = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetInfo": 2,
    "C_GetSlotList": 4,
    "C_GetSlotInfo": 5,
    "C_GetTokenInfo": 6,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
    "C_FindObjectsFinal": 28,
}
"""Place in CK_FUNCTION_LIST of everything that is ever called (pkcs11f.h)."""

MAX_SLOT_LIST = 256
"""A module that claims more slots than this is not believed."""
BATCH = 16

_arguments = [("create", ctypes.c_void_p), ("destroy", ctypes.c_void_p), ("lock", ctypes.c_void_p),
              ("unlock", ctypes.c_void_p), ("flags", CK_ULONG), ("pReserved", ctypes.c_void_p)]
_version = [("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte)]


def _structure(name: str, fields: list[tuple[str, Any]]) -> Any:
    packing = {"_pack_": PACK, "_layout_": "ms"} if PACK else {}
    return type(name, (ctypes.Structure,), {**packing, "_fields_": fields})


Version = _structure("Version", _version)
InitializeArguments = _structure("InitializeArguments", _arguments)
"""CK_C_INITIALIZE_ARGS (section 3.7)."""
FunctionList = _structure("FunctionList", [("version", Version),
                                           ("functions", ctypes.c_void_p * (max(FUNCTIONS.values()) + 1))])
"""The beginning of CK_FUNCTION_LIST (section 3.6)."""
LibraryInfo = _structure("LibraryInfo", [
    ("cryptokiVersion", Version), ("manufacturerID", ctypes.c_char * 32), ("flags", CK_ULONG),
    ("libraryDescription", ctypes.c_char * 32), ("libraryVersion", Version)])
"""CK_INFO (section 3.1)."""
SlotInfo = _structure("SlotInfo", [
    ("slotDescription", ctypes.c_char * 64), ("manufacturerID", ctypes.c_char * 32), ("flags", CK_ULONG),
    ("hardwareVersion", Version), ("firmwareVersion", Version)])
"""CK_SLOT_INFO (section 3.2)."""
TokenInfo = _structure("TokenInfo", [
    ("label", ctypes.c_char * 32), ("manufacturerID", ctypes.c_char * 32), ("model", ctypes.c_char * 16),
    ("serialNumber", ctypes.c_char * 16), ("flags", CK_ULONG), ("counts", CK_ULONG * 10),
    ("hardwareVersion", Version), ("firmwareVersion", Version), ("utcTime", ctypes.c_char * 16)])
"""CK_TOKEN_INFO (section 3.2). The serial number is part of the structure; nothing reads it."""
Attribute = _structure("Attribute", [("type", CK_ULONG), ("pValue", ctypes.c_void_p), ("ulValueLen", CK_ULONG)])
"""CK_ATTRIBUTE (section 3.3)."""


class Pkcs11Failed(Exception):
    """A function of the module failed, or the module answered what cannot be."""


class Module:
    """A loaded and initialised module. Use as a context manager; leaving it finalises the module.

    Args:
        path: absolute path of the library.
        check: called before every call into the module; may raise to stop in between.

    Raises:
        OSError: it cannot be loaded, or is no PKCS#11 module.
        Pkcs11Failed: it cannot be initialised.
    """

    def __init__(self, path: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        library = ctypes.CDLL(path)
        try:
            get_list = library.C_GetFunctionList
        except AttributeError as error:
            raise OSError(f"{path}: not a PKCS#11 module: it has no C_GetFunctionList") from error
        get_list.restype = CK_ULONG
        pointer = ctypes.POINTER(FunctionList)()
        check()
        _expect("C_GetFunctionList", int(get_list(ctypes.byref(pointer))))
        if not pointer:
            raise Pkcs11Failed("C_GetFunctionList gave no list")
        self._library = library
        self._functions = {name: self._bind(pointer.contents.functions[place]) for name, place in FUNCTIONS.items()}

    def __enter__(self) -> "Module":
        """Initialise: with operating-system locking, else without arguments, which some modules insist on."""
        arguments = InitializeArguments(flags=CKF_OS_LOCKING_OK)
        code = self._raw("C_Initialize", ctypes.byref(arguments))
        if code in (CKR_ARGUMENTS_BAD, CKR_CANT_LOCK):
            code = self._raw("C_Initialize", None)
        if code != CKR_CRYPTOKI_ALREADY_INITIALIZED:
            _expect("C_Initialize", code)
        return self

    def __exit__(self, *_: object) -> None:
        """Finalise, whatever the module says to it."""
        self._raw("C_Finalize", None, checked=False)

    def info(self) -> Any:
        """CK_INFO."""
        info = LibraryInfo()
        self._call("C_GetInfo", ctypes.byref(info))
        return info

    def slots(self) -> list[int]:
        """Ids of the slots with a token in them."""
        count = CK_ULONG(0)
        self._call("C_GetSlotList", ctypes.c_ubyte(1), None, ctypes.byref(count))
        if count.value > MAX_SLOT_LIST:
            raise Pkcs11Failed(f"C_GetSlotList claims {count.value} slots")
        room = min(count.value + BATCH, MAX_SLOT_LIST)  # a token may be plugged in between the two calls
        slots, count = (CK_ULONG * room)(), CK_ULONG(room)
        self._call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        if count.value > room:
            raise Pkcs11Failed(f"C_GetSlotList claims {count.value} slots")
        return list(slots[: count.value])

    def slot_info(self, slot: int) -> Any:
        """CK_SLOT_INFO."""
        info = SlotInfo()
        self._call("C_GetSlotInfo", CK_ULONG(slot), ctypes.byref(info))
        return info

    def token_info(self, slot: int) -> Any:
        """CK_TOKEN_INFO."""
        info = TokenInfo()
        self._call("C_GetTokenInfo", CK_ULONG(slot), ctypes.byref(info))
        return info

    @contextmanager
    def session(self, slot: int) -> Iterator[int]:
        """A read-only session (without CKF_RW_SESSION)."""
        handle = CK_ULONG(0)
        self._call("C_OpenSession", CK_ULONG(slot), CK_ULONG(CKF_SERIAL_SESSION), None, None, ctypes.byref(handle))
        try:
            yield handle.value
        finally:
            self._raw("C_CloseSession", handle, checked=False)

    def certificates(self, session: int, limit: int) -> list[int]:
        """Handles of at most `limit` certificate objects that are visible without a login."""
        wanted = CK_ULONG(CKO_CERTIFICATE)
        template = Attribute(CKA_CLASS, ctypes.cast(ctypes.byref(wanted), ctypes.c_void_p), ctypes.sizeof(wanted))
        self._call("C_FindObjectsInit", CK_ULONG(session), ctypes.byref(template), CK_ULONG(1))
        try:
            return self._found(session, limit)
        finally:
            self._raw("C_FindObjectsFinal", CK_ULONG(session), checked=False)

    def _found(self, session: int, limit: int) -> list[int]:
        handles: list[int] = []
        while len(handles) < limit:
            batch, count = (CK_ULONG * BATCH)(), CK_ULONG(0)
            self._call("C_FindObjects", CK_ULONG(session), batch, CK_ULONG(BATCH), ctypes.byref(count))
            if count.value > BATCH:
                raise Pkcs11Failed(f"C_FindObjects gave {count.value} objects where {BATCH} were asked for")
            if count.value == 0:
                break
            handles += batch[: count.value]
        return handles[:limit]

    def attribute(self, session: int, handle: int, kind: int, max_bytes: int) -> bytes:
        """Value of an attribute; empty if the object has none or does not show it.

        Raises:
            Pkcs11Failed: it is longer than `max_bytes`.
        """
        attribute = Attribute(kind, None, 0)
        code = self._raw("C_GetAttributeValue", CK_ULONG(session), CK_ULONG(handle), ctypes.byref(attribute),
                         CK_ULONG(1))
        length = int(attribute.ulValueLen)
        if code != CKR_OK or length in (0, CK_ULONG(-1).value):
            return b""
        if length > max_bytes:
            raise Pkcs11Failed(f"an object claims a value of {length} bytes; at most {max_bytes} are read")
        buffer = ctypes.create_string_buffer(length)
        attribute = Attribute(kind, ctypes.cast(buffer, ctypes.c_void_p), length)
        self._call("C_GetAttributeValue", CK_ULONG(session), CK_ULONG(handle), ctypes.byref(attribute), CK_ULONG(1))
        return buffer.raw[: min(int(attribute.ulValueLen), length)]

    def _bind(self, address: int | None) -> Any:
        return ctypes.CFUNCTYPE(CK_ULONG)(address) if address else None

    def _raw(self, name: str, *arguments: Any, checked: bool = True) -> int:
        if checked:
            self._check()
        function = self._functions[name]
        if function is None:
            raise Pkcs11Failed(f"{name} is missing")
        return int(function(*arguments))

    def _call(self, name: str, *arguments: Any) -> None:
        _expect(name, self._raw(name, *arguments))


def text(field: bytes) -> str:
    """A blank-padded, perhaps NUL-ended text field (section 3.1); still to be cleaned."""
    return field.decode("utf-8", "replace").rstrip(" \0")


def _expect(function: str, code: int) -> None:
    if code != CKR_OK:
        raise Pkcs11Failed(f"{function}: {RETURN_VALUES.get(code, f'0x{code:08X}')}")
