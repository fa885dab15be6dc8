"""The fake USB bus against the real programs: what lsusb, libusb, libudev and pcscd see is what was plugged in."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.ccidmodel import ATR_T0
from tests.sim.mockbus import PRELOAD, CardSpec, DeviceSpec, MockBus, MockBusError
from tests.sim.pcscbox import PcscBox
from tests.sim.usbnodes import UsbLocation, umockdev_text
from tests.sim.usbrecords import UsbRecord, corpus_path, descriptors, find_record, load_records

PYUSB_SCAN = """
import json, usb.core, usb.util
seen = {}
for device in usb.core.find(find_all=True):
    configuration = device[0]
    seen[f"{device.bus}.{device.address}"] = {
        "ids": [device.idVendor, device.idProduct, device.bcdDevice],
        "interfaces": [
            [i.bInterfaceNumber, i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol, i.bNumEndpoints,
             bytes(i.extra_descriptors).hex(), len(list(i))]
            for i in configuration
        ],
        "strings": [usb.util.get_string(device, index) if index else None
                    for index in (device.iManufacturer, device.iProduct, device.iSerialNumber)]
                   if device.idVendor != 0x1D6B else [],
    }
print(json.dumps(seen))
"""

RESCAN_ON_REQUEST = """
import sys, usb.core
for _ in sys.stdin:
    found = usb.core.find(find_all=True)
    print(*sorted(f"{d.idVendor:04X}:{d.idProduct:04X}@{d.bus}.{d.address}" for d in found), flush=True)
"""

UDEV_MONITOR = """
import ctypes, select
udev = ctypes.CDLL("libudev.so.1")
def text(name, device):
    call = getattr(udev, "udev_device_get_" + name)
    call.restype = ctypes.c_char_p
    return (call(device) or b"?").decode()
for name in ("udev_new", "udev_monitor_new_from_netlink", "udev_monitor_receive_device"):
    getattr(udev, name).restype = ctypes.c_void_p
context = ctypes.c_void_p(udev.udev_new())
monitor = ctypes.c_void_p(udev.udev_monitor_new_from_netlink(context, b"udev"))
udev.udev_monitor_filter_add_match_subsystem_devtype(monitor, b"usb", None)
udev.udev_monitor_enable_receiving(monitor)
print("listening", flush=True)
while True:
    select.select([udev.udev_monitor_get_fd(monitor)], [], [])
    device = ctypes.c_void_p(udev.udev_monitor_receive_device(monitor))
    print(text("action", device), text("sysname", device), text("devtype", device), flush=True)
