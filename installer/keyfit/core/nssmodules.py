"""Edits pkcs11.txt, the list of modules of an NSS database: entries are paragraphs of `key=value` lines.

Source: NSS, lib/sysinit and lib/util/utilmod.c (the "secmod" text database); an entry of ours looks as modutil writes one.
"""

from keyfit.errors import HostError

MAX_BYTES = 1_000_000
INTERNAL = (
    "library=\n"
    "name=NSS Internal PKCS #11 Module\n"
    "parameters=configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' updateCertPrefix='' "
    "updateKeyPrefix='' updateid='' updateTokenDescription='' \n"
    "NSS=Flags=internal,critical trustOrder=75 cipherOrder=100 slotParams=(1={{slotFlags=[ECC,RSA,DSA,DH,RC2,RC4,DES,RANDOM,SHA1,"
    "MD5,MD2,SSL,TLS,AES,Camellia,SEED,SHA256,SHA512] askpw=any timeout=30}})\n"
)
"""The entry of NSS's own module, without which a database is not complete (as `modutil -create` of NSS 3.87 writes it)."""


def has(data: bytes, name: str, library: str) -> bool:
    """True if there is an entry with exactly this name and library."""
    return any(_is(paragraph, name, library) for paragraph in data.split(b"\n\n"))


def add(data: bytes, name: str, library: str) -> bytes:
    """Append an entry, unless it is there already.

    Raises:
        HostError: "module-name": a text that is empty or would bring lines of its own (security A9).
    """
    for text in (name, library):
        if not text or not text.isprintable():
            raise HostError("module-name", f"{text[:60]!r} cannot be written into the list of modules.",
                            hint="Tell the publisher of the brand's data.")
    if has(data, name, library):
        return data
    return data + _joint(data) + _entry(name, library)


def remove(data: bytes, name: str, library: str) -> bytes:
    """Take the entry out; everything else stays to the byte."""
    entry = _entry(name, library)
    at = data.find(b"\n" + entry)
    if at >= 0:
        return data[:at] + data[at + 1 + len(entry) :]
    kept = [p for p in data.split(b"\n\n") if not _is(p, name, library)]
    return b"\n\n".join(kept)


def empty(folder: str) -> bytes:
    """A database that holds NSS's own module only."""
    return INTERNAL.format(folder=folder).encode()


def _entry(name: str, library: str) -> bytes:
    return f"library={library}\nname={name}\n".encode()


def _joint(data: bytes) -> bytes:
    """Exactly what `remove` takes out again before the entry: one newline, after data that ends with one."""
    return b"\n" if data.endswith(b"\n") or not data else b"\n\n"


def _is(paragraph: bytes, name: str, library: str) -> bool:
    lines = paragraph.strip(b"\n").split(b"\n")
    return f"library={library}".encode() in lines and f"name={name}".encode() in lines
