"""Holds a package file against what the brand data declares of it (security B1-B6): what is inside is what is declared.

`look` asks the child for a report and judges it. Everything that does not agree is told at once, each as what was expected
and what came. Problems refuse the file; notes are for the publisher's eyes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from keyfit.errors import DataError
from keyfit.model.catalog import AppleDeveloper, Authenticode, Brand, Match, Package, Payload
from keyfit.publisher.blocklist import Blocklist, numbers
from keyfit.publisher.inspection import reports
from keyfit.publisher.inspection.reports import BinaryReport, Report, SignatureReport

RUNS_ON: Mapping[str, tuple[str, ...]] = {"amd64": ("amd64", "i386"), "arm64": ("arm64", "amd64", "i386"), "i386": ("i386",)}
"""Architecture of Windows -> the programs that run on it (learn.microsoft.com: "WOW64", "How emulation works on Arm").
Drivers do not: for them only the system's own counts."""
ALL = ("amd64", "arm64", "i386")
UNSEEN = {"dmg": "expected a file that can be looked into, came a disk image: publish the installer package (pkg) in it"}


class Checks(Struct, frozen=True, kw_only=True):
    """What packages are held against. Without a block list no file with Windows programs passes; without roots the
    system's own are taken."""

    blocklist: Blocklist | None = None
    roots: Path | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """A report and what is to be said of it."""

    report: Report | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def look(brand: Brand, package: Package, file: Path, checks: Checks, *, name: str = "") -> Verdict:
    """Look at a package file and judge it.

    Args:
        brand: what declares the package.
        package: what the file is for.
        file: the file.
        checks: block list and roots.
        name: how the file is called in messages, if not by its own name.

    Raises:
        DataError: code "package-content": it is not in the form of its kind at all.
    """
    from keyfit.publisher.inspection.chain import system_roots
    from keyfit.publisher.inspection.run import inspect

    shown = name or file.name
    if package.kind in UNSEEN:
        return Verdict(report=None, problems=(f"{shown}: {UNSEEN[package.kind]}",), notes=())
    report = inspect(package.kind, file, checks.roots or system_roots(), name=shown)
    problems = (*report.problems, *judge(brand, package, report, checks.blocklist))
    return Verdict(report=report, problems=tuple(f"{shown}: {text}" for text in dict.fromkeys(problems)),
                   notes=tuple(f"{shown}: {text}" for text in (*report.notes, *_notes(report))))


def require_sound(brand: Brand, package: Package, file: Path, checks: Checks, *, name: str = "") -> Verdict:
    """As `look`, for a file that is about to be published.

    Raises:
        DataError: code "package-content"; `problems` has everything that is wrong with the file.
    """
    verdict = look(brand, package, file, checks, name=name)
    if verdict.problems:
        raise refused(brand, package, verdict)
    return verdict


def refused(brand: Brand, package: Package, verdict: Verdict) -> DataError:
    """The error for a file with problems."""
    count = len(verdict.problems)
    return DataError("package-content", f"Expected in {brand.brand}/{package.id} what its brand data declares and a package"
                     f" may do, found {count} problem{'s' * (count != 1)}.", verdict.problems,
                     hint="Correct the brand data if it is wrong about the file; a file that does what is refused cannot be"
                     " published. The roots for signatures can be given with --roots FILE.")


def unsigned(brands: Sequence[Brand], payloads: Mapping[tuple[str, str], Payload]) -> tuple[str, ...]:
    """Security B1: packages for Windows and macOS with a file and without an expected signer.

    Args:
        brands: all of them.
        payloads: (brand, package id) -> file that was added.
    """
    return tuple(f"{brand.brand}/{package.id}: expected a signature beside the file for {package.on.system}, found none"
                 for brand in brands for package in brand.package
                 if needs_signature(package) and package.signature is None
                 and (package.payload is not None or (brand.brand, package.id) in payloads))


def require_signers(brands: Sequence[Brand], payloads: Mapping[tuple[str, str], Payload]) -> None:
    """See that no file goes out without an expected signer, before a release.

    Raises:
        DataError: code "signer-missing"; `problems` names every package.
    """
    problems = unsigned(brands, payloads)
    if problems:
        raise DataError("signer-missing", f"Expected a signer for every file for Windows and macOS, {len(problems)} have"
                        " none.", problems, hint="Name who signs it in the brand data: keyfit-publish check DRIVERS"
                        " --package BRAND/ID FILE prints who did.")