"""

ROOT_HUB = "1D6B:0002"


@pytest.fixture
def bus() -> Iterator[MockBus]:
    with MockBus() as machine:
        yield machine


@pytest.fixture(scope="module")
def crowded() -> Iterator[tuple[MockBus, dict[UsbLocation, UsbRecord]]]:
    """A machine with every recorded device plugged in at once."""
    with MockBus() as machine:
        plugged = {}
        for index, record in enumerate(load_records(corpus_path())):
            plugged[machine.add(record, serial=f"SN{index:05d}")] = record
        yield machine, plugged


# ---- enumeration


def test_lsusb_lists_exactly_the_devices_plugged_in(
    crowded: tuple[MockBus, dict[UsbLocation, UsbRecord]],
) -> None:
    bus, plugged = crowded
    expected = [
        f"Bus {where.bus:03d} Device {where.device:03d}: ID {record.ids.lower()}" for where, record in plugged.items()
    ]
    expected += [f"Bus {number:03d} Device 001: ID 1d6b:0002" for number in {where.bus for where in plugged}]
    listed = bus.run(["lsusb"], check=True).stdout.splitlines()
    assert sorted(line[: len(expected[0])] for line in listed) == sorted(expected)


def test_libusb_reads_the_recorded_descriptors_and_strings(
    crowded: tuple[MockBus, dict[UsbLocation, UsbRecord]],
) -> None:
    bus, plugged = crowded
    seen = json.loads(bus.run([sys.executable, "-c", PYUSB_SCAN], check=True).stdout)
    for index, (where, record) in enumerate(plugged.items()):
        device = seen.pop(f"{where.bus}.{where.device}")
        assert device["ids"] == [record.id_vendor, record.id_product, record.bcd_device], record.source
        assert device["strings"] == [record.manufacturer, record.product, f"SN{index:05d}"], record.source
        assert device["interfaces"] == [
            [
                i.b_interface_number,
                i.b_interface_class,
                i.b_interface_sub_class,
                i.b_interface_protocol,
                i.b_num_endpoints,
                i.class_descriptor.hex(),
                i.b_num_endpoints,
            ]
            for i in record.interfaces
        ], record.source
    assert {tuple(hub["ids"][:2]) for hub in seen.values()} == {(0x1D6B, 0x0002)}


def test_lsusb_decodes_the_ccid_descriptor(bus: MockBus) -> None:
    bus.add(find_record("0A89:0030"), serial="30A1B2")
    shown = " ".join(bus.run(["lsusb", "-v"], check=True).stdout.split())
    for text in ("iProduct 2 Rutoken ECP", "iSerial 3 30A1B2", "ChipCard Interface Descriptor", "bcdCCID 1.00"):
        assert text in shown


def test_a_device_that_stalls_its_strings_still_enumerates(bus: MockBus) -> None:
    bus.add(find_record("0A89:0030"), strings=False)
    script = "import usb.core; d = usb.core.find(idVendor=0x0A89); print(d.idProduct); d.product"
    done = bus.run([sys.executable, "-c", script])
    assert done.stdout == "48\n"
    assert "no langid" in done.stderr


def test_umockdev_run_accepts_the_text_of_a_device(tmp_path: Path) -> None:
    text = umockdev_text(find_record("163C:0407"), UsbLocation(bus=1, port=1, device=2))
    recording = tmp_path / "token.umockdev"
    recording.write_text(text)
    done = subprocess.run(
        ["umockdev-run", "--device", str(recording), "--", "lsusb"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Bus 001 Device 002: ID 163c:0407 Watchdata USB Key")


# ---- plugging


def next_line(program: subprocess.Popen[str]) -> str:
    """Wait for a line; a program that ended instead is a failure."""
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, f"{program.args!r} ended"
    return line.strip()


def test_libudev_hears_plugging_and_unplugging_in_the_kernels_order(bus: MockBus) -> None:
    bus.add(find_record("072F:90CC"))
    monitor = bus.popen([sys.executable, "-c", UDEV_MONITOR])
    assert next_line(monitor) == "listening"
    port = bus.add(find_record("1050:0116"))
    assert [next_line(monitor), next_line(monitor)] == ["add 1-2 usb_device", "add 1-2:1.2 usb_interface"]
    bus.remove(port)
    assert [next_line(monitor), next_line(monitor)] == ["remove 1-2:1.2 usb_interface", "remove 1-2 usb_device"]


def test_a_running_libusb_program_sees_devices_come_and_go(bus: MockBus) -> None:
    bus.add(find_record("072F:90CC"))
    # two listeners at once: neither may take the other's events
    programs = [bus.popen([sys.executable, "-c", RESCAN_ON_REQUEST]) for _ in range(2)]

    def scans() -> list[list[str]]:
        answers = []
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("scan\n")
            program.stdin.flush()
            answers.append([item for item in next_line(program).split() if not item.startswith(ROOT_HUB)])
        return answers

    assert scans() == [["072F:90CC@1.2"]] * 2
    token = bus.add(find_record("096E:080A"))
    assert scans() == [["072F:90CC@1.2", "096E:080A@1.3"]] * 2
    bus.remove(token)
    assert scans() == [["072F:90CC@1.2"]] * 2
    again = bus.add(find_record("096E:080A"))
    assert (again.name, again.device) == ("1-2", 4), "same port, new address"
    assert scans() == [["072F:90CC@1.2", "096E:080A@1.4"]] * 2


def test_unplugging_leaves_nothing_in_sysfs(bus: MockBus) -> None:
    port = bus.add(find_record("0DB5:0164"))
    bus.remove(port)
    assert sorted(path.name for path in (bus.root / "sys/bus/usb/devices").iterdir()) == ["usb1"]
    assert bus.ports == ()


# ---- pcscd


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ("0A89:0030", "Aktiv Rutoken ECP"),
        ("0529:0620", "SafeNet eToken 5100"),
        ("163C:0407", "Watchdata USB Key"),
        ("1050:0116", "Yubico Yubikey NEO OTP+U2F+CCID"),
        ("20A0:4211", "Nitrokey Nitrokey Start"),
        ("04E6:E001", "SCM Microsystems Inc. SCR 331"),
    ],
)
def test_pcscd_with_libccid_lists_the_reader_and_reads_its_card(bus: MockBus, ids: str, name: str) -> None:
    port = bus.add(find_record(ids), serial="SN1", ccid=True)
    with PcscBox(bus) as box:
        box.start_pcscd()
        (reader,) = box.readers(count=1, cards=1)
        assert reader.name.startswith(name)
        assert b"KEYFIT01" in reader.atr
        assert box.transmit(reader.name, bytes.fromhex("00a40400")) == (b"\x6d\x00",)
    assert bus.apdus(port)[-1] == bytes.fromhex("00a40400")


def test_a_card_can_be_chosen_and_changed_while_pcscd_runs(bus: MockBus) -> None:
    yubikey_atr = bytes.fromhex("3bfd1300008131fe158073c021c057597562694b657940")
    select = bytes.fromhex("00a4040005a000000308")
    reader = bus.add(find_record("04E6:E001"), ccid=True, card=None)
    with PcscBox(bus) as box:
        box.start_pcscd()
        (empty,) = box.readers(count=1, cards=0)
        assert empty.atr == b""
        bus.insert(reader, CardSpec(replies={select: bytes.fromhex("61119000")}))
        (filled,) = box.readers(cards=1)
        assert box.transmit(filled.name, select, b"\0\x01\0\0") == (bytes.fromhex("61119000"), b"\x6d\x00")
        bus.insert(reader, None)
        box.readers(cards=0)
        bus.insert(reader, CardSpec(atr=yubikey_atr))
        assert box.readers(cards=1)[0].atr == yubikey_atr


def test_a_simulated_device_answers_in_place_of_a_record(bus: MockBus) -> None:
    told = find_record("0529:0620")
    raw = descriptors(told, serial=True)
    shown = UsbRecord.from_descriptors(raw, "sysfs says", "sysfs says")
    inside = DeviceSpec(
        factory="tests.sim.ccidmodel:recorded_device", options={"record": told.to_json(), "serial": "INSIDE"}
    )
    where = bus.add_device(shown, inside)
    seen = json.loads(bus.run([sys.executable, "-c", PYUSB_SCAN], check=True).stdout)
    assert seen[f"{where.bus}.{where.device}"]["strings"] == [told.manufacturer, told.product, "INSIDE"]
    assert (bus.root / where.sys_path.lstrip("/") / "product").read_text() == "sysfs says\n"


def test_a_card_of_its_own_class_answers(bus: MockBus) -> None:
    card = CardSpec(factory="tests.sim.ccidmodel:ScriptedCard", options={})
    bus.add(find_record("04E6:E001"), ccid=True, card=card)
    with PcscBox(bus) as box:
        box.start_pcscd()
        (reader,) = box.readers(count=1, cards=1)
        assert reader.atr == ATR_T0


def test_pcscd_sees_tokens_come_and_go(bus: MockBus) -> None:
    with PcscBox(bus) as box:
        box.start_pcscd()
        assert box.readers(count=0) == ()
        first = bus.add(find_record("0A89:0030"), ccid=True)
        bus.add(find_record("0529:0620"), ccid=True)
        assert len(box.readers(count=2, cards=2)) == 2
        bus.remove(first)
        (left,) = box.readers(count=1)
        assert left.name.startswith("SafeNet")


# ---- the box


def remove_from_ccid_list(plist: str, ids: str) -> str:
    """Take one device out of the three parallel lists of libccid's Info.plist."""
    vendor, product = ids.split(":")
    lines = plist.splitlines()
    starts = [next(n for n, line in enumerate(lines) if f"<key>{key}<" in line) + 2
              for key in ("ifdVendorID", "ifdProductID", "ifdFriendlyName")]  # fmt: skip
    row = next(n for n in range(2000) if vendor in lines[starts[0] + n] and product in lines[starts[1] + n])
    for start in reversed(starts):
        del lines[start + row]
    return "\n".join(lines) + "\n"


