"""The licences of all that a frozen program carries, as files beside the package's own copyright."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

OWN = "keyfit"


def write_licences(program: Path, folder: Path) -> None:
    """One file for each Python distribution, each library of the system and Python itself: name, version, licence texts."""
    folder.mkdir()
    for name in sorted(distributions(program)):
        (folder / name.lower()).write_text(of_distribution(name))
    for package in sorted({p for library in (program / "_internal").glob("lib*.so*") if (p := owner(library.name))}):
        text = (Path("/usr/share/doc") / package / "copyright").read_bytes()
        (folder / package).write_bytes(text)
    (folder / "python").write_text(f"Python {sys.version.split()[0]}\n\n{of_python()}")


def distributions(program: Path) -> set[str]:
    """The distributions of which a module is in the folder or in an executable's archive."""
    from PyInstaller.archive.readers import CArchiveReader

    names = {path.name.split(".")[0] for path in (program / "_internal").iterdir()}
    for executable in (path for path in program.iterdir() if path.is_file()):
        archive = CArchiveReader(str(executable))
        for entry, (*_, kind) in archive.toc.items():
            if kind == "z":
                names |= {module.split(".")[0] for module in archive.open_embedded_archive(entry).toc}
    known = metadata.packages_distributions()
    return {name for module in names for name in known.get(module, ())} - {OWN}


def of_distribution(name: str) -> str:
    """What a distribution's metadata says of its licence, and the texts that it brings."""
    found = metadata.distribution(name)
    said = found.metadata.get("License-Expression") or found.metadata.get("License") or "see below"
    texts = [str(Path(str(found.locate_file(file))).read_text("utf-8", "replace")) for file in found.files or ()
             if ".dist-info" in str(file) and any(word in file.name.lower() for word in ("licen", "copying", "notice"))]
    return "\n\n".join([f"{name} {found.version}\nLicence: {said.splitlines()[0]}", *texts]) + "\n"


def of_python() -> str:
    """The licence of the interpreter: in its library folder, or with Debian's package."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", Path(f"/usr/share/doc/{version}/copyright"),
                 Path(f"/usr/share/doc/lib{version}-minimal/copyright")):
        if path.is_file():
            return path.read_text()
    raise FileNotFoundError(f"no licence of {version} found")


def owner(library: str) -> str | None:
    """The Debian package that a library of the system belongs to, if it is one."""
    for folder in ("/usr/lib", "/lib"):
        for path in sorted(Path(folder).glob(f"*-linux-gnu*/{library}")):
            for name in (path, path.resolve()):
                done = subprocess.run(["dpkg-query", "-S", str(name)], capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    return done.stdout.split(":")[0]
    return None
