"""Windows programs, installers and driver packages, made by real tools: GNU binutils, wixl, gcab, osslsigncode."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 60
TOOLS = {"amd64": "x86_64-w64-mingw32", "i386": "i686-w64-mingw32"}
SOURCE = ".globl start\n.text\nstart: ret\n.data\n.ascii \"{mark}\"\n"
RESOURCE = """
1 VERSIONINFO
FILEVERSION {numbers}
PRODUCTVERSION {numbers}
BEGIN
  BLOCK "StringFileInfo"
  BEGIN
    BLOCK "040904b0"
    BEGIN
      VALUE "CompanyName", "Acme Ltd."
      VALUE "ProductName", "Acme Token"
      VALUE "OriginalFilename", "{original}"
      VALUE "FileVersion", "{version}"
      VALUE "ProductVersion", "{version}"
    END
  END
END
"""


def program(path: Path, *, machine: str = "amd64", version: str = "1.2.3.0", original: str = "", driver: bool = False,
            mark: str = "acme") -> Path:
    """A program, or a driver for the kernel, with a version resource; assembled and linked by GNU binutils."""
    prefix = f"/usr/bin/{TOOLS[machine]}"
    work = path.parent / f".{path.name}.work"
    work.mkdir(parents=True)
    (work / "start.s").write_text(SOURCE.format(mark=mark))
    (work / "version.rc").write_text(RESOURCE.format(numbers=version.replace(".", ","), version=version,
                                                     original=original or path.name))
    _run(f"{prefix}-as", "start.s", "-o", "start.o", work=work)
    _run(f"{prefix}-windres", "--preprocessor=/bin/cat", "version.rc", "version.o", work=work)
    subsystem = "native" if driver else "console"
    _run(f"{prefix}-ld", "-e", "start", f"--subsystem={subsystem}", "--no-insert-timestamp", "start.o", "version.o", "-o",
         str(path), work=work)
    return path


WIX = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
 <Product Name="Acme Token" Id="{{11111111-1111-1111-1111-111111111111}}" Language="1033" Codepage="1252"
   UpgradeCode="{{22222222-2222-2222-2222-222222222222}}" Version="{version}" Manufacturer="Acme Ltd.">
  <Package Id="*" Manufacturer="Acme Ltd." InstallerVersion="200" Compressed="yes" Languages="1033"/>
  <Media Id="1" Cabinet="acme.cab" EmbedCab="yes"/>
  <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder"><Directory Id="INSTALLDIR" Name="Acme">
   <Component Id="Main" Guid="{{33333333-3333-3333-3333-333333333333}}">{files}{registry}</Component>
  </Directory></Directory></Directory>
  {more}
  <Feature Id="All" Level="1"><ComponentRef Id="Main"/></Feature>
 </Product>
</Wix>
"""
FILE = "<File Id='f{number}' Name='{name}' DiskId='1' Source='{place}'{key}/>"


def installer(path: Path, files: Mapping[str, Path], *, version: str = "1.2.3", architecture: str = "x86",
              registry: str = "", more: str = "") -> Path:
    """A Windows Installer package made by wixl. `registry` and `more` are WiX elements."""
    places = {name: os.path.relpath(file, path.parent) for name, file in files.items()}  # wixl takes no absolute paths
    listed = "".join(FILE.format(number=number, name=name, place=place, key="" if number else " KeyPath='yes'")
                     for number, (name, place) in enumerate(places.items()))
    source = path.with_suffix(".wxs")
    source.write_text(WIX.format(version=version, files=listed, registry=registry, more=more))
    _run("/usr/bin/wixl", "--arch", architecture, "-o", str(path), str(source), work=path.parent)
    return path


def cabinet(path: Path, folder: Path, *options: str) -> Path:
    """A cabinet of all files in a folder, made by gcab."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    _run("/usr/bin/gcab", "--create", *options, str(path), *names, work=folder)
    return path


def _run(*command: str, work: Path) -> str:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