def test_a_setting_changed_in_the_box_acts_there_and_leaves_the_host_alone(bus: MockBus) -> None:
    bus.add(find_record("0A89:0030"), ccid=True)
    bus.add(find_record("0529:0620"), ccid=True)  # pcscd looks at it after the other: once it is there, both were seen
    path = Path("/etc/libccid_Info.plist")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    without = remove_from_ccid_list(path.read_text(), "0A89:0030")
    with PcscBox(bus) as box:
        box.run(["cp", str(path), "/run/kept.plist"], check=True)
        box.run(["tee", str(path)], stdin=without, check=True)
        box.start_pcscd()
        (other,) = box.readers(count=1)
        assert other.name.startswith("SafeNet")
        box.run(["cp", "/run/kept.plist", str(path)], check=True)
        box.start_pcscd()
        assert len(box.readers(count=2)) == 2
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small real package: a file, a configuration file, and a script that would start a service."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/lib/keyfit-sim").mkdir(parents=True)
    (tree / "etc/keyfit-sim").mkdir(parents=True)
    (tree / "usr/lib/keyfit-sim/driver.so").write_bytes(b"\x7fELF")
    (tree / "etc/keyfit-sim/driver.conf").write_text("on\n")
    (tree / "DEBIAN/control").write_text(
        "Package: keyfit-sim\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
        "Description: stands for a driver\n"
    )
    (tree / "DEBIAN/conffiles").write_text("/etc/keyfit-sim/driver.conf\n")
    script = tree / "DEBIAN/postinst"
    script.write_text("#!/bin/sh\nset -e\necho done > /var/lib/keyfit-sim.state\necho up > /run/keyfit-sim.pid\n")
    script.chmod(0o755)
    made = tmp_path / "keyfit-sim.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(made)], check=True, capture_output=True)
    return made


