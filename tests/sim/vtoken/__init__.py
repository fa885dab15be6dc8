"""A USB token in plain Python, for any transport that can carry USB transfers.

Build one from functions and hand it to a transport, which calls `control`, `host_out` and `host_in`:

    card = PivCard()
    device = UsbDevice(0x1050, 0x0407, [CcidFunction(Ccid(card))], product="YubiKey CCID")
"""

from tests.sim.vtoken.ccid import Card, Ccid, Exchange
from tests.sim.vtoken.device import Endpoint, Function, Interface, Stall, UsbDevice
from tests.sim.vtoken.functions import CcidFunction, HidFunction, MassStorageFunction, VendorFunction
from tests.sim.vtoken.piv import PivCard

__all__ = [
    "Card",
    "Ccid",
    "CcidFunction",
    "Endpoint",
    "Exchange",
    "Function",
    "HidFunction",
    "Interface",
    "MassStorageFunction",
    "PivCard",
    "Stall",
    "UsbDevice",
    "VendorFunction",
]