def needs_signature(package: Package) -> bool:
    """Is it a file for a system whose files vendors sign?"""
    return package.kind != "distribution" and package.on.system in ("windows", "macos")


def judge(brand: Brand, package: Package, report: Report, blocklist: Blocklist | None) -> Iterator[str]:
    """Everything in a report that does not agree with the brand data, or is on the block list."""
    yield from _declared(brand, package, report)
    yield from _blocked(report, blocklist)


def _declared(brand: Brand, package: Package, report: Report) -> Iterator[str]:
    match report:
        case reports.DebReport() | reports.RpmReport():
            yield from _linux_package(package, report)
        case reports.ArchiveReport():
            yield from _archive(package, report)
        case reports.ExeReport():
            yield from _version(package, report.binary.versions)
            yield from _machine(package, report.binary.machine)
            yield from _signer(package, report.binary.signature)
        case reports.MsiReport():
            yield from _version(package, (report.version,))
            yield from _machine(package, report.architecture)
            yield from _signer(package, report.signature)
            yield from _inner(report.binaries)
        case reports.InfReport():
            yield from _driver(brand, package, report)
        case reports.PkgReport():
            yield from _version(package, tuple(one.rpartition(" ")[2] for one in report.components))
            yield from _signer(package, report.signature)


def _linux_package(package: Package, report: reports.DebReport | reports.RpmReport) -> Iterator[str]:
    if report.name != package.name:
        yield f"expected the package {package.name}, came {report.name!a}"
    known = {report.version}
    if isinstance(report, reports.RpmReport):
        known.add(report.version.rpartition("-")[0].rpartition(":")[2])
    if package.version and package.version not in known:
        yield f"expected the version {package.version}, came {report.version!a}"
    wanted = package.on.architecture
    if report.architecture != "all" and wanted != (report.architecture,):
        yield f"expected the architecture {' and '.join(wanted) or 'all'}, came {report.architecture!a}"
    if package.signature is not None:
        yield "expected no signature for a Linux package: the repository's hash stands for it"


def _archive(package: Package, report: reports.ArchiveReport) -> Iterator[str]:
    came, declared = set(report.files), set(package.files)
    for name in sorted(declared - came):
        yield f"expected the file {name!a}, which files lists, found none"
    for name in sorted(came - declared):
        yield f"expected only what files lists, came {name!a} too"
    if package.on.system == "macos":
        yield "expected a package whose signature can be checked, came an archive for macOS: publish a pkg"
    for binary in report.binaries:
        if package.on.system == "windows":
            yield from (f"{binary.name}: {text}" for text in _signer(package, binary.signature))
            yield from (f"{binary.name}: {text}" for text in _machine(package, binary.machine))
    if package.on.system == "windows" and not report.binaries:
        yield from _signer(package, None)


def _driver(brand: Brand, package: Package, report: reports.InfReport) -> Iterator[str]:
    yield from _version(package, report.versions)
    yield from _signer(package, report.signature)
    for architecture in package.on.architecture or ALL:
        if architecture not in report.architectures:
            yield f"expected models for {architecture}, the INF has them for {', '.join(report.architectures) or 'none'}"
    yield from _hardware_ids(brand, package, report)
    kernel = [binary for binary in report.binaries if binary.kernel]
    wanted = isinstance(package.signature, Authenticode) and package.signature.kernel
    for binary in kernel:
        if not wanted:
            yield f"{binary.name}: a kernel driver needs kernel = true in signature (Microsoft's hardware signature)"
    if (wanted or kernel) and not report.driver_signed:
        yield "expected a catalogue signed by Microsoft for hardware drivers, its certificate is not for that use"
    for binary in report.binaries:
        if binary.signature is not None and binary.signature.fault:
            yield f"{binary.name}: its own signature does not hold: {binary.signature.fault}"


def _hardware_ids(brand: Brand, package: Package, report: reports.InfReport) -> Iterator[str]:
    """Every device that the brand declares for this package has to be in the models, for each architecture."""
    if all(one.upper().split(" ", 1)[-1].startswith("SCFILTER\\") for one in report.hardware_ids) and report.hardware_ids:
        return  # a smart card minidriver is found by the card's answer, not by USB ids
    for architecture in package.on.architecture or ALL:
        listed = [one.split(" ", 1)[1] for one in report.hardware_ids if one.startswith(architecture + " ")]
        for match in _matches(brand, package):
            if listed and not any(_covers(one, match) for one in listed):
                yield f"expected the hardware id {_hardware_id(match)} in the models for {architecture}, found none"


