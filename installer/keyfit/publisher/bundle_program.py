"""The program that an offline kit brings along: a folder of the frozen client, told apart by its executable."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from keyfit.errors import UserError
from keyfit.privatefiles import storage_error

_ELF = {0x3E: "amd64", 0xB7: "arm64", 0x03: "i386"}
"""e_machine (System V ABI, "ELF header"): EM_X86_64, EM_AARCH64, EM_386."""
_PE = {0x8664: "amd64", 0xAA64: "arm64", 0x014C: "i386"}
"""Machine of the COFF header (Microsoft's PE format, "Machine types")."""
_MACHO = {0x01000007: "amd64", 0x0100000C: "arm64"}
"""cputype of a 64-bit Mach-O header (Apple's mach/machine.h): CPU_TYPE_X86_64, CPU_TYPE_ARM64."""
_HEAD_BYTES = 4096


def copy_programs(folders: Iterable[Path], into: Path) -> list[str]:
    """Copy program folders into the kit, each into `<system>-<architecture>`; returns these names, sorted.

    Raises:
        UserError: code "not-a-program".
        StorageError: it cannot be copied.
    """
    names: dict[str, Path] = {}
    for folder in folders:
        name = platform_of(folder)
        if name in names:
            raise UserError("not-a-program", f"Expected one program for {name}, came two: {names[name]} and {folder}.",
                            hint="Give each system's program once.")
        names[name] = folder
    for name, folder in names.items():
        _check_links(folder)
        try:
            shutil.copytree(folder, into / name)  # links become files: Joliet and most sticks have none
        except (OSError, shutil.Error) as error:
            fault = error if isinstance(error, OSError) and error.errno else OSError(0, str(error))
            raise storage_error(fault, into / name, "copy the program to") from error
    return sorted(names)


def platform_of(folder: Path) -> str:
    """`<system>-<architecture>` of the frozen client in a folder.

    Raises:
        UserError: code "not-a-program".
    """
    for name in ("keyfit", "keyfit.exe"):
        try:
            with (folder / name).open("rb") as file:
                found = _platform(file.read(_HEAD_BYTES))
        except OSError:
            continue
        if found:
            return found
    raise UserError("not-a-program", f"Expected the frozen client in {folder}, there is no program keyfit or keyfit.exe for a"
                    " system that Keyfit knows.", hint="Make it with `make dist`, and give the folder dist/keyfit.")


def _platform(head: bytes) -> str:
    if head.startswith(b"\x7fELF"):
        order = "big" if head[5:6] == b"\x02" else "little"
        machine = _ELF.get(int.from_bytes(head[18:20], order))  # type: ignore[arg-type]
        return f"linux-{machine}" if machine else ""
    if head.startswith(b"MZ"):
        at = int.from_bytes(head[0x3C:0x40], "little")
        machine = _PE.get(int.from_bytes(head[at + 4:at + 6], "little")) if head[at:at + 4] == b"PE\0\0" else None
        return f"windows-{machine}" if machine else ""
    if head.startswith(b"\xcf\xfa\xed\xfe"):
        machine = _MACHO.get(int.from_bytes(head[4:8], "little"))
        return f"macos-{machine}" if machine else ""
    return "macos-universal" if head.startswith(b"\xca\xfe\xba\xbe") else ""


def _check_links(folder: Path) -> None:
    """A link that leads out of the folder would bring something along that nobody meant."""
    home = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError("not-a-program", f"Expected a folder that is complete in itself, {path} leads out of it.",
                            hint="Make the program folder again with `make dist`.")