def test_a_real_package_installs_in_the_box_only(bus: MockBus, package: Path) -> None:
    places = [
        Path(name)
        for name in (
            "/usr/lib/keyfit-sim/driver.so",
            "/etc/keyfit-sim/driver.conf",
            "/var/lib/keyfit-sim.state",
            "/run/keyfit-sim.pid",
            "/var/lib/dpkg/info/keyfit-sim.list",
        )
    ]
    with PcscBox(bus) as box:
        box.run(["dpkg", "--install", str(package)], check=True)
        box.run(["ls", *map(str, places)], check=True)
        assert "install ok installed" in box.run(["dpkg", "--status", "keyfit-sim"], check=True).stdout
    assert [path for path in places if path.exists()] == []


def test_leaving_the_box_ends_every_process_in_it(bus: MockBus) -> None:
    with PcscBox(bus) as box:
        box.start_pcscd()
        started = box.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], check=True).stdout
        assert Path(f"/proc/{started.strip()}").exists()
    state = Path(f"/proc/{started.strip()}/stat")
    # whoever adopted it may not have collected it yet: then it is a zombie
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_hosts_pcscd_socket_is_never_used(bus: MockBus) -> None:
    socket = Path("/run/pcscd/pcscd.comm")
    before = socket.stat() if socket.exists() else None
    with PcscBox(bus) as box:
        box.start_pcscd()
        box.readers(count=0)
        assert box.run(["test", "-S", str(socket)]).returncode == 0
    assert (socket.stat() if socket.exists() else None) == before


# ---- failures are told


def test_a_missing_umockdev_is_named_with_its_cure() -> None:
    with pytest.raises(MockBusError, match=r"install-packages\.sh"):
        MockBus(python="/bin/false")


def test_a_refused_request_leaves_the_bus_usable(bus: MockBus) -> None:
    port = bus.add(find_record("0A89:0030"))
    with pytest.raises(MockBusError, match="plugged in at 1-1"):
        bus.add(find_record("0A89:0030"), bus=1, port=1)
    with pytest.raises(MockBusError, match="ModuleNotFoundError"):
        bus.insert(port, CardSpec(factory="tests.sim.nowhere:Card"))
    assert "0a89:0030" in bus.run(["lsusb"]).stdout


def test_nothing_is_left_behind() -> None:
    with MockBus() as bus:
        root = bus.root
        program = bus.popen([sys.executable, "-c", RESCAN_ON_REQUEST])
        assert root.is_dir()
    assert not root.exists()
    assert program.poll() is not None
    assert PRELOAD not in os.environ.get("LD_PRELOAD", "")


def test_a_record_made_from_descriptors_gives_them_back() -> None:
    for record in load_records():
        raw = descriptors(record, serial=True)
        made = UsbRecord.from_descriptors(raw, record.manufacturer, record.product)
        assert descriptors(made, serial=True) == raw
        assert (made.ids, made.bcd_device) == (record.ids, record.bcd_device)
        assert [(i.b_interface_number, i.b_interface_class, i.class_descriptor) for i in made.interfaces] == [
            (i.b_interface_number, i.b_interface_class, i.class_descriptor) for i in record.interfaces
        ]
        assert UsbRecord.from_json(made.to_json()) == made
