"""What protects the system cannot be weakened by brand data: there is no way to say it, in a brand's file or in signed data.

The kinds of changes are a closed list, and so is what each may name (security J3).
"""

import json
from typing import Any, get_args

import msgspec
import pytest

from keyfit.errors import DataError, TrustError
from keyfit.model.catalog import Manifest, Patch
from keyfit.model.plan import Change
from keyfit.publisher.brandfile import load_brands
from keyfit.trust.manifests import decode_manifest
from tests.sim.brands import a_brand, a_match

from .conftest import Write

TARGET = "brand/acme/linux-amd64.json"
COMMON: dict[str, Any] = {"id": "x", "on": {"system": "linux"}, "reason": {"en": "why", "zh_CN": "原因"}, "sources": ["made-up"]}
FORBIDDEN: dict[str, dict[str, Any]] = {
    "Defender off": {"kind": "registry", "key": r"HKLM\SOFTWARE\Policies\Microsoft\Windows Defender", "value": 1},
    "Defender exclusion": {"kind": "defender-exclusion", "path": "C:\\Acme"},
    "UAC off": {"kind": "registry", "key": r"HKLM\...\Policies\System\EnableLUA", "value": 0},
    "SmartScreen off": {"kind": "setting", "name": "SmartScreen", "value": "off"},
    "test signing": {"kind": "boot-option", "name": "testsigning", "value": "on"},
    "old TLS": {"kind": "tls", "minimum": "1.0"},
    "a certificate authority": {"kind": "certificate", "file": "ca.pem"},
    "firewall rule": {"kind": "firewall", "allow": 8080},
    "SELinux off": {"kind": "setting", "name": "selinux", "value": "permissive"},
    "sysctl": {"kind": "sysctl", "name": "kernel.yama.ptrace_scope", "value": 0},
    "any file": {"kind": "file", "path": "/etc/ld.so.preload", "content": "/x.so"},
    "any command": {"kind": "command", "run": "ufw disable"},
    "polkit rule": {"kind": "polkit", "rule": "yes"},
    "sudoers": {"kind": "sudoers", "line": "ALL"},
    "firewall service": {"kind": "service", "unit": "ufw.service"},
    "a service to be stopped": {"kind": "service", "unit": "pcscd.service", "state": "disabled"},
    "audit service": {"kind": "service", "unit": "auditd.service"},
    "netfilter kept out": {"kind": "kernel-module-blacklist", "modules": ["nf_tables"]},
    "packet filter kept out": {"kind": "kernel-module-blacklist", "modules": ["nfc", "ip_tables"]},
    "USB guard kept out": {"kind": "kernel-module-blacklist", "modules": ["usbhid"]},
    "AppArmor kept out": {"kind": "kernel-module-blacklist", "modules": ["apparmor"]},
    "a rule that runs something": {"kind": "udev-rule", "subsystem": "usb", "id_vendor": 1, "id_product": 1, "run": "/x"},
    "a rule for disks": {"kind": "udev-rule", "subsystem": "block", "id_vendor": 1, "id_product": 1},
    "a rule with a mode": {"kind": "udev-rule", "subsystem": "usb", "id_vendor": 1, "id_product": 1, "mode": "0666"},
    "another list of readers": {"kind": "ccid-list-entry", "id_vendor": 1, "id_product": 1, "friendly_name": "A",
                                "path": "/etc/passwd"},
    "a name with markup": {"kind": "ccid-list-entry", "id_vendor": 1, "id_product": 1, "friendly_name": "A</string><x>"},
}
ALLOWED: tuple[dict[str, Any], ...] = (
    {"kind": "service", "unit": "pcscd.socket"}, {"kind": "kernel-module-blacklist", "modules": ["nfc", "pn533", "pn533_usb"]},
    {"kind": "udev-rule", "subsystem": "usb", "id_vendor": 0x1234, "id_product": 1},
    {"kind": "ccid-list-entry", "id_vendor": 0x1234, "id_product": 1, "friendly_name": "Acme One"})


def signed(*, patch: dict[str, Any]) -> bytes:
    """A manifest as a publisher with all the right keys could sign it."""
    manifest = json.loads(msgspec.json.encode(Manifest(
        keyfit=1, path=TARGET, system="linux", architecture="amd64", brands=(a_brand("acme", a_match(id_vendor=0x1234)),))))
    manifest["brands"][0]["patch"] = [{**COMMON, **patch}]
    return json.dumps(manifest).encode()


@pytest.mark.parametrize("patch", FORBIDDEN.values(), ids=FORBIDDEN)
def test_j3_signed_data_cannot_say_it(patch: dict[str, Any]) -> None:
    """J3: the whole manifest is refused, not this part of it."""
    with pytest.raises(TrustError) as caught:
        decode_manifest(signed(patch=patch), TARGET)
    assert caught.value.code == "manifest-invalid"


@pytest.mark.parametrize("patch", FORBIDDEN.values(), ids=FORBIDDEN)
def test_j3_a_brands_file_cannot_say_it(write: Write, patch: dict[str, Any]) -> None:
    """J3: told with the line."""
    with pytest.raises(DataError) as caught:
        load_brands(write("[hand_off]", f"{as_toml(patch)}\n[hand_off]"))
    assert all(problem.startswith("drivers/acme/driver.toml:") for problem in caught.value.problems)


@pytest.mark.parametrize("patch", ALLOWED, ids=lambda patch: patch["kind"])
def test_what_may_be_said_is_taken(write: Write, patch: dict[str, Any]) -> None:
    """The measure of the two above."""
    assert len(decode_manifest(signed(patch=patch), TARGET).brands[0].patch) == 1
    (brand,) = load_brands(write("[hand_off]", f"{as_toml(patch)}\n[hand_off]"))
    assert len(brand.patch) == 2


def test_j3_the_list_of_kinds_is_the_one_that_was_reviewed() -> None:
    """J3: a kind that is added has to be added here, by somebody who has thought about it."""
    assert {kind.__struct_config__.tag for kind in get_args(Patch)} == {
        "ccid-list-entry", "udev-rule", "kernel-module-blacklist", "service"}
    assert {kind.__struct_config__.tag for kind in get_args(Change)} == {
        "distribution-package", "package-file", "archive", "udev-rule", "ccid-list-entry", "p11-kit-module", "firefox-policy",
        "nss-module", "kernel-module-blacklist", "service"}
    assert all(kind.__struct_config__.forbid_unknown_fields for kind in get_args(Patch))


def as_toml(patch: dict[str, Any]) -> str:
    """A [[patch]] table; JSON's texts, numbers, lists and flat objects are TOML's but for the colon."""
    lines = [f"{key} = {_inline(value)}" for key, value in {**COMMON, **patch, "sources": ["dump"]}.items()]
    return "[[patch]]\n" + "\n".join(lines)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inline(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
