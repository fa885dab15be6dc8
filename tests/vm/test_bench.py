"""The bench tests itself: what the other tests here take for granted about the machine and its tokens."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.sim.vtoken import (
    Ccid,
    CcidFunction,
    HidFunction,
    MassStorageFunction,
    PivCard,
    UsbDevice,
    VendorFunction,
)
from tests.vm.bench.host import CHECKOUT, BenchError
from tests.vm.bench.machine import HOST_ADDRESS, CommandTimeout, Machine, Result, State
from tests.vm.bench.packages import OFFERED
from tests.vm.bench.redir import RedirToken
from tests.vm.bench.states import derive, with_tree

Plugs = Callable[[UsbDevice], RedirToken]
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "


def ccid_token(ccid: Ccid, id_vendor: int = 0x1050, id_product: int = 0x0407, serial: str = "") -> UsbDevice:
    return UsbDevice(
        id_vendor, id_product, [CcidFunction(ccid)], manufacturer="Yubico", product="YubiKey CCID", serial=serial
    )


@pytest.fixture(scope="session")
def with_pcscd(base: State) -> State:
    """A machine with pcscd and OpenSC's tools, installed from the repository inside it."""
    return derive(base, INSTALL + "pcscd opensc", lambda machine: install(machine, "pcscd", "opensc"))


def install(machine: Machine, *names: str) -> None:
    machine.run(INSTALL + " ".join(names), timeout_s=300).check()


# -- the machine


def test_a_restored_machine_is_whole_and_knows_the_time(machine: Machine) -> None:
    assert machine.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
    assert abs(int(machine.run(["date", "+%s"]).stdout) - time.time()) < 5


def test_two_machines_from_one_state_do_not_see_each_other(machine: Machine, base: State) -> None:
    with Machine.restore(base) as other:
        machine.put("/etc/mine", b"1")
        assert other.run(["test", "-e", "/etc/mine"]).returncode == 1


def test_no_machine_outlives_a_test_that_is_killed(base: State, tmp_path: Path) -> None:
    program = (
        "from tests.vm.bench.image import build_image; from tests.vm.bench.states import base_state, Machine\n"
        "machine = Machine.restore(base_state(build_image())); print('up', flush=True); machine.run('sleep 600', 700)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    (qemu,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    ended = os.pidfd_open(int(qemu))
    child.kill()
    child.wait()
    child.stdout.close()
    assert select.select([ended], [], [], 10)[0] == [ended]
    os.close(ended)


def test_commands_have_input_environment_account_and_result(machine: Machine) -> None:
    done = machine.run('cat; echo "$WORD" >&2; exit 3', env={"WORD": "word"}, input=b"typed")
    assert (done.returncode, done.stdout, done.stderr) == (3, "typed", "word\n")
    assert machine.run("id -un; pwd; echo $HOME", user="person", cwd="/tmp").stdout == "person\n/tmp\n/home/person\n"
    assert machine.run("kill -9 $$").returncode == -9
    with pytest.raises(BenchError, match="FileNotFoundError"):
        machine.run(["/no/such/program"])


def test_a_command_that_takes_too_long_is_killed_with_its_children(machine: Machine) -> None:
    with pytest.raises(CommandTimeout, match="begun"):
        machine.run("echo begun; sleep 4321 & wait", timeout_s=1)
    assert machine.run(["pgrep", "-f", "sleep 4321"]).returncode == 1


def test_a_command_may_leave_a_daemon_behind(machine: Machine) -> None:
    assert machine.run("setsid sleep 4322 & echo done").stdout == "done\n"
    assert machine.run(["pgrep", "-f", "sleep 4322"]).returncode == 0


def test_a_command_runs_in_the_background_and_is_talked_to(machine: Machine) -> None:
    process = machine.start("read a; echo got $a; read b; echo got $b", interactive=True)
    process.write(b"one\n")
    process.read_until("got one")
    assert machine.run(["true"]).returncode == 0  # meanwhile
    process.write(b"two\n")
    assert process.wait().stdout == "got one\ngot two\n"


def test_large_output_and_large_files_arrive_whole(machine: Machine) -> None:
    content = os.urandom(3_000_000)
    machine.put("/tmp/deep/file", content, 0o640)
    assert machine.get("/tmp/deep/file") == content
    assert machine.run(["stat", "-c", "%a %U", "/tmp/deep/file"]).stdout == "640 root\n"
    assert len(machine.run("head -c 2000000 /dev/zero | tr '\\0' x").stdout) == 2_000_000


def test_no_smart_card_package_is_installed_and_all_can_be_without_a_network(machine: Machine) -> None:
    installed = machine.packages()
    assert "systemd" in installed
    assert [name for name in installed if name in OFFERED or "pcsc" in name or "opensc" in name] == []
    plan = machine.run(["apt-get", "-s", "install", *OFFERED], timeout_s=60).check().stdout
    assert [name for name in OFFERED if f"\nInst {name} " not in plan] == []


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    class Greeter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello from the host")

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Greeter) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_the_guest_reaches_a_server_on_the_host_and_nothing_beyond(machine: Machine, server: ThreadingHTTPServer) -> None:
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    url = f"http://{HOST_ADDRESS}:{server.server_port}/"
    assert machine.run(["python3", "-c", fetch, url]).check().stdout == "hello from the host\n"
    # 192.0.2.1: an address for documentation, RFC 5737
    beyond = machine.run(["python3", "-c", fetch, "http://192.0.2.1/"])
    assert "Network is unreachable" in beyond.stderr


