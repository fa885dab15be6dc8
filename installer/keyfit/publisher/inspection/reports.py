"""What the readers say about a package file. Small, frozen, and plain data: they cross a pipe as JSON.

`problems` are faults that no brand data could excuse, `notes` are things to look at. What has to agree with the brand data
is in fields of its own and is compared by `keyfit.publisher.contents`.
"""

from msgspec import Struct


class SignatureReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signature that was recomputed, not only found.

    Attributes:
        fault: why it proves nothing; empty if it holds and leads to a trusted root.
        subject: whole name in the signer's certificate, as RFC 4514 writes it.
        issuer: whole name of who issued that certificate.
        chain: names above it, upwards.
        usages: object identifiers of the extended key usages.
        hash: what was hashed with.
        signed_at: the time-stamp, ISO 8601; empty without one that holds.
        identities: hashes of the bodies of all certificates of the chain (what Microsoft's block rules call TBS).
        team_id: Apple's name for the developer team; empty elsewhere.
    """

    fault: str = ""
    subject: str = ""
    issuer: str = ""
    chain: tuple[str, ...] = ()
    usages: tuple[str, ...] = ()
    hash: str = ""
    signed_at: str = ""
    identities: tuple[str, ...] = ()
    team_id: str = ""


class BinaryReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Windows program, library or driver, alone or inside a package.

    Attributes:
        name: path inside the package.
        machine: "i386", "amd64", "arm64" or the header's number.
        kernel: it is made to be loaded by the kernel.
        versions: the version resource's file and product version, as numbers and as texts.
        original_name: OriginalFilename of the version resource.
        sha256: over the whole file; empty if only its name and version are known.
        image_hashes: Authenticode hashes in SHA-1 and SHA-256, hex.
        signature: None if it has none.
    """

    name: str
    machine: str = ""
    kernel: bool = False
    versions: tuple[str, ...] = ()
    original_name: str = ""
    product: str = ""
    company: str = ""
    size_bytes: int = 0
    sha256: str = ""
    image_hashes: tuple[str, ...] = ()
    signature: SignatureReport | None = None


class _Report(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class DebReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="deb"):
    """A Debian package. `files` are absolute paths of everything but folders."""

    name: str
    version: str
    architecture: str
    scripts: tuple[str, ...] = ()


class RpmReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="rpm"):
    """An RPM package; `version` is [epoch:]version-release."""

    name: str
    version: str
    architecture: str
    scripts: tuple[str, ...] = ()


class ArchiveReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="archive"):
    """A zip or tar; `binaries` are the Windows ones among its files."""

    binaries: tuple[BinaryReport, ...] = ()


class ExeReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="exe"):
    """A Windows program that installs something. What is packed inside it is not seen."""

    binary: BinaryReport


class MsiReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="msi"):
    """A Windows Installer database. `actions` are its custom actions as "name: what (target)"."""

    product: str
    version: str
    manufacturer: str
    architecture: str
    actions: tuple[str, ...] = ()
    binaries: tuple[BinaryReport, ...] = ()
    signature: SignatureReport | None = None


class InfReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="inf"):
    """A Windows driver package: INF files, their catalogue and what they install.

    Attributes:
        hardware_ids: those that the models sections list, by architecture, as in "amd64 USB\\VID_096E&PID_0807".
        signature: the catalogue's.
        driver_signed: the catalogue's certificate is Microsoft's for hardware drivers, by its extended key usage.
    """

    classes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    hardware_ids: tuple[str, ...] = ()
    binaries: tuple[BinaryReport, ...] = ()
    signature: SignatureReport | None = None
    driver_signed: bool = False


class PkgReport(_Report, frozen=True, kw_only=True, omit_defaults=True, tag="pkg"):
    """A macOS installer package. `components` are "identifier version"; `stapled`: a notarisation ticket is attached."""

    components: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    signature: SignatureReport | None = None
    stapled: bool = False


Report = DebReport | RpmReport | ArchiveReport | ExeReport | MsiReport | InfReport | PkgReport


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child sends: a report, or why there is none."""

    report: Report | None = None
    malformed: str = ""
