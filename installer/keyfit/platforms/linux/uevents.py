"""Hears that something was plugged in or unplugged: the kernel's uevents on a netlink socket, without any privilege.

Sources: Linux, lib/kobject_uevent.c (message format, group 1); systemd, sd-device monitor (group 2, what udev passes on after
its rules have run, with a binary header that starts with "libudev"). Group 2 comes a little later, but then the device node
has its permissions; either wakes the reader.
"""

import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Hashable
from typing import Any

from keyfit.platforms.linux.posix import posix

NETLINK_KOBJECT_UEVENT = 15
"""linux/netlink.h."""
GROUP_KERNEL, GROUP_UDEV = 1, 2
SO_PASSCRED = 16
SCM_CREDENTIALS = 2
"""asm-generic/socket.h and linux/socket.h; the names exist in Python on Linux only."""
MAX_MESSAGE = 8192
MAX_QUEUED = 256
"""Messages taken off the queue at once; a flood must not keep the reader from returning."""


class UeventWatch:
    """An armed watch. `live` is False if the kernel's events cannot be heard here."""

    def __init__(self, *, live: bool = True) -> None:
        self._socket = _open() if live and sys.platform == "linux" else None
        self._last: Hashable = None
        self._armed = False

    @property
    def live(self) -> bool:
        """True if events are heard; otherwise use `wait_by_scanning`."""
        return self._socket is not None

    def wait(self, timeout_s: float) -> bool:
        """Block until a USB device came or went; False at the time limit."""
        listening = self._socket
        if listening is None:
            return False
        end = time.monotonic() + timeout_s
        poll: Any = getattr(select, "poll")()  # not there on Windows
        poll.register(listening, getattr(select, "POLLIN"))
        while True:
            left = end - time.monotonic()
            if not poll.poll(max(0.0, left) * 1000):
                return False
            if self._drain(listening):
                return True

    def wait_by_scanning(self, scan: Callable[[], Hashable], timeout_s: float, every_s: float) -> bool:
        """Block until `scan` gives something else than at the last return."""
        if not self._armed:
            self._last, self._armed = scan(), True
        end = time.monotonic() + timeout_s
        while True:
            now = scan()
            if now != self._last:
                self._last = now
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(every_s, left))

    def _drain(self, listening: socket.socket) -> bool:
        """Take what is queued; True if any of it is about a USB device. One plugging makes several messages."""
        relevant = False
        receive: Any = getattr(listening, "recvmsg")  # not there on Windows
        for _ in range(MAX_QUEUED):
            try:
                data, ancillary, _, _ = receive(MAX_MESSAGE, 64)
            except BlockingIOError:
                break
            except OSError:
                return True  # the queue overflowed: something happened, look at the bus
            relevant = relevant or (_is_trusted(ancillary) and is_usb_device(data))
        return relevant


def is_usb_device(message: bytes) -> bool:
    """True if a uevent, of the kernel or of udev, is about a whole USB device that came or went."""
    fields = message.split(b"\0")
    return b"SUBSYSTEM=usb" in fields and b"DEVTYPE=usb_device" in fields and any(
        field in fields for field in (b"ACTION=add", b"ACTION=remove", b"ACTION=bind"))


def _is_trusted(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """True if the sender is root: other users may write to the socket's group in their own namespace."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS and len(data) >= 12:
            _, uid, _ = struct.unpack("=iii", data[:12])
            return bool(uid == 0 or uid == posix.getuid())
    return False


def _open() -> socket.socket | None:
    try:
        opened = socket.socket(getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW | getattr(socket, "SOCK_CLOEXEC", 0),
                               NETLINK_KOBJECT_UEVENT)
    except OSError:
        return None
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
        opened.setblocking(False)
        opened.bind((0, GROUP_KERNEL | GROUP_UDEV))
    except OSError:
        opened.close()
        return None
    return opened
