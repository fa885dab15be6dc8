"""Our edits of pkcs11.txt, held against NSS's own tool. Needs the Debian packages libnss3-tools and softhsm2."""

import re
import subprocess
from pathlib import Path

from keyfit.core import nssmodules

MODUTIL = "/usr/bin/modutil"
CERTUTIL = "/usr/bin/certutil"
LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"


def modutil(database: Path, *arguments: str) -> str:
    done = subprocess.run([MODUTIL, "-dbdir", f"sql:{database}", *arguments], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(database: Path) -> list[str]:
    """Names of the modules as NSS itself lists them."""
    return re.findall(r"^ +\d+\. (.+)$", modutil(database, "-list"), re.MULTILINE)


def paragraphs(database: Path) -> list[list[str]]:
    """The file's entries, without regard to the empty lines between them."""
    text = (database / "pkcs11.txt").read_text()
    return [part.strip().splitlines() for part in re.split(r"\n\n+", text) if part.strip()]


def test_nss_reads_what_we_add_and_loads_it(tmp_path: Path) -> None:
    modutil(tmp_path, "-create", "-force")
    list_file = tmp_path / "pkcs11.txt"
    before = list_file.read_bytes()
    list_file.write_bytes(nssmodules.add(before, "ACME Token", LIBRARY))
    assert listed(tmp_path) == ["NSS Internal PKCS #11 Module", "ACME Token"]
    assert re.search(r"ACME Token.*library name: " + LIBRARY + r".*status: loaded", modutil(tmp_path, "-list"), re.DOTALL)
    list_file.write_bytes(nssmodules.remove(list_file.read_bytes(), "ACME Token", LIBRARY))
    assert list_file.read_bytes() == before
    assert listed(tmp_path) == ["NSS Internal PKCS #11 Module"]


def test_our_entry_is_the_one_that_modutil_writes(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for database in (ours, theirs):
        database.mkdir()
        modutil(database, "-create", "-force")
    modutil(theirs, "-add", "ACME Token", "-libfile", LIBRARY, "-force")
    list_file = ours / "pkcs11.txt"
    list_file.write_bytes(nssmodules.add(list_file.read_bytes(), "ACME Token", LIBRARY))
    assert paragraphs(ours)[1:] == paragraphs(theirs)[1:] == [[f"library={LIBRARY}", "name=ACME Token"]]


def test_nss_takes_a_database_that_we_began(tmp_path: Path) -> None:
    """The browser opens it for writing and makes the certificate and key files beside our list (here certutil does);
    tools that only read cannot open it before that."""
    (tmp_path / "pkcs11.txt").write_bytes(nssmodules.add(nssmodules.empty(str(tmp_path)), "ACME Token", LIBRARY))
    subprocess.run([CERTUTIL, "-d", f"sql:{tmp_path}", "-N", "--empty-password"], check=True, capture_output=True, timeout=60)
    assert listed(tmp_path) == ["NSS Internal PKCS #11 Module", "ACME Token"]


def test_modutil_can_delete_our_entry_and_we_can_delete_modutils(tmp_path: Path) -> None:
    modutil(tmp_path, "-create", "-force")
    list_file = tmp_path / "pkcs11.txt"
    list_file.write_bytes(nssmodules.add(list_file.read_bytes(), "ACME Token", LIBRARY))
    modutil(tmp_path, "-delete", "ACME Token", "-force")
    assert not nssmodules.has(list_file.read_bytes(), "ACME Token", LIBRARY)
    modutil(tmp_path, "-add", "ACME Token", "-libfile", LIBRARY, "-force")
    list_file.write_bytes(nssmodules.remove(list_file.read_bytes(), "ACME Token", LIBRARY))
    assert listed(tmp_path) == ["NSS Internal PKCS #11 Module"]


def test_others_modules_stay_loaded_when_ours_goes(tmp_path: Path) -> None:
    modutil(tmp_path, "-create", "-force")
    modutil(tmp_path, "-add", "Theirs", "-libfile", LIBRARY, "-force")
    list_file = tmp_path / "pkcs11.txt"
    list_file.write_bytes(nssmodules.add(list_file.read_bytes(), "ACME Token", "/usr/lib/absent.so"))
    list_file.write_bytes(nssmodules.remove(list_file.read_bytes(), "ACME Token", "/usr/lib/absent.so"))
    assert listed(tmp_path) == ["NSS Internal PKCS #11 Module", "Theirs"]
