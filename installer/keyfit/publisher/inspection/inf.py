"""Windows driver packages: INF, catalogue and files, in a zip or a cabinet (security B4, B5, B6, J3).

The Driver Store takes exactly the files that an INF names (learn.microsoft.com: "Components of a Driver Package"), so
exactly those may be there, and each has to be in the catalogue.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from msgspec import Struct

from keyfit.engine.archives import name_problem
from keyfit.publisher.inspection.archive import binary, each_member
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.cabinet import Cabinet
from keyfit.publisher.inspection.catalogue import HARDWARE_DRIVER, Catalogue, read_catalogue
from keyfit.publisher.inspection.findings import Findings
from keyfit.publisher.inspection.infrules import look
from keyfit.publisher.inspection.inftext import InfText, read_inf
from keyfit.publisher.inspection.limits import MAX_BINARY_BYTES
from keyfit.publisher.inspection.reports import BinaryReport, InfReport
from keyfit.publisher.inspection.source import Malformed, Source

_ARCHITECTURES = {"": "i386", "x86": "i386", "amd64": "amd64", "arm64": "arm64"}
"""Platform extensions of models sections (learn.microsoft.com: "INF Manufacturer Section"); without one it is x86."""


class _Named(Struct):
    """What the INFs of a package name: files by their lower-case path or name, catalogues, hardware ids."""

    files: set[str]
    catalogues: set[str]
    ids: dict[str, None]
    architectures: dict[str, None]


def inspect(source: Source, trust: Trust) -> InfReport:
    """Read a driver package.

    Raises:
        Malformed: it is no zip or cabinet, or has no INF.
    """
    findings = Findings()
    files = dict(_files(source, findings))
    texts = {}
    for name, data in files.items():
        if name.lower().endswith(".inf"):
            try:
                texts[name] = read_inf(data)
            except Malformed as error:
                raise Malformed(f"{name}: {error}") from error
    if not texts:
        raise Malformed("expected a driver package with an INF file, found none")
    named = _Named(set(), set(), {}, {})
    for name, text in texts.items():
        look(name, text, findings)
        _collect(name, text, named, findings)
    binaries = tuple(binary(name, data, trust) for name, data in files.items() if data[:2] == b"MZ")
    _compare(files, texts, named, findings)
    catalogue = _catalogue(files, named, findings, trust)
    if catalogue is not None:
        _covered(files, {one.name: one for one in binaries}, catalogue, findings)
    signature = catalogue.signature if catalogue else None
    return InfReport(
        classes=_each(texts, "Class"), providers=_each(texts, "Provider"),
        versions=tuple(dict.fromkeys(text.values("Version", "DriverVer")[1] for text in texts.values()
                                     if len(text.values("Version", "DriverVer")) > 1)),
        architectures=tuple(named.architectures), hardware_ids=tuple(named.ids), binaries=binaries, signature=signature,
        driver_signed=signature is not None and bool(set(signature.usages) & set(HARDWARE_DRIVER)),
        files=tuple(files), problems=findings.problems, notes=findings.notes)


def _files(source: Source, findings: Findings) -> Iterator[tuple[str, bytes]]:
    if source.read(0, 4) != b"MSCF":
        yield from ((member.name, member.data) for member in each_member(source, findings))
        return
    cabinet = Cabinet(source)
    for file in cabinet.files:
        if not cabinet.readable(file):
            raise Malformed(f"expected a cabinet with stored or MSZIP files, came {cabinet.compression(file)}: pack the same"
                            " files as a zip")
        fault = name_problem(file.name.replace("\\", "/"))
        if fault:
            findings.problem(fault)
    seen: set[str] = set()
    for file, data in cabinet.contents(cabinet.files, MAX_BINARY_BYTES):
        name = file.name.replace("\\", "/")
        if name.lower() in seen:
            findings.problem(f"{name!a}: expected each name once, came twice")
        seen.add(name.lower())
        yield name, data


def _collect(name: str, text: InfText, named: _Named, findings: Findings) -> None:
    """What one INF names, and what its Version section has to say."""
    for key in ("Class", "ClassGuid", "Provider", "DriverVer"):
        if not text.value("Version", key):
            findings.problem(f"{name}: expected {key} in [Version], found none")
    catalogues = [entry.value(0) for entry in text.section("Version") if entry.key.lower().startswith("catalogfile")]
    if not catalogues:
        findings.problem(f"{name}: expected CatalogFile in [Version], found none: the package is not signed")
    named.catalogues |= {one.lower() for one in catalogues}
    named.files |= set(_source_files(text))
    for models in text.section("Manufacturer"):
        section = models.value(0) or models.key
        for target in ("", *models.values[1:]):
            architecture = _architecture(target)
            for model in text.section(f"{section}.{target}" if target else section):
                named.architectures.setdefault(architecture)
                for hardware_id in model.values[1:]:
                    if hardware_id:
                        named.ids.setdefault(f"{architecture} {hardware_id.upper()}")


def _architecture(target: str) -> str:
    """"NTamd64.10.0...16299" -> "amd64"."""
    extension = target.lower().removeprefix("nt").split(".")[0]
    return _ARCHITECTURES.get(extension, extension)


def _source_files(text: InfText) -> Iterator[str]:
    """Files that the INF takes from the package, with the folder where it says so, in lower case."""
    folders: dict[str, str] = {}
    for name in text.sections:
        if name.startswith("sourcedisksnames"):
            folders |= {entry.key: entry.value(3) for entry in text.section(name)}
    for name in text.sections:
        if name.startswith("sourcedisksfiles"):
            for entry in text.section(name):
                parts = (folders.get(entry.value(0), ""), entry.value(1), entry.key or entry.value(0))
                yield "/".join(part.replace("\\", "/").strip("/") for part in parts if part).lower()
    for _, entry in text.directives("copyfiles"):
        for value in entry.values:
            if value.startswith("@"):
                yield value[1:].lower()
            else:
                yield from ((line.value(1) or line.value(0) or line.key).lower() for line in text.section(value))
    for _, entry in text.directives("copyinf"):
        yield from (value.lower() for value in entry.values)


def _compare(files: Mapping[str, bytes], texts: Mapping[str, InfText], named: _Named, findings: Findings) -> None:
    """Security B5: everything that is named is there, and nothing else."""
    there = {name.lower() for name in files}
    last_names = {PurePosixPath(name).name for name in there}
    for wanted in sorted(named.files | named.catalogues):
        if wanted and wanted not in there and PurePosixPath(wanted).name not in last_names:
            findings.problem(f"expected the file {wanted!a}, which the INF names, found none")
    known = {PurePosixPath(wanted).name for wanted in named.files | named.catalogues}
    for name in files:
        if name not in texts and PurePosixPath(name.lower()).name not in known:
            findings.problem(f"{name}: expected only files that an INF names, this one is not")


def _catalogue(files: Mapping[str, bytes], named: _Named, findings: Findings, trust: Trust) -> Catalogue | None:
    """All catalogues of the package as one; the first one's signature, unless another is at fault."""
    found: list[Catalogue] = []
    for name, data in files.items():
        if PurePosixPath(name.lower()).name in {PurePosixPath(one).name for one in named.catalogues}:
            try:
                found.append(read_catalogue(data, trust))
            except Malformed as error:
                findings.problem(f"{name}: {error}")
    if not found:
        return None
    signature = next((one.signature for one in found if one.signature.fault), found[0].signature)
    if len({(one.signature.subject, one.signature.issuer) for one in found}) > 1:
        findings.problem("expected one signer for all catalogues, came several")
    return Catalogue(frozenset[str]().union(*(one.hashes for one in found)), signature)


def _covered(files: Mapping[str, bytes], binaries: Mapping[str, BinaryReport], catalogue: Catalogue,
             findings: Findings) -> None:
    for name, data in files.items():
        if name.lower().endswith(".cat"):
            continue
        hashes = {hashlib.new(one, data, usedforsecurity=False).hexdigest() for one in ("sha1", "sha256")}
        hashes |= set(binaries[name].image_hashes) if name in binaries else set()
        if not hashes & catalogue.hashes:
            findings.problem(f"{name}: expected every file in the catalogue, this one is not, or was changed since")


def _each(texts: Mapping[str, InfText], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.value("Version", key) for text in texts.values() if text.value("Version", key)))
