"""The process that owns umockdev's testbed: `/usr/bin/python3 -m tests.sim.mockbus_server`.

umockdev is reached through GObject introspection, which only the system's own Python has. One JSON object a line on
standard input is a request, one on standard output its answer: `{"ok": true, ...}` or `{"ok": false, "error": "..."}`.
It must be started with umockdev's preload library; `MockBus` does that. End of input ends it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from typing import IO, Any

from tests.sim.ccidmodel import Card, DeviceModel, RecordedDevice, ScriptedCard, recorded_device
from tests.sim.usbfs import UsbfsNode

Request = dict[str, Any]


class Server:
    """The testbed and the devices in it."""

    def __init__(self) -> None:
        gi = importlib.import_module("gi")
        gi.require_version("UMockdev", "1.0")
        self._library: Any = importlib.import_module("gi.repository.UMockdev")
        self._testbed: Any = self._library.Testbed.new()
        self.root: str = self._testbed.get_root_dir()
        # asked only now: umockdev keeps its first answer for good, and before Testbed.new() that is "no"
        if not self._library.in_mock_environment():
            raise RuntimeError("umockdev's preload library is not loaded")
        self._nodes: dict[str, tuple[Any, UsbfsNode]] = {}

    def plug(self, request: Request) -> Request:
        """Add device records in umockdev's form; with a model, its node answers ioctls from the first event on."""
        if request["model"] is not None:
            self._attach(request["node"], _model(request["model"]))
        for block in request["blocks"]:
            self._testbed.add_from_string(block)
        return {}

    def _attach(self, node: str, model: DeviceModel) -> None:
        path = f"/dev/{node}"
        if node in self._nodes:
            self._testbed.detach_ioctl(path)
        usbfs = UsbfsNode(model)
        handler = self._library.IoctlBase()
        handler.connect("handle-ioctl", usbfs.handle)
        self._testbed.attach_ioctl(path, handler)
        self._nodes[node] = (handler, usbfs)

    def unplug(self, request: Request) -> Request:
        """Remove devices, given child first. The node stays attached: open files must see ENODEV, not a dead socket."""
        if request["node"] in self._nodes:
            self._nodes[request["node"]][1].unplug()
        for path in request["paths"]:
            # remove_device() itself tells nobody
            self._testbed.uevent(path, "remove")
            self._testbed.remove_device(path)
        return {}

    def insert(self, request: Request) -> Request:
        """Put a card into a reader, or take it out."""
        self._recorded(request["node"]).insert(_card(request["card"]))
        return {}

    def apdus(self, request: Request) -> Request:
        """Return what the host sent to the card."""
        return {"apdus": [apdu.hex() for apdu in self._recorded(request["node"]).apdus]}

    def _recorded(self, node: str) -> RecordedDevice:
        model = self._nodes[node][1].model
        if not isinstance(model, RecordedDevice):
            raise TypeError(f"{node} is a device of its own, not a record's")
        return model

    def close(self) -> None:
        """Delete the testbed's directory."""
        self._nodes.clear()
        self._testbed = None
        gc.collect()
        shutil.rmtree(self.root, ignore_errors=True)


def _model(request: Request) -> DeviceModel:
    if "factory" in request:
        return load_factory(request["factory"])(**request["options"])  # type: ignore[no-any-return]
    return recorded_device(request["record"], request["serial"], request["strings"], _card(request["card"]))


def _card(request: Request | None) -> Card | None:
    if request is None:
        return None
    if "factory" in request:
        return load_factory(request["factory"])(**request["options"])  # type: ignore[no-any-return]
    replies = {bytes.fromhex(command): bytes.fromhex(reply) for command, reply in request["replies"].items()}
    return ScriptedCard(atr=bytes.fromhex(request["atr"]), replies=replies)


def load_factory(name: str) -> Callable[..., Any]:
    """Return the callable named "package.module:attribute"."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until the input ends."""
    server = Server()
    operations = {
        "plug": server.plug,
        "unplug": server.unplug,
        "insert": server.insert,
        "apdus": server.apdus,
    }
    try:
        _say(answers, {"ok": True, "root": server.root})
        for line in requests:
            request: Request = json.loads(line)
            try:
                answer = {"ok": True, **operations[request["op"]](request)}
            except (KeyError, TypeError, ValueError, ImportError, AttributeError, RuntimeError) as error:
                # gi's GLib.Error is a RuntimeError
                answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            _say(answers, answer)
    finally:
        server.close()


def _say(answers: IO[str], answer: Request) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    # what umockdev or a device object prints must not get between the answers
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
