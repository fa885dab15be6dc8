"""Windows Installer packages: who made them, what they run and set, what is in their cabinets, and their signature.

Tables as in "Windows Installer Database Reference" (learn.microsoft.com). A signature is the stream `\\x05DigitalSignature`:
Authenticode over all other streams in the order of their names, and the class ids of the storages. With the stream
`\\x05MsiDigitalSignatureEx`, a hash over the directory's own data goes first (after osslsigncode's msi.c; GPL, read, not copied).
"""

import hashlib
from collections.abc import Iterator

from keyfit.publisher.inspection.archive import binary
from keyfit.publisher.inspection.authenticode import Trust, inspect_signature
from keyfit.publisher.inspection.cabinet import Cabinet, CabinetFile
from keyfit.publisher.inspection.cfb import ROOT, STORAGE, STREAM, CompoundFile, Entry
from keyfit.publisher.inspection.findings import Findings, is_text
from keyfit.publisher.inspection.limits import MAX_BINARY_BYTES, MAX_SIGNATURE_BYTES, MAX_TEXT_BYTES
from keyfit.publisher.inspection.msitables import Database, Row, summary
from keyfit.publisher.inspection.reports import BinaryReport, MsiReport, SignatureReport
from keyfit.publisher.inspection.source import Malformed, Source

_SIGNATURE = "\x05DigitalSignature".encode("utf-16-le")
_SIGNATURE_EX = "\x05MsiDigitalSignatureEx".encode("utf-16-le")
_SUMMARY = "\x05SummaryInformation"
_TEMPLATE = 7
_PLATFORMS = {"": "i386", "intel": "i386", "x64": "amd64", "amd64": "amd64", "arm64": "arm64"}
"""First part of the summary property Template (learn.microsoft.com: "Template Summary")."""
_ROOTS = {-1: "", 0: r"Software\Classes", 1: "", 2: "", 3: ""}
"""Registry table, column Root."""
_ACTIONS = {1: "a library in the package", 2: "a program in the package", 5: "JScript in the package",
            6: "VBScript in the package", 17: "an installed library", 18: "an installed program", 19: "an error message",
            21: "installed JScript", 22: "installed VBScript", 34: "a program in a folder", 35: "sets a folder",
            37: "JScript", 38: "VBScript", 50: "a program named by a property", 51: "sets a property",
            53: "JScript in a property", 54: "VBScript in a property", 7: "another package", 23: "another package",
            39: "another package"}
"""Basic custom action types (learn.microsoft.com: "Summary List of All Custom Action Types")."""
_SETTERS = (19, 35, 51)
_CERTIFICATE_TABLES = ("Certificate", "IIsCertificate", "Wix4Certificate", "WixIIsCertificate")
_FIREWALL_TABLES = ("WixFirewallException", "Wix4FirewallException", "Wix5FirewallException")
"""Tables of the WiX toolset's extensions."""
MAX_BINARIES = 2_000


def inspect(source: Source, trust: Trust) -> MsiReport:
    """Read a package.

    Raises:
        Malformed: it is none.
    """
    container = CompoundFile(source)
    database = Database(container)
    findings = Findings()
    properties = {str(row.get("Property")): str(row.get("Value") or "") for row in database.rows("Property")}
    actions = tuple(_actions(database, findings))
    _settings(database, findings)
    for name, value in properties.items():
        findings.script(f"property {name}", value)
    _embedded_scripts(container, database, findings)
    binaries = tuple(_binaries(container, database, findings, trust))
    return MsiReport(
        product=properties.get("ProductName", ""), version=properties.get("ProductVersion", ""),
        manufacturer=properties.get("Manufacturer", ""), architecture=_architecture(container, database),
        actions=actions, binaries=binaries, signature=_signature(container, trust),
        files=tuple(_long_name(row) for row in database.rows("File")), problems=findings.problems, notes=findings.notes)


def _architecture(container: CompoundFile, database: Database) -> str:
    entry = database.streams.get(_SUMMARY)
    template = summary(container.read(entry, MAX_TEXT_BYTES)).get(_TEMPLATE, "") if entry else ""
    platform = str(template).split(";")[0].split(",")[0].strip().lower()
    return _PLATFORMS.get(platform, platform)


def _actions(database: Database, findings: Findings) -> Iterator[str]:
    for row in database.rows("CustomAction"):
        kind = int(row.get("Type") or 0) & 0x3F
        name, target = f"custom action {row.get('Action')}", str(row.get("Target") or "")
        findings.script(name, f"{row.get('Source') or ''} {target}")
        if kind not in _SETTERS:
            yield f"{row.get('Action')}: {_ACTIONS.get(kind, f'type {kind}')} ({target[:120]})"


def _settings(database: Database, findings: Findings) -> None:
    """Everything that tables set in the registry, in services and in trust stores."""
    for table in ("Registry", "RemoveRegistry"):
        for row in database.rows(table):
            root = _ROOTS.get(int(row.get("Root") or 0), "")
            key = "\\".join(part for part in (root, str(row.get("Key") or "")) if part)
            name = str(row.get("Name") or "")
            whole = name in ("*", "-", "+") or (table == "RemoveRegistry" and name == "-")
            findings.registry(f"table {table}", key, "*" if whole else name)
    for table in ("ServiceInstall", "ServiceControl"):
        for row in database.rows(table):
            findings.registry(f"table {table}", rf"SYSTEM\CurrentControlSet\Services\{row.get('Name') or ''}", "*")
    tables = database.tables()
    for table in tables:
        if table in _CERTIFICATE_TABLES and any(True for _ in database.rows(table)):
            findings.problem(f"table {table} adds certificates to the machine's store; a driver package may not")
        if table in _FIREWALL_TABLES and any(True for _ in database.rows(table)):
            findings.problem(f"table {table} opens the firewall; a driver package may not")


