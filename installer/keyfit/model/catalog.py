"""What is known about brands: the content of `drivers/<brand>/driver.toml` and of the signed manifests made from it.

One set of types serves both. A brand file holds every system; a manifest is the same `Brand` cut down to one operating
system, one architecture and (for `usb/...` targets) one vendor and product id. Field names are the TOML and JSON names.
The published JSON schemas in `docs/schemas/` are generated from these types.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Slug = Annotated[str, Meta(pattern=r"^(?!(con|prn|aux|nul|com[0-9]|lpt[0-9])$)[a-z0-9][a-z0-9-]{0,47}\Z")]
"""Brand, model and patch names: used in file names and target paths, hence the narrow alphabet, without the names that are
devices on Windows (security A8; learn.microsoft.com, Naming Files, Paths, and Namespaces)."""
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U8 = Annotated[int, Meta(ge=0, le=0xFF)]
Text = Annotated[str, Meta(min_length=1, max_length=400)]
ShortText = Annotated[str, Meta(min_length=1, max_length=80)]
SourceKey = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}\Z")]
Sources = Annotated[tuple[SourceKey, ...], Meta(min_length=1, max_length=8)]
"""Keys into the file's `[sources]` table: where this fact comes from."""
Glob = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""Literal text with `*` for any run of characters; compared with cleaned strings, case-sensitive."""
AtrPattern = Annotated[str, Meta(pattern=r"^3[BF]([0-9A-F]{2}|\?\?){1,32}\Z")]
"""Answer-to-reset in upper-case hex, `??` for any byte (ISO/IEC 7816-3: first byte 3B or 3F, at most 33 bytes)."""
HttpsUrl = Annotated[str, Meta(max_length=300, pattern=r"^https://[a-z0-9.-]+(/[A-Za-z0-9._~/%?=&#+,;:@!$'()*-]*)?\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
PackageName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+._-]{0,79}\Z")]
"""Debian and RPM package names; may not start with a dash, so it can never be read as an option."""
FileName = Annotated[str, Meta(
    pattern=r"^(?!([Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|[Cc][Oo][Mm][0-9]|[Ll][Pp][Tt][0-9])(\.|$))"
            r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,119}\Z")]
AbsolutePath = Annotated[str, Meta(max_length=200, pattern=r"^/[A-Za-z0-9._+/-]+\Z")]
SystemName = Literal["linux", "windows", "macos"]
Architecture = Literal["amd64", "arm64", "i386"]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2}(_[A-Z]{2})?\Z")]
Texts = dict[Language, Text]
"""A text by language; "en" is required by the linter."""


class Match(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a device is of a model. Every field that is given has to hold.

    `id_vendor` without `id_product` claims a whole vendor; neither, but an interface class, claims a device class.
    `cd_rom` marks ids under which the token shows itself as a CD-ROM: "switch" (the system turns it into a token by a
    mode switch), "eject" (turns into a token when ejected), "permanent" (stays one; only the vendor's module reads it).
    `inferred` marks facts that no source states outright.
    """

    sources: Sources
    id_vendor: U16 | None = None
    id_product: U16 | None = None
    bcd_device_min: U16 | None = None
    bcd_device_max: U16 | None = None
    b_interface_class: U8 | None = None
    manufacturer: Glob | None = None
    product: Glob | None = None
    atr: Annotated[tuple[AtrPattern, ...], Meta(max_length=16)] = ()
    cd_rom: Literal["", "switch", "eject", "permanent"] = ""
    inferred: bool = False


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One product of a brand. `packages` and `modules` name the ids it needs; empty means all of the brand's."""

    id: Slug
    name: ShortText
    match: Annotated[tuple[Match, ...], Meta(max_length=64)] = ()
    packages: Annotated[tuple[Slug, ...], Meta(max_length=16)] = ()
    patches: Annotated[tuple[Slug, ...], Meta(max_length=16)] = ()
    note: str = ""


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """On which machines an entry counts. Empty tuples mean any.

    `distribution` holds os-release ID values (ID_LIKE counts too); `version` is a comma-separated list of
    comparisons with VERSION_ID such as ">=12,<14".
    """

    system: SystemName
    architecture: tuple[Architecture, ...] = ()
    distribution: Annotated[tuple[Slug, ...], Meta(max_length=16)] = ()
    version: Annotated[str, Meta(pattern=r"^((>=|<=|==|<|>)[0-9][0-9.]*(,(>=|<=|==|<|>)[0-9][0-9.]*)*)?\Z")] = ""


class Payload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file of the repository, named by what it contains.

    `path` is relative to the repository's payload folder; `mirrors` are further full https addresses of the same bytes.
    """

    file: FileName
    sha256: Sha256
    length_bytes: Annotated[int, Meta(ge=1, le=4_000_000_000)]
    mirrors: Annotated[tuple[HttpsUrl, ...], Meta(max_length=8)] = ()

    @property
    def path(self) -> str:
        """Path below the repository's payload folder: hash first, so that equal names never collide."""
        return f"{self.sha256[:2]}/{self.sha256}/{self.file}"


