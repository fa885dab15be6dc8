"""What a driver's INF may not do: co-installers, settings that are the user's, commands (security B6, J3)."""

import re
from collections.abc import Iterator

from keyfit.publisher.inspection.findings import Findings
from keyfit.publisher.inspection.inftext import Entry, InfText

_ROOTS = {"HKLM": "", "HKCR": r"software\classes", "HKCU": "", "HKU": "", "HKR": ""}
"""Registry roots in AddReg and DelReg sections (learn.microsoft.com: "INF AddReg Directive")."""
_CO_INSTALLER_NAME = re.compile(r".*co-?inst(aller)?[\w.-]*\.dll|wudfupdate_\d+\.dll", re.IGNORECASE)
"""Microsoft's redistributable co-installers and the names that others follow (learn.microsoft.com: "Using WdfCoinstaller")."""
_COMMANDS = ("runpresetupcommands", "runpostsetupcommands")
"""advpack's sections that run command lines (learn.microsoft.com: "INF files", Advanced INF)."""


def look(name: str, text: InfText, findings: Findings) -> None:
    """Tell everything in an INF that is refused or worth a look."""
    for section in text.sections:
        if section.endswith(".coinstallers"):
            findings.problem(f"{name} [{section}]: co-installers are refused; Microsoft signs no package with them any more")
    for section, entries in text.sections.items():
        for entry in entries:
            _registry(f"{name} [{section}]", entry, findings)
    for file in _copied(text):
        if _CO_INSTALLER_NAME.fullmatch(file):
            findings.problem(f"{name}: {file} is a co-installer; co-installers are refused")
    for section, entry in text.directives(*_COMMANDS):
        findings.problem(f"{name} [{section}]: {entry.key} runs commands, which a driver's INF may not")
    for section, entry in text.directives("addservice", "delservice", "stopservice"):
        findings.registry(f"{name} [{section}]", rf"SYSTEM\CurrentControlSet\Services\{entry.value(0)}", "*")
    for section, entry in text.directives("addsoftware"):
        findings.note(f"{name} [{section}]: AddSoftware {entry.value(0)!a} makes Windows install a program beside the driver")


def _registry(where: str, entry: Entry, findings: Findings) -> None:
    root = entry.value(0).upper()
    if entry.key or root not in _ROOTS:
        return
    key = "\\".join(part for part in (_ROOTS[root], entry.value(1)) if part)
    value = entry.value(2)
    if value.lower() == "coinstallers32":
        findings.problem(f"{where}: {value} registers a co-installer; co-installers are refused")
    if value.lower() == "installer32" and root == "HKR":
        findings.problem(f"{where}: {value} registers a class installer; like co-installers, they are refused")
    if key.lower().endswith("control\\codeviceinstallers"):
        findings.problem(f"{where}: {key} registers a co-installer for a class of devices; co-installers are refused")
    findings.registry(where, key, value or ("*" if len(entry.values) < 3 else ""))


def _copied(text: InfText) -> Iterator[str]:
    for _, entry in text.directives("copyfiles"):
        for value in entry.values:
            if value.startswith("@"):
                yield value[1:]
            else:
                for line in text.section(value):
                    yield from filter(None, (line.value(0) or line.key, line.value(1)))
    for section in text.sections:
        if section.startswith("sourcedisksfiles"):
            yield from (entry.key for entry in text.section(section) if entry.key)
