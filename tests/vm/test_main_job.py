"""The main job in a real machine: a token on a real USB bus, real apt and dpkg, real pcscd, signed data over https.

Everything is done by the frozen `keyfit` that a user gets; the test only plugs, looks, and plays the publisher.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim.vtoken import Ccid, CcidFunction, HidFunction, PivCard, UsbDevice
from tests.vm.bank import CHECKOUT, DRIVERS, Authority, Bank
from tests.vm.bench.image import build_image
from tests.vm.bench.machine import Entry, Machine, Process, State
from tests.vm.bench.redir import RedirToken
from tests.vm.bench.states import base_state, derive, with_tree

PROGRAM = "/opt/keyfit/keyfit"
BOOKKEEPING = ("/var/lib/keyfit", "/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/systemd/", "/var/lib/ucf/", "/etc/ld.so.cache")
"""Keyfit's own record, and files that the package tools rewrite at any installation, whatever comes and goes."""


class Customer:
    """The machine of a customer, with the frozen program on it."""

    def __init__(self, machine: Machine, bank: Bank) -> None:
        self.machine, self.bank = machine, bank
        self.use(bank)

    def use(self, bank: Bank) -> None:
        self.bank = bank
        self.machine.put("/srv/root.json", bank.trusted_root)

    def command(self, *arguments: str) -> list[str]:
        return [PROGRAM, *arguments, "--json", "--repository", self.bank.url, "--trust-root", "/srv/root.json"]

    def keyfit(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command to its end; its one JSON document."""
        done = self.machine.run(self.command(*arguments), timeout_s=300)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["exit_code"] == code
        return document

    def start(self, *arguments: str) -> Process:
        return self.machine.start(self.command(*arguments))

    def state(self) -> dict[str, Any]:
        """Packages, /etc and /var/lib, but for the bookkeeping."""
        files = self.machine.snapshot(["/etc", "/var/lib"])
        kept: dict[str, Entry] = {p: e for p, e in files.items() if not p.startswith(BOOKKEEPING)}
        return {"packages": self.machine.packages(), "files": kept}

    def same_as(self, before: dict[str, Any]) -> None:
        """Fail with what differs, if anything does."""
        after = self.state()
        for what in ("packages", "files"):
            old, new = before[what], after[what]
            odd = {k: (old.get(k), new.get(k)) for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
            assert odd == {}, what


@pytest.fixture(scope="session")
def ready(authority: Authority) -> State:
    """A plain machine with the program in place, that trusts the test's authority."""
    def trust(machine: Machine) -> None:
        machine.put("/usr/local/share/ca-certificates/test.crt", authority.pem)
        machine.run(["update-ca-certificates"], timeout_s=120).check()

    with_program = with_tree(base_state(build_image()), CHECKOUT / "dist" / "keyfit", "/opt/keyfit")
    return derive(with_program, authority.pem.decode(), trust)


@pytest.fixture
def customer(ready: State, bank: Bank) -> Iterator[Customer]:
    with Machine.restore(ready) as machine:
        yield Customer(machine, bank)


def a_token(customer: Customer, id_vendor: int, id_product: int, **strings: str) -> RedirToken:
    device = UsbDevice(id_vendor, id_product, [CcidFunction(Ccid(PivCard()))], **strings)
    return RedirToken(device, customer.machine)


def test_a_driver_from_the_archives_makes_the_token_answer_and_leaves_without_a_trace(customer: Customer) -> None:
    """ACS CryptoMate: no driver before; afterwards PC/SC sees the token."""
    with a_token(customer, 0x072F, 0xB200, manufacturer="ACS", product="CryptoMate (T1)") as token:
        token.plug()
        before = customer.state()
        (device,) = customer.keyfit("devices")["data"]["devices"]
        assert (device["brand"], device["driver"]["state"]) == ("acs-cryptomate", "missing")
        assert customer.keyfit("verify", code=66)["data"]["verdict"]["first_broken"] == "driver"

        installed = customer.keyfit("install", "--yes", "--no-handoff")

        assert installed["data"]["verdict"]["works"] is True
        assert "libacsccid1" in customer.machine.packages()
        assert customer.keyfit("verify")["data"]["verdict"]["works"] is True
        (device,) = customer.keyfit("devices")["data"]["devices"]
        assert device["driver"]["state"] == "ready"
        assert customer.keyfit("install", "--yes")["messages"][0]["code"] == "nothing-to-do"

        customer.keyfit("uninstall", "acs-cryptomate", "--yes")
        customer.same_as(before)


def test_one_line_in_libccid_s_list_makes_the_token_answer_and_goes_byte_for_byte(customer: Customer) -> None:
    """Excelsecu: pcscd and libccid are there, but do not know the device."""
    customer.machine.run(["apt-get", "-y", "--no-install-recommends", "install", "pcscd", "libccid"], timeout_s=300).check()
    original = customer.machine.get("/etc/libccid_Info.plist")
    with a_token(customer, 0x1EA8, 0x8013, manufacturer="Excelsecu", product="Card reader") as token:
        token.plug()
        before = customer.state()

        installed = customer.keyfit("install", "--yes", "--no-handoff")

        assert "ccid-list-entry" in [s["kind"] for s in installed["data"]["plan"]["steps"]]
        assert installed["data"]["verdict"]["works"] is True
        assert b"0x8013" in customer.machine.get("/etc/libccid_Info.plist")

        customer.keyfit("uninstall", "excelsecu", "--yes")
        assert customer.machine.get("/etc/libccid_Info.plist") == original
        customer.same_as(before)


MAKE_CERTIFICATE = """
set -e
P="pkcs11-tool --module /usr/lib/x86_64-linux-gnu/libykcs11.so.2"
SO="--login --login-type so --so-pin 010203040506070801020304050607080102030405060708"
$P $SO --keypairgen --key-type rsa:2048 --id 01
$P --read-object --type pubkey --id 01 -o /run/k.spki
openssl pkey -pubin -inform DER -in /run/k.spki -out /run/k.pub
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Example CA' -days 3650 \\
  -keyout /run/ca.key -out /run/ca.pem
openssl x509 -new -force_pubkey /run/k.pub -subj '/CN=Test Customer/O=Example Bank' -days 365 \\
  -CA /run/ca.pem -CAkey /run/ca.key -out /run/k.pem
openssl x509 -in /run/k.pem -outform DER -out /run/k.der
$P $SO --write-object /run/k.der --type cert --id 01
"""
"""What a bank's page does: a key pair in the token, a certificate for it, and that certificate into the token. The management key
is the PIV card's published default (NIST SP 800-78); no customer's PIN is involved."""


def test_certificate_wait_returns_when_the_bank_s_certificate_is_on_the_token(customer: Customer) -> None:
    """YubiKey's PIV applet by Yubico's own module."""
    customer.machine.run(["apt-get", "-y", "--no-install-recommends", "install", "opensc"], timeout_s=300).check()
    with a_token(customer, 0x1050, 0x0407, manufacturer="Yubico", product="YubiKey OTP+FIDO+CCID") as token:
        token.plug()
        before = customer.state()
        installed = customer.keyfit("install", "--yes", "--no-handoff")
        assert installed["data"]["verdict"]["works"] is True
        assert installed["data"]["certificate"]["certificate"]["state"] == "absent"

        waiting = customer.start("certificate", "--wait", "--timeout", "240")
        waiting.read_until("Waiting", stream="stderr")
        customer.machine.run(MAKE_CERTIFICATE, timeout_s=240).check()
        done = waiting.wait(240)

        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["data"]["certificate"]
        assert found["state"] == "valid"
        assert "CN=Test Customer" in found["subject"]
        assert "CN=Example CA" in found["issuer"]
        assert customer.keyfit("certificate")["data"]["certificate"]["state"] == "valid"

        customer.keyfit("uninstall", "yubikey", "--yes")
        customer.same_as(before)


def test_a_brand_that_wants_its_driver_first_is_installed_by_unplugging_and_plugging_alone(
        customer: Customer, authority: Authority, tmp_path: Path) -> None:
    drivers = tmp_path / "drivers"
    shutil.copytree(DRIVERS, drivers)
    text = (drivers / "acs-cryptomate" / "driver.toml").read_text()
    (drivers / "acs-cryptomate" / "driver.toml").write_text(
        text.replace('status = "supported"', 'status = "supported"\ninsert_order = "unplug-before-install"\n'
                     'insert_order_sources = ["debian12-acs"]', 1))
    bank = Bank(tmp_path / "bank", authority, drivers)
    try:
        customer.use(bank)
        with a_token(customer, 0x072F, 0xB200) as token:
            token.plug()
            before = customer.state()
            running = customer.start("install", "--yes", "--no-handoff")
            running.read_until("Unplug", timeout_s=120, stream="stderr")
            assert "libacsccid1" not in customer.machine.packages()
            unplugged = time.monotonic()
            token.unplug()
            _await(lambda: customer.machine.run("pgrep -x apt-get").returncode == 0)
            assert time.monotonic() - unplugged < 2.0, "one second, and one for the test to look"
            running.read_until("Plug the token in again", timeout_s=180, stream="stderr")
            token.plug()
            done = running.wait(120)

            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["data"]["verdict"]["works"] is True
            customer.keyfit("uninstall", "acs-cryptomate", "--yes")
            customer.same_as(before)
    finally:
        bank.close()


def _await(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never happened"


def test_a_token_pulled_out_while_its_driver_is_installed_leaves_the_driver_in_place(customer: Customer) -> None:
    with a_token(customer, 0x072F, 0xB200) as token:
        token.plug()
        running = customer.start("install", "--yes", "--no-handoff")
        _await(lambda: customer.machine.run("pgrep -x apt-get").returncode == 0)
        token.unplug()
        done = running.wait(180)

        document = json.loads(done.stdout)
        assert done.returncode == 66, done.stderr
        assert "token-gone" in [m["code"] for m in document["messages"]]
        token.plug()
        assert customer.keyfit("verify")["data"]["verdict"]["works"] is True
        assert [h["result"] for h in customer.keyfit("history")["data"]["history"]] == ["done"]


def test_a_token_pulled_out_of_a_verify_is_the_first_broken_link(customer: Customer) -> None:
    customer.machine.run(["apt-get", "-y", "--no-install-recommends", "install", "opensc"], timeout_s=300).check()
    card = Ccid(PivCard())
    device = UsbDevice(0x1050, 0x0407, [CcidFunction(card)], manufacturer="Yubico", product="YubiKey OTP+FIDO+CCID")
    with RedirToken(device, customer.machine) as token:
        token.plug()
        customer.keyfit("install", "--yes", "--no-handoff")
        card.delay_s = 4.0
        exchanged = len(card.log)
        running = customer.start("verify")
        _await(lambda: len(card.log) > exchanged)
        token.unplug()
        done = running.wait(120)

        assert done.returncode in (1, 66), done.stdout
        assert json.loads(done.stdout)["data"]["verdict"]["works"] is False
        assert customer.machine.run(["systemctl", "is-active", "pcscd.socket"]).stdout.strip() == "active"
        card.delay_s = 0.0
        token.plug()
        assert customer.keyfit("verify")["data"]["verdict"]["works"] is True


def test_what_cannot_be_installed_is_refused_and_changes_nothing(customer: Customer) -> None:
    """No token, an unknown one, two brands, the wrong brand, no rights, no network, a busy dpkg."""
    before = customer.state()
    assert customer.keyfit("install", "--yes", code=66)["messages"][0]["code"] == "no-token"

    unknown = RedirToken(UsbDevice(0xF055, 0x0001, [HidFunction()], product="Toaster"), customer.machine)
    with unknown:
        unknown.plug()
        assert customer.keyfit("install", "--yes", code=66)["messages"][0]["code"] == "no-token"
    with a_token(customer, 0xF055, 0x0002, product="Some Key") as stranger:
        stranger.plug()
        assert customer.keyfit("install", "--yes", code=66)["messages"][0]["code"] == "unknown-token"

    with a_token(customer, 0x072F, 0xB200) as token:
        token.plug()
        assert customer.keyfit("install", "rutoken", "--yes", code=66)["messages"][0]["code"] == "wrong-brand"
        with a_token(customer, 0x1EA8, 0x8013, manufacturer="Excelsecu", product="Card reader") as second:
            second.plug()
            assert customer.keyfit("install", "--yes", code=2)["messages"][0]["code"] == "several-tokens"
        done = customer.machine.run(customer.command("install", "--yes"), user="person")
        assert done.returncode == 77, done.stdout
        locked = customer.machine.start(
            ["python3", "-c", "import fcntl,signal; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX);"
             " print('held', flush=True); signal.pause()"])
        locked.read_until("held")
        assert customer.keyfit("install", "--yes", code=75)["messages"][0]["code"] == "package-tool-busy"
    customer.same_as(before)