class ReturnCode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a vendor's installer means by an exit code."""

    code: int
    meaning: Literal["done", "restart-required", "already-installed", "cancelled", "busy", "failed", "unsupported"]
    text: str = ""
    sources: Sources


class Authenticode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
                   tag_field="kind", tag="authenticode"):
    """Who has to have signed a Windows file: subject and issuer of the signing certificate, compared whole (security B2).

    `kernel` asks for Microsoft's hardware signature on the driver package's catalogue instead of the vendor's (B4).
    """

    subject: Text
    issuer: Text
    kernel: bool = False
    sources: Sources


class AppleDeveloper(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
                     tag_field="kind", tag="apple-developer"):
    """The developer team that has to have signed and notarised a macOS package (security B7)."""

    team_id: Annotated[str, Meta(pattern=r"^[A-Z0-9]{10}\Z")]
    sources: Sources


VendorSignature = Authenticode | AppleDeveloper


PackageKind = Literal["distribution", "deb", "rpm", "archive", "msi", "exe", "inf", "pkg", "dmg"]
Component = Literal["driver", "module", "browser-control", "certificate-tool"]


class Package(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One way to get one component onto one kind of machine.

    Several packages may have the same `component`: the planner takes the first, in file order, that fits the machine.
    kind "distribution" is installed by name with apt or dnf from the system's own archives; "deb" and "rpm" are files
    of ours for the system's package tool; "archive" is unpacked under /opt/keyfit/brands/<brand>.

    Attributes:
        file: file name of a package that the publisher adds (`keyfit-publish add`); empty for "distribution".
        files: for "archive": every path it may contain, relative; anything else is refused.
        signature: who has to have signed the file, besides the repository; required for Windows and macOS files
            (security B1), absent for Linux ones.
    """

    id: Slug
    component: Component
    kind: PackageKind
    on: Condition
    name: PackageName
    sources: Sources
    version: Annotated[str, Meta(max_length=60, pattern=r"^[0-9A-Za-z.+:~-]*\Z")] = ""
    file: FileName | None = None
    files: Annotated[tuple[str, ...], Meta(max_length=512)] = ()
    payload: Payload | None = None
    signature: VendorSignature | None = None
    return_codes: tuple[ReturnCode, ...] = ()
    note: str = ""


Register = Literal["p11-kit", "firefox", "chromium"]


class Pkcs11Module(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The PKCS#11 library through which applications use the token.

    `register` lists where Keyfit makes it known; a package that ships its own p11-kit file needs none for that.
    """

    id: Slug
    name: ShortText
    path: AbsolutePath
    on: Condition
    sources: Sources
    register: tuple[Register, ...] = ()


class CcidListEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
                    tag_field="kind", tag="ccid-list-entry"):
    """Adds one device to libccid's list, for a CCID device that the installed libccid does not know yet."""

    id: Slug
    id_vendor: U16
    id_product: U16
    friendly_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()/-]{0,59}\Z")]
    on: Condition
    reason: Texts
    sources: Sources


class UdevRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
               tag_field="kind", tag="udev-rule"):
    """Gives the logged-in user access to a device that no PC/SC driver handles (TAG uaccess)."""

    id: Slug
    subsystem: Literal["usb", "hidraw", "scsi_generic"]
    id_vendor: U16
    id_product: U16
    on: Condition
    reason: Texts
    sources: Sources


class KernelModuleBlacklist(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
                            tag_field="kind", tag="kernel-module-blacklist"):
    """Keeps kernel modules from taking the device away from PC/SC: the ones for NFC readers (Linux, drivers/nfc/pn533), and
    none that protects the system (security J3)."""

    id: Slug
    modules: Annotated[tuple[Literal["nfc", "pn533", "pn533_usb"], ...], Meta(min_length=1, max_length=3)]
    on: Condition
    reason: Texts
    sources: Sources


class Service(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
              tag_field="kind", tag="service"):
    """A system service that has to be enabled and running."""

    id: Slug
    unit: Literal["pcscd.socket", "pcscd.service"]
    on: Condition
    reason: Texts
    sources: Sources


Patch = CcidListEntry | UdevRule | KernelModuleBlacklist | Service
"""The closed list of system patches (security J3): signed data selects among these and fills their fields."""


class Conflict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Software of another brand that keeps this one from working, by package name."""

    package: PackageName
    reason: Texts
    sources: Sources


class PinRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a PIN of this brand has to look like; shown, never asked for."""

    min_length: Annotated[int, Meta(ge=1, le=64)]
    max_length: Annotated[int, Meta(ge=1, le=64)]
    advice: Texts
    sources: Sources