def _embedded_scripts(container: CompoundFile, database: Database, findings: Findings) -> None:
    for name, entry in database.streams.items():
        if name.startswith("Binary.") and entry.size <= MAX_TEXT_BYTES:
            data = container.read(entry, MAX_TEXT_BYTES)
            if is_text(data):
                findings.script(f"script {name}", data.decode("latin-1"))


def _binaries(container: CompoundFile, database: Database, findings: Findings, trust: Trust) -> Iterator[BinaryReport]:
    """Programs in the cabinets inside the package; those that cannot be read by name and version of the File table."""
    known = {str(row.get("File")): row for row in database.rows("File")}
    count = 0
    for row in database.rows("Media"):
        cabinet = str(row.get("Cabinet") or "")
        if not cabinet.startswith("#"):
            if cabinet:
                findings.problem(f"expected all files inside the package, {cabinet!a} lies beside it")
            continue
        entry = database.stream(cabinet[1:])
        if entry is None:
            raise Malformed(f"expected the cabinet {cabinet[1:]!a} inside the package")
        for report in _from_cabinet(container.open(entry), known, findings, trust):
            count += 1
            if count > MAX_BINARIES:
                raise Malformed(f"expected at most {MAX_BINARIES} programs, came more")
            yield report


def _from_cabinet(source: Source, known: dict[str, Row], findings: Findings, trust: Trust) -> Iterator[BinaryReport]:
    cabinet = Cabinet(source)
    readable = []
    for file in cabinet.files:
        row = known.get(file.name, {})
        name = _long_name(row) if row else file.name
        unseen = _unseen(cabinet, file)
        if not unseen:
            readable.append(file)
            continue
        findings.note(f"files {unseen} are not unpacked here: they are known by name and version only")
        if name.lower().endswith(".sys"):
            findings.problem(f"{name}: a kernel driver {unseen} cannot be looked at; publish the driver as a driver package"
                             " (kind inf)")
        yield BinaryReport(name=name, versions=tuple(filter(None, (str(row.get("Version") or ""),))), size_bytes=file.size)
    for file, data in cabinet.contents(readable, MAX_BINARY_BYTES):
        if data[:2] == b"MZ":
            row = known.get(file.name, {})
            yield binary(_long_name(row) if row else file.name, data, trust)


def _unseen(cabinet: Cabinet, file: CabinetFile) -> str:
    """Why a file's bytes are not looked at; empty if they are."""
    if not cabinet.readable(file):
        return f"packed with {cabinet.compression(file)}"
    return f"of more than {MAX_BINARY_BYTES} bytes" if file.size > MAX_BINARY_BYTES else ""


def _long_name(row: Row) -> str:
    """"SHORT.DLL|a long name.dll" -> the long one (learn.microsoft.com: "Filename")."""
    return str(row.get("FileName") or "").split("|")[-1]


def _signature(container: CompoundFile, trust: Trust) -> SignatureReport | None:
    children = {entry.name: entry for entry in container.children(container.root) if entry.kind == STREAM}
    entry = children.get(_SIGNATURE)
    if entry is None:
        return None
    extended = children.get(_SIGNATURE_EX)
    directory_hash = container.read(extended, 64) if extended else b""

    def file_hash(name: str) -> bytes:
        running = hashlib.new(name, usedforsecurity=False)
        if extended:
            running.update(directory_hash)
        for piece in _content(container, container.root):
            running.update(piece)
        return running.digest()

    report = inspect_signature(container.read(entry, MAX_SIGNATURE_BYTES), file_hash, trust)
    if extended and not report.fault:
        running = hashlib.new(report.hash, usedforsecurity=False)
        for piece in _directory(container, container.root):
            running.update(piece)
        if running.digest() != directory_hash:
            return SignatureReport(fault="the hash over the names and sizes of its streams is not that of the file")
    return report


def _sorted_children(container: CompoundFile, storage: Entry) -> list[Entry]:
    """By the octets of their names; of two that begin alike the longer one first."""
    children = container.children(storage)
    if storage.kind == ROOT:
        children = [entry for entry in children if entry.name not in (_SIGNATURE, _SIGNATURE_EX)]
    return sorted(children, key=lambda entry: entry.name + b"\0\0" + b"\xff" * 66)


def _content(container: CompoundFile, storage: Entry) -> Iterator[bytes]:
    for entry in _sorted_children(container, storage):
        if entry.kind == STORAGE:
            yield from _content(container, entry)
        elif entry.size:
            yield from container.chunks(entry)
    yield storage.class_id


def _directory(container: CompoundFile, storage: Entry) -> Iterator[bytes]:
    yield from _metadata(storage)
    for entry in _sorted_children(container, storage):
        if entry.kind == STORAGE:
            yield from _directory(container, entry)
        else:
            yield from _metadata(entry)


def _metadata(entry: Entry) -> Iterator[bytes]:
    """Name, class id or size, state bits, times: those that osslsigncode and Windows hash."""
    if entry.kind != ROOT:
        yield entry.name
    yield entry.raw[120:124] if entry.kind == STREAM else entry.class_id
    yield entry.raw[96:100]
    if entry.kind != ROOT:
        yield entry.raw[100:116]
