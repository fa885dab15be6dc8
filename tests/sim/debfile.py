"""Debian packages written byte by byte, so that they can also be what dpkg-deb would never write."""

import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence


def deb_file(name: str = "acme", version: str = "1.0", architecture: str = "amd64", *,
             files: Mapping[str, bytes] | None = None, scripts: Mapping[str, str] | None = None,
             extra: Sequence[tarfile.TarInfo] = (), control: str | None = None) -> bytes:
    """A package. `files` are bytes by path, `extra` further entries of the data part without bytes."""
    text = control if control is not None else (
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: Keyfit tests <tests@example.org>\nDescription: a package for tests\n")
    controls = {"./control": text.encode(), **{f"./{script}": body.encode() for script, body in (scripts or {}).items()}}
    content = {f"./usr/lib/{name}.so": b"module"} if files is None else files
    return ar({"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(tar(controls, mode=0o755)),
               "data.tar.xz": lzma.compress(tar(content, extra))})


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ar archive in the form of deb(5)."""
    pieces = [b"!<arch>\n"]
    for name, data in members.items():
        pieces += [f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(pieces)


def tar(files: Mapping[str, bytes], extra: Sequence[tarfile.TarInfo] = (), mode: int = 0o644) -> bytes:
    """A tar of files, with a folder entry for each folder that they are in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders: set[str] = set()
        for path, data in files.items():
            parts = path.split("/")[:-1]
            for folder in ("/".join(parts[: n + 1]) for n in range(len(parts))):
                if folder not in folders and folder not in ("", ".", ".."):
                    folders.add(folder)
                    archive.addfile(entry(folder, tarfile.DIRTYPE, mode=0o755))
            member = entry(path, mode=mode)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


def entry(path: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    """An entry without bytes."""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.linkname = kind, mode, link
    return member
