"""A plan: exactly what will be changed, why, and how to take it back. A value; its id is the hash of its content."""

from typing import Literal

from msgspec import Struct

from keyfit.model.catalog import HandOff, Payload
from keyfit.model.host import HostFacts


class DistributionPackages(Struct, frozen=True, kw_only=True, tag_field="kind", tag="distribution-package"):
    """Install packages by name from the system's own archives."""

    manager: Literal["apt", "dnf"]
    names: tuple[str, ...]


class PackageFile(Struct, frozen=True, kw_only=True, tag_field="kind", tag="package-file"):
    """Install a package file of ours with the system's package tool."""

    format: Literal["deb", "rpm"]
    name: str
    version: str
    payload: Payload


class Archive(Struct, frozen=True, kw_only=True, tag_field="kind", tag="archive"):
    """Unpack exactly `files` of an archive of ours into `prefix`."""

    payload: Payload
    prefix: str
    files: tuple[str, ...]


class UdevRuleFile(Struct, frozen=True, kw_only=True, tag_field="kind", tag="udev-rule"):
    """Write one rule that tags a device with uaccess."""

    path: str
    subsystem: Literal["usb", "hidraw", "scsi_generic"]
    id_vendor: int
    id_product: int


class CcidListLine(Struct, frozen=True, kw_only=True, tag_field="kind", tag="ccid-list-entry"):
    """Add one device to libccid's list and restart the PC/SC daemon."""

    path: str
    id_vendor: int
    id_product: int
    friendly_name: str


class P11KitModule(Struct, frozen=True, kw_only=True, tag_field="kind", tag="p11-kit-module"):
    """Write a p11-kit module file (`module: <path>`)."""

    path: str
    module: str


class FirefoxPolicy(Struct, frozen=True, kw_only=True, tag_field="kind", tag="firefox-policy"):
    """Add a module to the SecurityDevices of Firefox's policies.json, beside whatever else is in it."""

    path: str
    name: str
    module: str


class NssModule(Struct, frozen=True, kw_only=True, tag_field="kind", tag="nss-module"):
    """Add a module to the user's NSS database, which Chromium reads. `database` is relative to the user's home."""

    database: str
    name: str
    module: str


class KernelModuleBlacklistFile(Struct, frozen=True, kw_only=True, tag_field="kind", tag="kernel-module-blacklist"):
    """Write a modprobe.d file that blacklists kernel modules."""

    path: str
    modules: tuple[str, ...]


class ServiceState(Struct, frozen=True, kw_only=True, tag_field="kind", tag="service"):
    """Have a systemd unit enabled and running."""

    unit: str


Change = (
    DistributionPackages
    | PackageFile
    | Archive
    | UdevRuleFile
    | CcidListLine
    | P11KitModule
    | FirefoxPolicy
    | NssModule
    | KernelModuleBlacklistFile
    | ServiceState
)
"""The closed set of things that Keyfit can do to a machine (security A9, C3)."""


class Step(Struct, frozen=True, kw_only=True):
    """One change with everything a reader needs to agree to it.

    Attributes:
        id: unique within the plan, for example "driver" or "patch-ccid-list".
        action: what is done, in plain words with the full path or package name.
        reason: why.
        undo: how it is taken back, in plain words.
        size_bytes: download size; 0 if nothing of ours is downloaded.
        elevated: True if it needs administrator rights.
    """

    id: str
    action: str
    reason: str
    undo: str
    elevated: bool
    size_bytes: int
    change: Change

    @property
    def kind(self) -> str:
        """The change's tag, as in the JSON."""
        return str(self.change.__struct_config__.tag)


WaitKind = Literal["unplug", "plug-in", "eject"]


class Wait(Struct, frozen=True, kw_only=True):
    """Something that the user has to do. `before` is a step id, or "verify" for after the last step."""

    kind: WaitKind
    before: str
    text: str


class Blocked(Struct, frozen=True, kw_only=True):
    """Why (part of) the plan cannot be carried out. `code` is stable, `text` for people, `hint` what to do."""

    code: str
    text: str
    hint: str


class ModuleUse(Struct, frozen=True, kw_only=True):
    """A PKCS#11 module that verify loads."""

    name: str
    path: str


Part = Literal["all", "system", "driver"]
"""What a plan is limited to: what prepares the system, what is the brand's own, or both (see `core.plan.draft`)."""


class Plan(Struct, frozen=True, kw_only=True):
    """The whole plan. `id` is the SHA-256 of all the other fields (see `core.plan.plan_id`).

    Attributes:
        device: hardware id of the device it is for, or "" if it was asked for by name with nothing plugged in.
        source: target path and sequence of the signed manifest it was made from.
        restart: True if the machine has to be restarted to finish.
        waits: in order; empty if the token may stay plugged in.
        satisfied: what was looked at and needs no change, in plain words.
        needs: keys of all that the brand asks for (see `core.plan.identities`), whether it was there already or not, so that
            taking another brand back leaves it alone.
    """

    id: str
    brand: str
    brand_name: str
    vendor: str
    model: str
    device: str
    target: str
    sequence: int
    host: HostFacts
    steps: tuple[Step, ...]
    waits: tuple[Wait, ...]
    restart: bool
    blocked: tuple[Blocked, ...]
    satisfied: tuple[str, ...]
    needs: tuple[str, ...]
    modules: tuple[ModuleUse, ...]
    handoff: HandOff | None
    part: Part = "all"
