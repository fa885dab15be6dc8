"""Hears that something was plugged in or unplugged: the kernel's uevents on a netlink socket, without any privilege.

Sources: Linux, lib/kobject_uevent.c (message format, group 1); systemd, sd-device monitor (group 2, what udev passes on
after its rules have run, with a binary header that starts with "libudev"). Group 2 comes a little later, but then the device node
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
UDEV_PREFIX = b"libudev\0"
UDEV_HEADER = struct.Struct("=8s4s3I")
UDEV_MAGIC = (0xFEEDCAFE).to_bytes(4, "big")
"""systemd, src/libsystemd/sd-device/device-monitor.c, monitor_netlink_header: prefix, magic in network order, then in
host order the header's size, where the properties begin and how long they are."""
ACTIONS = frozenset({b"ACTION=add", b"ACTION=remove", b"ACTION=bind"})
"""bind follows add when a driver has taken the device (Linux, drivers/base/dd.c)."""
LOOK_AROUND_S = 0.5
"""How often the bus is looked at even though events are heard: in a network namespace of its own a process can bind the
socket and never hears anything (Linux, lib/kobject_uevent.c, uevent_net_broadcast)."""
MAX_QUEUED = 256
"""Messages taken off the queue at once; a flood must not keep the reader from returning."""


class UeventWatch:
    """An armed watch.

    Args:
        live: listen for events; False for a tree of files, which has none.
    """

    def __init__(self, *, live: bool = True) -> None:
        self._socket = _open() if live and sys.platform == "linux" else None
        self._last: Hashable = None

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def wait(self, scan: Callable[[], Hashable], timeout_s: float, every_s: float) -> bool:
        """Block until an event says that a USB device came or went, or until `scan` gives something else than before.

        Args:
            scan: what the bus looks like; compared with what `seen` was told, or else with its first answer here.
            timeout_s: time limit; then the answer is False.
            every_s: how often to scan if no events are heard.
        """
        if self._last is None:
            self._last = scan()
        end = time.monotonic() + timeout_s
        while True:
            now = scan()
            changed = now != self._last
            self._last = now
            if changed:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._heard(min(left, every_s if self._socket is None else LOOK_AROUND_S)):
                self._last = scan()
                return True

    def seen(self, state: Hashable) -> None:
        """What the caller knows of the bus: a change from this, made before or after the watch was armed, ends a wait."""
        self._last = state

    def _heard(self, timeout_s: float) -> bool:
        """Listen for at most `timeout_s`; without a socket, let the time pass."""
        listening = self._socket
        if listening is None:
            time.sleep(timeout_s)
            return False
        end = time.monotonic() + timeout_s
        poll: Any = getattr(select, "poll")()  # not there on Windows
        poll.register(listening, getattr(select, "POLLIN"))
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            if self._drain(listening):
                return True
        return False

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
    fields = _properties(message).split(b"\0")
    return b"SUBSYSTEM=usb" in fields and b"DEVTYPE=usb_device" in fields and not ACTIONS.isdisjoint(fields)


def _properties(message: bytes) -> bytes:
    """The NUL-separated KEY=value part, which in udev's messages begins where their header says."""
    if not message.startswith(UDEV_PREFIX):
        return message
    if len(message) < UDEV_HEADER.size:
        return b""
    _, magic, _, begin, length = UDEV_HEADER.unpack_from(message)
    return message[begin:begin + length] if magic == UDEV_MAGIC else b""


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
