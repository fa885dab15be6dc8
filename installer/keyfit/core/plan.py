"""From brand data and host facts to a plan: pure.

Two halves, because only the machine knows what is there already: `draft` lists every step that the brand asks for on
such a machine; the engine looks which of them hold; `finish` keeps the others and gives the plan its id.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from keyfit.core.conditions import fits
from keyfit.model.catalog import (
    Brand,
    CcidListEntry,
    KernelModuleBlacklist,
    Model,
    Package,
    Patch,
    Pkcs11Module,
    Service,
    Texts,
    UdevRule,
)
from keyfit.model.host import HostFacts
from keyfit.model.plan import (
    Archive,
    Blocked,
    CcidListLine,
    Change,
    DistributionPackages,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    ModuleUse,
    NssModule,
    P11KitModule,
    PackageFile,
    Part,
    Plan,
    ServiceState,
    Step,
    UdevRuleFile,
    Wait,
)
from keyfit.model.usb import UsbDevice

CCID_LIST = "/etc/libccid_Info.plist"
"""libccid's device list on Debian and Ubuntu; the bundle's Info.plist links to it (Debian package libccid)."""
P11_KIT_DIRECTORY = "/etc/pkcs11/modules"
"""p11-kit's directory for the administrator's modules (p11-kit manual, "PKCS#11 Configuration")."""
FIREFOX_POLICIES = "/etc/firefox/policies/policies.json"
"""System-wide policies of Firefox on Linux (mozilla.github.io, Enterprise policy reference)."""
NSS_DATABASE = ".pki/nssdb"
"""Chromium's NSS database below the home directory; an existing one here wins over the newer place under
~/.local/share/pki (Chromium, crypto/nss_util)."""
ARCHIVE_PREFIX = "/opt/keyfit/brands"

COMPONENT_REASONS = {
    "driver": "lets the smart-card service talk to the token",
    "module": "lets browsers and other programs use the token (PKCS#11)",
    "browser-control": "lets the bank's pages use the token",
    "certificate-tool": "downloads and manages the certificate on the token",
}


class Draft(Struct, frozen=True, kw_only=True):
    """Every step that a brand asks for on a machine, before looking what is there already."""

    brand: Brand
    model: Model | None
    device: UsbDevice | None
    facts: HostFacts
    target: str
    steps: tuple[Step, ...]
    blocked: tuple[Blocked, ...]
    notes: tuple[str, ...]
    modules: tuple[ModuleUse, ...]
    needs: tuple[str, ...]
    part: Part


def draft(brand: Brand, model: Model | None, device: UsbDevice | None, facts: HostFacts, *, target: str,
          installed: Mapping[str, str], part: Part = "all", offline: bool = False, notes: Iterable[str] = ()) -> Draft:
    """List the steps.

    Texts are English, whatever the reader's language, so that the same plan has the same id for everyone.

    Args:
        installed: versions of the packages on the machine by name, for conflicts and to tell an upgrade from an install.
        part: "system" for what prepares the system: its own driver packages (pcscd and the like), patches and services.
            "driver" for the brand's own: every other package, and making its modules known. Each step is in exactly one.
        offline: no network is counted on (see `choose_packages`).
        notes: to be told with the plan.
    """
    chosen, left_out, blocked = choose_packages(brand, model, facts, installed if offline else None)
    notes = [*notes, *left_out]
    modules = [m for m in brand.module if fits(m.on, facts)]
    steps = [*_package_steps(brand, [p for p in chosen if part in ("all", _part_of(p))], facts, installed)]
    for patch in brand.patch if part != "driver" else ():
        if fits(patch.on, facts) and (model is None or not model.patches or patch.id in model.patches):
            if isinstance(patch, Service) and not facts.running_services:
                notes.append(f"{patch.unit}: no services run in this tree")
            else:
                steps.append(_patch_step(brand, patch))
    for module in modules if part != "system" else ():
        steps += _register_steps(module, facts)
    blocked += [
        Blocked(code="conflict", text=f"{c.package} is installed: {text_in(c.reason, 'en')}",
                hint=f"Remove {c.package} first, if nothing else needs it.")
        for c in brand.conflict if c.package in installed
    ]
    return Draft(
        brand=brand, model=model, device=device, facts=facts, target=target, steps=tuple(steps),
        blocked=tuple(blocked), notes=tuple(notes),
        modules=tuple(ModuleUse(name=m.name, path=m.path) for m in modules),
        needs=tuple(sorted({key for step in steps for key in identities(step.change)})), part=part,
    )


def _part_of(package: Package) -> Part:
    return "system" if package.kind == "distribution" and package.component == "driver" else "driver"


def finish(plan_draft: Draft, satisfied: Collection[str]) -> Plan:
    """Leave out the steps whose ids are in `satisfied`, add the waits and the id."""
    steps = tuple(s for s in plan_draft.steps if s.id not in satisfied)
    here = tuple(f"{s.action}: already so" for s in plan_draft.steps if s.id in satisfied)
    brand, model = plan_draft.brand, plan_draft.model
    plan = Plan(
        id="",
        brand=brand.brand,
        brand_name=brand.names.get("en", brand.brand),
        vendor=brand.vendor,
        model=model.name if model else "",
        device=plan_draft.device.hardware_id if plan_draft.device else "",
        target=plan_draft.target,
        sequence=brand.sequence,
        host=msgspec.structs.replace(plan_draft.facts, elevated=False),  # who asks is nothing about the machine
        steps=steps,
        waits=_waits(plan_draft, steps),
        restart=False,
        blocked=plan_draft.blocked,
        satisfied=here + plan_draft.notes,
        needs=plan_draft.needs,
        modules=plan_draft.modules,
        handoff=brand.hand_off,
        part=plan_draft.part,
    )
    return msgspec.structs.replace(plan, id=plan_id(plan))


def identities(change: Change) -> tuple[str, ...]:
    """Keys of what a change brings about; two changes with a key in common share that thing."""
    match change:
        case DistributionPackages():
            return tuple(f"package:{name}" for name in change.names)
        case PackageFile():
            return (f"package:{change.name}",)
        case Archive():
            return (f"folder:{change.prefix}",)
        case CcidListLine():
            return (f"reader:{change.id_vendor:04x}:{change.id_product:04x}",)
        case FirefoxPolicy() | NssModule():
            return (f"{change.__struct_config__.tag}:{change.name}:{change.module}",)
        case ServiceState():
            return (f"service:{change.unit}",)
        case UdevRuleFile() | P11KitModule() | KernelModuleBlacklistFile():
            return (f"file:{change.path}",)
        case _:
            assert_never(change)


def plan_id(plan: Plan) -> str:
    """SHA-256 (hex) over the canonical JSON of the plan without its id."""
    blank = msgspec.structs.replace(plan, id="")
    return hashlib.sha256(msgspec.json.encode(blank, order="sorted")).hexdigest()


def text_in(texts: Texts, language: str) -> str:
    """The text in `language`, else in its base language, else in English, else the first there is."""
    for key in (language, language.split("_")[0], "en"):
        if key in texts:
            return texts[key]
    return next(iter(texts.values()), "")


def needed_packages(brand: Brand, model: Model | None, facts: HostFacts, *, installable: bool = False) -> tuple[str, ...]:
    """Names of the packages that the brand asks for on such a machine, whether their files are at hand or not.

    Args:
        installable: leave out what only a running system can install, if this is another tree.
    """
    return tuple(dict.fromkeys(
        p.name for p in brand.package
        if fits(p.on, facts) and not (installable and facts.root != "/" and p.kind == "distribution")
        and (model is None or not model.packages or p.id in model.packages)))


def choose_packages(brand: Brand, model: Model | None, facts: HostFacts,
                    offline_with: Collection[str] | None = None) -> tuple[list[Package], list[str], list[Blocked]]:
    """The first fitting package of each (component, name), what is left out and why, and what blocks the plan.

    Args:
        offline_with: names of the packages that are installed, if there is no network: then a file of ours goes before
            the system's own archives, unless the package is there already, wherever it came from.
    """
    wanted = [p for p in brand.package if model is None or not model.packages or p.id in model.packages]
    groups: dict[tuple[str, str], list[Package]] = {}
    for package in wanted:
        if fits(package.on, facts):
            groups.setdefault((package.component, package.name), []).append(package)
    chosen, notes, blocked = [], [], []
    for (_, name), packages in groups.items():
        if offline_with is not None and name not in offline_with:
            packages.sort(key=lambda p: p.kind == "distribution")
        usable = next((p for p in packages if _usable(p, facts)), None)
        if usable is not None:
            chosen.append(usable)
        elif facts.root != "/":
            notes.append(f"{name}: left out, because only a running system can install it from its own archives")
        else:
            blocked.append(Blocked(
                code="no-package-tool", text=f"{name} cannot be installed: this system has none of the package tools"
                " that the brand's data knows (apt, dnf, dpkg, rpm)", hint="Install it by hand, then run this again."))
    if not groups and brand.status == "supported":
        blocked.append(Blocked(
            code="no-driver-for-system",
            text=f"{brand.names.get('en', brand.brand)} has no driver for {_system_name(facts)}",
            hint="Ask the bank or the maker of the token for a driver for this system."))
    if brand.status == "listed" and not chosen:
        blocked.append(Blocked(
            code="brand-without-driver",
            text=f"{brand.names.get('en', brand.brand)} is known, but no driver for it is known to Keyfit",
            hint="Use the disk or the page that came with the token."))
    return chosen, notes, blocked


def _usable(package: Package, facts: HostFacts) -> bool:
    tools = set(facts.package_managers)
    if package.kind == "distribution":
        return bool(tools & {"apt", "dnf"})
    if package.payload is None:
        return False
    return package.kind == "archive" or (package.kind == "deb" and "dpkg" in tools) or (
        package.kind == "rpm" and "rpm" in tools)


def _system_name(facts: HostFacts) -> str:
    words = [facts.distribution or facts.system, facts.version, f"on {facts.architecture}"]
    return " ".join(word for word in words if word)


def _package_steps(brand: Brand, packages: list[Package], facts: HostFacts, installed: Mapping[str, str]) -> Iterable[Step]:
    from_archives = [p for p in packages if p.kind == "distribution"]
    if from_archives:
        manager: Literal["apt", "dnf"] = "apt" if "apt" in facts.package_managers else "dnf"
        names = tuple(p.name for p in from_archives)
        reasons = dict.fromkeys(COMPONENT_REASONS[p.component] for p in from_archives)
        yield Step(
            id="packages",
            action=f"Install {', '.join(names)} with {manager} from the system's own archives",
            reason="; ".join(reasons),
            undo=f"Remove the packages that this added, {', '.join(names)} among them",
            elevated=True, size_bytes=0, change=DistributionPackages(manager=manager, names=names),
        )
    for package in packages:
        if package.kind != "distribution":
            yield _file_step(brand, package, installed.get(package.name, ""))


def _file_step(brand: Brand, package: Package, installed: str) -> Step:
    payload = package.payload
    if payload is None:  # pragma: no cover - _usable lets none through
        raise ValueError(f"package {package.id} has no payload")
    change: Archive | PackageFile
    if package.kind == "archive":
        prefix = archive_prefix(brand, package)
        change = Archive(payload=payload, prefix=prefix, files=package.files)
        action, undo = f"Unpack {payload.file} into {prefix}", f"Delete {prefix}"
    else:
        change = PackageFile(format="deb" if package.kind == "deb" else "rpm", name=package.name,
                             version=package.version, payload=payload)
        action, undo = f"Install the package {package.name} {package.version} from {payload.file}", (
            f"Remove the package {package.name}")
        if package.kind == "deb" and installed and package.version not in ("", installed):
            action = f"Replace the package {package.name} {installed} with {package.version} from {payload.file}"
            undo = f"Go back to {package.name} {installed}"
    return Step(id=f"package-{package.id}", action=action, reason=COMPONENT_REASONS[package.component], undo=undo,
                elevated=True, size_bytes=payload.length_bytes, change=change)


def archive_prefix(brand: Brand, package: Package) -> str:
    """The folder that an archive is unpacked into."""
    return f"{ARCHIVE_PREFIX}/{brand.brand}/{package.id}"


def _patch_step(brand: Brand, patch: Patch) -> Step:
    reason = text_in(patch.reason, "en")
    change: CcidListLine | UdevRuleFile | KernelModuleBlacklistFile | ServiceState
    match patch:
        case CcidListEntry():
            change = CcidListLine(path=CCID_LIST, id_vendor=patch.id_vendor, id_product=patch.id_product,
                                  friendly_name=patch.friendly_name)
            action = f"Add {patch.id_vendor:04X}:{patch.id_product:04X} to {CCID_LIST} and restart pcscd"
            undo = f"Take the entry out of {CCID_LIST} again and restart pcscd"
        case UdevRule():
            change = UdevRuleFile(path=f"/etc/udev/rules.d/70-keyfit-{brand.brand}-{patch.id}.rules",
                                  subsystem=patch.subsystem, id_vendor=patch.id_vendor, id_product=patch.id_product)
            action, undo = f"Write {change.path}, so that the logged-in user may use the token", f"Delete {change.path}"
        case KernelModuleBlacklist():
            change = KernelModuleBlacklistFile(path=f"/etc/modprobe.d/keyfit-{brand.brand}-{patch.id}.conf",
                                               modules=patch.modules)
            action = f"Write {change.path}, so that the kernel leaves the device to the smart-card service"
            undo = f"Delete {change.path}"
        case Service():
            change = ServiceState(unit=patch.unit)
            action, undo = f"Enable and start {patch.unit}", f"Put {patch.unit} back as it was"
        case _:
            assert_never(patch)
    return Step(id=f"patch-{patch.id}", action=action, reason=reason, undo=undo, elevated=True, size_bytes=0,
                change=change)


def _register_steps(module: Pkcs11Module, facts: HostFacts) -> Iterable[Step]:
    reason = f"makes the token's certificates usable in {{}} ({module.path})"
    if "p11-kit" in module.register:
        path = f"{P11_KIT_DIRECTORY}/keyfit-{module.id}.module"
        yield Step(id=f"p11-kit-{module.id}", action=f"Write {path}", undo=f"Delete {path}", elevated=True,
                   size_bytes=0, reason=reason.format("programs that use p11-kit"),
                   change=P11KitModule(path=path, module=module.path))
    if "firefox" in module.register and "firefox" in facts.browsers:
        yield Step(id=f"firefox-{module.id}", action=f"Add the module {module.name} to {FIREFOX_POLICIES}",
                   undo=f"Take it out of {FIREFOX_POLICIES}", elevated=True, size_bytes=0,
                   reason=reason.format("Firefox"),
                   change=FirefoxPolicy(path=FIREFOX_POLICIES, name=module.name, module=module.path))
    if "chromium" in module.register and "chromium" in facts.browsers:
        yield Step(id=f"chromium-{module.id}", action=f"Add the module {module.name} to ~/{NSS_DATABASE}",
                   undo=f"Take it out of ~/{NSS_DATABASE}", elevated=False, size_bytes=0,
                   reason=reason.format("Chromium and Chrome"),
                   change=NssModule(database=NSS_DATABASE, name=module.name, module=module.path))


def _waits(plan_draft: Draft, steps: tuple[Step, ...]) -> tuple[Wait, ...]:
    if plan_draft.part == "system":
        return ()  # the token's turn comes with the driver
    waits = []
    if steps and plan_draft.brand.insert_order == "unplug-before-install":
        if plan_draft.device is not None:
            waits.append(Wait(kind="unplug", before=steps[0].id,
                              text="Unplug the token: its driver has to be installed first."))
        waits.append(Wait(kind="plug-in", before="verify", text="Plug the token in again."))
    elif _shows_a_disc(plan_draft):
        waits.append(Wait(kind="eject", before="verify",
                          text="Eject the disc that the token shows; leave the token plugged in."))
    return tuple(waits)


def _shows_a_disc(plan_draft: Draft) -> bool:
    """True if the plugged device is a token that turns from a CD-ROM into a token when ejected."""
    device, model = plan_draft.device, plan_draft.model
    if device is None or model is None:
        return False
    return any(m.cd_rom == "eject" and m.id_vendor == device.id_vendor and m.id_product == device.id_product
               for m in model.match) and not device.has_class(0x0B)