class HandOff(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the user gets the certificate once the token works.

    `page` is opened exactly as written here (security G2). `steps` is the path to click on that page.
    """

    bank: Texts
    page: HttpsUrl
    steps: Texts
    sources: Sources
    forgotten: Texts = {}
    lost: Texts = {}
    replacement: Texts = {}


class Brand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A brand as data. `status`: "supported" has something to install or needs nothing; "listed" is known to exist but
    has no sourced USB ids or no redistributable driver, and is only reached by name.

    `sequence` only grows: a client refuses a manifest whose number is below one it has already used.
    `class_driver` marks the fallback that serves any device of an interface class, whatever the brand.
    """

    schema: Literal[1]
    brand: Slug
    names: dict[Language, ShortText]
    vendor: ShortText
    sequence: Annotated[int, Meta(ge=1, le=2**31)]
    status: Literal["supported", "listed"]
    sources: dict[SourceKey, Text]
    class_driver: bool = False
    insert_order: Literal["any", "unplug-before-install"] = "any"
    insert_order_sources: tuple[SourceKey, ...] = ()
    model: tuple[Model, ...] = ()
    package: tuple[Package, ...] = ()
    module: tuple[Pkcs11Module, ...] = ()
    patch: tuple[Patch, ...] = ()
    conflict: tuple[Conflict, ...] = ()
    pin: PinRules | None = None
    hand_off: HandOff | None = None
    note: Texts = {}


class Revocation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may not be installed any more, with a reason for the user (security A5, J4).

    Either a `sequence` of the brand's data, or the `sha256` of one driver file; `version` is only shown.
    """

    brand: Slug
    reason: Texts
    sequence: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    sha256: Sha256 | None = None
    version: Annotated[str, Meta(max_length=60, pattern=r"^[0-9A-Za-z.+:~-]*\Z")] = ""


class Staged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A newer version of a brand that only a share of the machines gets: those whose group is below `share`.

    Groups are 0 to 9999, so `share` counts hundredths of a percent. `hold` stops it for machines that do not have it yet.
    """

    brand: Brand
    share: Annotated[int, Meta(ge=0, le=10_000)]
    hold: bool = False


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A signed device manifest: the brands that may serve one device on one system.

    `path` repeats the target path, so that a file cannot be served under another name. `minimum` is brand -> lowest
    sequence that may be used, from this repository or from any other.
    """

    keyfit: Literal[1]
    path: str
    system: SystemName
    architecture: Architecture
    brands: Annotated[tuple[Brand, ...], Meta(max_length=16)]
    staged: Annotated[tuple[Staged, ...], Meta(max_length=16)] = ()
    minimum: dict[Slug, Annotated[int, Meta(ge=1, le=2**31)]] = {}
    revoked: Annotated[tuple[Revocation, ...], Meta(max_length=256)] = ()


class Grant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a brand that signs with its own keys may do. The publisher signs it; the brand cannot.

    `ids` are (vendor, product) pairs that its patches may name, `pages` the certificate pages that it may open,
    `packages` the packages that it may ask the system's own archives for, and those that it may call a conflict.
    """

    keyfit: Literal[1]
    path: str
    brand: Slug
    ids: Annotated[tuple[tuple[U16, U16], ...], Meta(max_length=1024)] = ()
    pages: Annotated[tuple[HttpsUrl, ...], Meta(max_length=16)] = ()
    packages: Annotated[tuple[PackageName, ...], Meta(max_length=256)] = ()
    minimum: Annotated[int, Meta(ge=1, le=2**31)] = 1
    revoked: Annotated[tuple[Revocation, ...], Meta(max_length=256)] = ()


class AppManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A signed version of Keyfit itself, by the role `app`."""

    keyfit: Literal[1]
    path: str
    system: SystemName
    architecture: Architecture
    version: Annotated[str, Meta(pattern=r"^[0-9][0-9A-Za-z.+-]{0,39}\Z")]
    sequence: Annotated[int, Meta(ge=1, le=2**31)]
    payload: Payload


class Catalog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every brand for one system: shipped with the program, for naming devices without a network.

    It decides nothing about what is installed; that comes from a signed `Manifest`.
    """

    keyfit: Literal[1]
    system: SystemName
    architecture: Architecture
    brands: tuple[Brand, ...]


def device_target(id_vendor: int, id_product: int, system: str, architecture: str) -> str:
    """Target path of the manifest for a vendor and product id."""
    return f"usb/{id_vendor:04x}/{id_product:04x}-{system}-{architecture}.json"


def brand_target(brand: str, system: str, architecture: str) -> str:
    """Target path of the manifest for a brand asked for by name."""
    return f"brand/{brand}/{system}-{architecture}.json"


def grant_target(brand: str) -> str:
    """Target path of a brand's grant."""
    return f"grant/{brand}.json"


def app_target(system: str, architecture: str) -> str:
    """Target path of the newest Keyfit for a system."""
    return f"app/{system}-{architecture}.json"