def _matches(brand: Brand, package: Package) -> Iterator[Match]:
    """With exact ids, of the models that need this package; a disc is not what a driver is for."""
    for model in brand.model:
        if not model.packages or package.id in model.packages:
            yield from (match for match in model.match if match.id_product is not None and not match.cd_rom)


def _hardware_id(match: Match) -> str:
    return f"USB\\VID_{match.id_vendor or 0:04X}&PID_{match.id_product or 0:04X}"


def _covers(listed: str, match: Match) -> bool:
    """Is a device of this match installed by a line with that id (learn.microsoft.com: "Standard USB Identifiers")?"""
    wanted = _hardware_id(match)
    return listed == wanted or listed.startswith(wanted + "&") or (
        match.b_interface_class is not None and listed.startswith(f"USB\\CLASS_{match.b_interface_class:02X}"))


def _version(package: Package, came: tuple[str, ...]) -> Iterator[str]:
    """The same numbers; "1, 2" is "1.2", and zeros at the end do not count."""
    if not package.version or package.version in came:
        return
    wanted = numbers(package.version)
    if not wanted or wanted not in [numbers(text) for text in came]:
        yield f"expected the version {package.version}, came {' and '.join(filter(None, came))[:200] or 'none'}"


def _machine(package: Package, machine: str) -> Iterator[str]:
    for architecture in package.on.architecture or ALL:
        if machine not in RUNS_ON[architecture]:
            yield f"expected a program that runs on {architecture}, came one for {machine or 'an unknown machine'}"


def _signer(package: Package, came: SignatureReport | None) -> Iterator[str]:
    """Security B1, B2: an expected signer, and exactly that one."""
    wanted = package.signature
    if came is None:
        yield "expected a signature, came an unsigned file"
    elif came.fault:
        yield f"expected a signature that holds: {came.fault}"
    if wanted is None:
        who = f"; the file is signed by subject {came.subject!a}, issuer {came.issuer!a}" if came and came.subject else ""
        yield f"expected a signature in the brand data that names the signer, found none{who}"
    elif came is None:
        return
    elif isinstance(wanted, AppleDeveloper):
        if came.team_id != wanted.team_id:
            yield f"expected the developer team {wanted.team_id}, came {came.team_id or 'none'} ({came.subject!a})"
    else:
        for what, expected, found in (("subject", wanted.subject, came.subject), ("issuer", wanted.issuer, came.issuer)):
            if expected != found:
                yield f"expected the signer's {what} {expected!a}, came {found!a}"


def _inner(binaries: Sequence[BinaryReport]) -> Iterator[str]:
    """Programs inside a package whose own signature stands for them; a driver needs Microsoft's besides (B4)."""
    from keyfit.publisher.inspection.catalogue import HARDWARE_DRIVER

    for binary in binaries:
        signature = binary.signature
        if signature is not None and signature.fault:
            yield f"{binary.name}: its own signature does not hold: {signature.fault}"
        elif binary.kernel and not (signature and set(signature.usages) & set(HARDWARE_DRIVER)):
            yield f"{binary.name}: expected a kernel driver signed by Microsoft for hardware drivers, it is not;" \
                  " publish it as a driver package (kind inf)"


def binaries_of(report: Report) -> tuple[BinaryReport, ...]:
    """The Windows programs of a report."""
    if isinstance(report, reports.ExeReport):
        return (report.binary,)
    return report.binaries if isinstance(report, reports.ArchiveReport | reports.MsiReport | reports.InfReport) else ()


def _blocked(report: Report, blocklist: Blocklist | None) -> Iterator[str]:
    """Security B6."""
    found = binaries_of(report)
    if found and blocklist is None:
        yield "expected a driver block list to hold its programs against, found none"
    for binary in found if blocklist is not None else ():
        what = blocklist.match(binary) if blocklist else ""
        if what:
            yield f"{binary.name or 'it'} is on the driver block list: {what}"


def _notes(report: Report) -> Iterator[str]:
    if isinstance(report, reports.MsiReport):
        bare = [binary.name for binary in report.binaries if binary.signature is None and binary.sha256]
        if bare:
            yield f"{len(bare)} programs inside are not signed themselves: {', '.join(bare[:10])}"