def test_a_snapshot_shows_what_was_changed_and_nothing_else(machine: Machine) -> None:
    before = machine.snapshot(["/etc", "/no/such/path"])
    assert before == machine.snapshot(["/etc"])
    machine.run("chmod 600 /etc/hosts; echo x >> /etc/hostname; ln -s a /etc/new; mkdir /etc/empty; rm /etc/fstab").check()
    after = machine.snapshot(["/etc"])
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} - {"/etc"}
    assert changed == {"/etc/hosts", "/etc/hostname", "/etc/new", "/etc/empty", "/etc/fstab"}
    assert after["/etc/new"][0::3] == ("link", "a")
    assert (after["/etc/hosts"].mode, after["/etc/hosts"].content) == (0o600, before["/etc/hosts"].content)


def test_a_large_folder_is_in_the_machine_within_seconds_and_can_be_frozen_with_it(base: State, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    (folder / "lib").mkdir(parents=True)
    for number in range(50):
        (folder / "lib" / f"part{number}").write_bytes(os.urandom(1 << 20))
    (folder / "start").write_text("#!/bin/sh\nls /opt/program/lib | wc -l\n")
    (folder / "start").chmod(0o755)
    (folder / "link").symlink_to("start")
    with Machine.restore(base) as machine:
        began = time.monotonic()
        machine.put_tree(folder, "/opt/program")
        assert time.monotonic() - began < 30
        assert machine.run(["/opt/program/link"]).stdout == "50\n"
        (folder / "lib" / "part0").write_bytes(b"changed")
        machine.put_tree(folder, "/opt/program")  # the same disk again: nothing stale
        assert machine.get("/opt/program/lib/part0") == b"changed"
    state = with_tree(base, folder, "/opt/program")
    assert with_tree(base, folder, "/opt/program") == state
    with Machine.restore(state) as machine:
        assert machine.run(["/opt/program/start"]).stdout == "50\n"


def test_after_a_power_cut_what_was_synced_is_there_and_the_rest_is_not(durable_base: State) -> None:
    with Machine.restore(durable_base) as machine:
        machine.run("echo 1 > /etc/kept && sync").check()
        machine.run("echo 1 > /etc/lost").check()
        machine.power_cut()
        with pytest.raises(BenchError):
            machine.run(["true"])
        machine.power_on()
        assert machine.get("/etc/kept") == b"1\n"
        lost = machine.run(["cat", "/etc/lost"])
        assert lost.stdout == "", "a write that nobody synced survived: the disk shows less loss than a real one"


def test_a_power_cut_also_loses_what_the_disk_has_taken_but_not_flushed(durable_base: State) -> None:
    write = "dd if=/dev/urandom of=/srv/data bs=4k count=500 conv=notrunc oflag=direct"
    blank = "import sys; d = open('/srv/data', 'rb').read(); print(sum(not any(d[i:i + 512]) for i in range(0, len(d), 512)))"
    with Machine.restore(durable_base) as machine:
        machine.run("head -c 2048000 /dev/zero > /srv/data && sync").check()
        machine.run(write).check()  # past the guest's memory, and no flush behind it
        lost = machine.power_cut(random.Random(7))
        assert lost > 0
        machine.check_disk()
        machine.power_on()
        assert 0 < int(machine.run(["python3", "-c", blank]).stdout) < 4000, "some of it, not none and not all"

        machine.run(write.replace("notrunc", "notrunc,fsync")).check()
        machine.power_cut(random.Random(7))
        machine.power_on()
        assert machine.run(["python3", "-c", blank]).stdout == "0\n"


def test_what_was_written_before_an_orderly_shutdown_is_there_after_it(durable_base: State) -> None:
    with Machine.restore(durable_base) as machine:
        machine.run("echo 1 > /etc/kept").check()
        machine.power_off()
        machine.power_on()
        assert machine.get("/etc/kept") == b"1\n"


# -- tokens


def test_a_token_is_seen_when_plugged_in_and_gone_when_pulled_out(machine: Machine, token: Plugs) -> None:
    plug = token(UsbDevice(0x163C, 0x0415, [VendorFunction()], bcd_device=0x0321, product="Key", serial="S-1"))
    for _ in range(2):
        plug.plug()
        seen = machine.run(f"cd {plug.sysfs}; cat idVendor idProduct bcdDevice product serial; ls -d 1-*:*").stdout
        assert seen.split() == ["163c", "0415", "0321", "Key", "S-1", f"{Path(plug.sysfs).name}:1.0"]
        plug.unplug()
        assert machine.run(["test", "-e", plug.sysfs]).returncode == 1


def test_udev_reports_the_plug_and_the_pull(machine: Machine, token: Plugs) -> None:
    plug = token(UsbDevice(0x096E, 0x0807, [VendorFunction()]))
    monitor = machine.start(["udevadm", "monitor", "--udev", "--subsystem-match=usb/usb_device"])
    monitor.read_until("UDEV - the event")
    plug.plug()
    monitor.read_until(" add ")
    plug.unplug()
    monitor.read_until(" remove ")


def test_several_tokens_composites_and_strange_strings(machine: Machine, token: Plugs) -> None:
    twins = [token(ccid_token(Ccid(PivCard()), serial=f"twin {number}")) for number in (1, 2)]
    three = UsbDevice(0x04E6, 0x5816, [MassStorageFunction(bytes(2048 * 20)), CcidFunction(Ccid()), HidFunction()])
    composite = token(three)
    hostile = token(UsbDevice(0xF00D, 0x0001, [VendorFunction()], product="\x1b[31mred\r\n../..", serial=b"\x00\xd8X\x00"))
    for each in (*twins, composite, hostile):
        each.plug()
    found = machine.run(f"cat {composite.sysfs}/*:1.*/bInterfaceClass").stdout.split()
    assert found == ["08", "0b", "03"]
    assert [machine.get(f"{twin.sysfs}/serial") for twin in twins] == [b"twin 1\n", b"twin 2\n"]
    # the kernel turns the lone surrogate into UTF-8's replacement or drops it, and passes control characters on
    assert machine.get(f"{hostile.sysfs}/product").startswith(b"\x1b[31mred")


def test_a_device_with_a_broken_configuration_never_gets_its_interfaces(machine: Machine, token: Plugs) -> None:
    device = UsbDevice(0xF00D, 0x0002, [VendorFunction()])
    device.configuration_descriptor = b"\x09\x02\xff\xff"
    plug = token(device)
    plug.plug(wait=False)
    machine.run(["timeout", "20", "sh", "-c", "until dmesg | grep -q 'usb 1-'; do udevadm settle; done"]).check()
    assert machine.run(f"ls -d {plug.sysfs}/*:*").returncode != 0


def test_a_cd_that_turns_into_a_token_when_it_is_ejected(machine: Machine, token: Plugs) -> None:
    key = token(ccid_token(Ccid(PivCard())))

    def switch() -> None:
        cd.unplug(wait=False)
        key.plug(wait=False)

    # the identifier of ISO 9660's first volume descriptor, in sector 16 (ECMA-119, section 8.1)
    volume = bytes(2048 * 16) + b"\x01CD001\x01" + bytes(2041)
    cd = token(UsbDevice(0x096E, 0x0309, [MassStorageFunction(volume, on_eject=switch)]))
    cd.plug()
    machine.run(["udevadm", "wait", "--settle", "--timeout=30", "/dev/sr0"]).check()
    read = "dd if=/dev/sr0 bs=2048 skip=16 count=1 status=none | head -c 6 | tail -c 5"
    assert machine.run(read).stdout == "CD001"
    # CDROMEJECT, linux/cdrom.h
    eject = "import fcntl, os; fcntl.ioctl(os.open('/dev/sr0', os.O_RDONLY | os.O_NONBLOCK), 0x5309)"
    machine.run(["python3", "-c", eject]).check()
    machine.run(["udevadm", "wait", "--settle", "--timeout=30", key.sysfs]).check()
    assert machine.get(f"{key.sysfs}/idVendor") == b"1050\n"


# -- with the real smart-card service


def test_pcscd_from_the_offline_repository_reads_the_card(with_pcscd: State) -> None:
    card = PivCard(historical=b"ATR-OF-OURS")
    ccid = Ccid(card)
    with Machine.restore(with_pcscd) as machine, RedirToken(ccid_token(ccid), machine) as plug:
        plug.plug()
        found = wait_for_card(machine)
        assert "Yubi" in found.stderr
        assert found.stdout.strip().replace(":", "") == card.atr.hex()
        assert ccid.power_ons > 0


def wait_for_card(machine: Machine) -> Result:
    # its own --wait only sees a card that comes after it has started
    return machine.run("until opensc-tool --atr 2>/run/err; do udevadm settle; done; cat /run/err >&2", timeout_s=60).check()


def test_a_token_pulled_out_in_the_middle_of_an_apdu_is_read_again_afterwards(with_pcscd: State) -> None:
    ccid = Ccid(PivCard())
    with Machine.restore(with_pcscd) as machine, RedirToken(ccid_token(ccid), machine) as plug:
        plug.plug()
        wait_for_card(machine)
        ccid.delay_s = 60
        waiting = machine.start(["opensc-tool", "--send-apdu", "00a4040005a000000308"])
        assert ccid.computing.wait(60)
        plug.unplug()
        assert waiting.wait(60).returncode != 0
        ccid.delay_s = 0
        plug.plug()
        wait_for_card(machine)


def test_a_card_taken_out_of_its_reader_and_another_put_in_are_noticed(with_pcscd: State) -> None:
    ccid = Ccid(PivCard())
    with Machine.restore(with_pcscd) as machine, RedirToken(ccid_token(ccid), machine) as plug:
        plug.plug()
        wait_for_card(machine)
        ccid.remove()
        machine.run("until opensc-tool --list-readers | grep -q '^0 *No'; do udevadm settle; done", timeout_s=60).check()
        ccid.insert(PivCard(historical=b"SECOND"))
        assert b"SECOND".hex() in wait_for_card(machine).stdout.replace(":", "")
