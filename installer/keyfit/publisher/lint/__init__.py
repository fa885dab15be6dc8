"""What a brand file has to mean, beyond its form: each check names file and line.

"error" keeps a release from being made; "warning" is something to look at, such as a claim on a whole vendor. Where things
stand in a file is looked up only when there is something to tell, so that thousands of sound files cost little more than
reading them.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from keyfit.core.handoff import check_page
from keyfit.core.text import clean
from keyfit.errors import DataError, PolicyError
from keyfit.model.catalog import Brand, CcidListEntry, Match, UdevRule
from keyfit.model.usb import CLASS_SMART_CARD
from keyfit.publisher import blocklist
from keyfit.publisher.brandfile import FILE_NAME, shown_path
from keyfit.publisher.compile import claimed_ids
from keyfit.publisher.lint.packages import package_faults
from keyfit.publisher.overlap import Overlap, overlap
from keyfit.publisher.readme import readme_faults
from keyfit.publisher.toml_lines import KeyPath, line_map, line_of


class Problem(Struct, frozen=True, kw_only=True, order=True):
    """One finding. `path` is the file as in "drivers/<brand>/driver.toml"; `line` counts from 1."""

    path: str
    line: int
    level: Literal["error", "warning"]
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.level}: {self.text}"


class _File:
    """A brand with its folder, and the lines of its file when they are asked for."""

    def __init__(self, brand: Brand, folder: Path) -> None:
        self.brand = brand
        self.folder = folder

    @cached_property
    def values(self) -> list[tuple[KeyPath, str, object]]:
        """Every field of the brand, as `_walk` gives them."""
        return list(_walk(self.brand))

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        """Path of every value -> line."""
        return line_map((self.folder / FILE_NAME).read_text(encoding="utf-8").replace("\r\n", "\n"))

    def error(self, path: KeyPath, text: str) -> Problem:
        return Problem(path=self.name, line=line_of(self.lines, path), level="error", text=text)

    def warning(self, path: KeyPath, text: str) -> Problem:
        return Problem(path=self.name, line=line_of(self.lines, path), level="warning", text=text)

    @property
    def name(self) -> str:
        return shown_path(self.folder / FILE_NAME)


def lint(brands: Sequence[Brand], folder: Path, names: Collection[str] | None = None) -> tuple[Problem, ...]:
    """Check brands against each other, their files and their READMEs.

    Args:
        brands: as read from `folder` by `load_brands`.
        folder: holds `<brand>/driver.toml` and `<brand>/README.md`.
        names: the folders that `load_brands` was asked for; the others are not looked at, so that one brand among many
            thousands is checked at once. Ids that another brand claims too are not found then.

    Returns:
        Everything found, sorted by file and line; empty if all is well.
    """
    files, problems = _locate(brands, folder, names)
    for file in files:
        for check in CHECKS:
            problems += check(file)
    problems += _overlaps(files)
    problems += _blocked(files, folder)
    return tuple(sorted(problems))


def _locate(brands: Sequence[Brand], folder: Path, names: Collection[str] | None) -> tuple[list[_File], list[Problem]]:
    """Each brand with its folder; a brand that no file holds is a problem."""
    paths = (sorted(folder.glob(f"*/{FILE_NAME}")) if names is None
             else [folder / name / FILE_NAME for name in sorted(names)])
    if len(paths) == len(brands):  # as `load_brands` gives them: in the order of the folders
        return [_File(brand, path.parent) for brand, path in zip(brands, paths, strict=True)], []
    wanted = {brand.brand: brand for brand in brands}
    files = []
    for path in paths:
        brand = wanted.pop(str(tomllib.loads(path.read_text(encoding="utf-8")).get("brand")), None)
        if brand is not None:
            files.append(_File(brand, path.parent))
    missing = [Problem(path=f"{folder.name}/{name}/{FILE_NAME}", line=1, level="error",
                       text=f"expected a file for the brand {name}, found none") for name in sorted(wanted)]
    return files, missing


def _check_folder(file: _File) -> Iterator[Problem]:
    if file.folder.name != file.brand.brand:
        yield file.error(("brand",), f"expected the folder's name {file.folder.name!r}, came {file.brand.brand!r}")


def _check_sources(file: _File) -> Iterator[Problem]:
    declared, used = set(file.brand.sources), set[str]()
    for path, _, value in file.values:
        if path[-1] in ("sources", "insert_order_sources") and isinstance(value, tuple):
            used.update(value)
            for index, key in enumerate(value):
                if key not in declared:
                    yield file.error((*path, index), f"expected a key of [sources], came {key!r}")
    for key in sorted(declared - used):
        yield file.error(("sources", key), f"the source {key!r} is used nowhere")


def _check_texts(file: _File) -> Iterator[Problem]:
    """Every text in every language of the brand's `names`, English among them; nothing unprintable anywhere."""
    languages = {"en", *file.brand.names}
    for path, name, value in file.values:
        if isinstance(value, str) and value and clean(value, len(value)) != value:
            yield file.error(path, "expected one line of printable text without repeated spaces, came " + ascii(value))
        if isinstance(value, dict) and name != "sources" and value:
            for language in sorted(languages - set(value)):
                yield file.error(path, f"expected a text in {language!r}, came {', '.join(sorted(value))}")


def _check_ids(file: _File) -> Iterator[Problem]:
    """Unique ids, and references that lead somewhere."""
    brand = file.brand
    lists: dict[str, list[str]] = {
        "model": [m.id for m in brand.model], "package": [p.id for p in brand.package],
        "module": [m.id for m in brand.module], "patch": [p.id for p in brand.patch]}
    for name, ids in lists.items():
        for index, value in enumerate(ids):
            if value in ids[:index]:
                yield file.error((name, index, "id"), f"expected an id of its own, {value!r} is taken")
    for index, model in enumerate(brand.model):
        for field, what, names in (("packages", "package", model.packages), ("patches", "patch", model.patches)):
            for at, name in enumerate(names):
                if name not in lists[what]:
                    yield file.error(("model", index, field, at), f"expected the id of a {what}, came {name!r}")


def _check_matches(file: _File) -> Iterator[Problem]:
    brand = file.brand
    for model_index, model in enumerate(brand.model):
        for index, match in enumerate(model.match):
            path: KeyPath = ("model", model_index, "match", index)
            for text in _match_faults(match, brand.class_driver):
                yield file.error(path, text)
            if match.id_vendor is not None and match.id_product is None:
                yield file.warning(path, f"claims the whole vendor {match.id_vendor:04X}")
    has_match = any(model.match for model in brand.model)
    if brand.status == "supported" and not has_match:
        yield file.error(("status",), "expected a match for a supported brand, found none; list it instead")
    if brand.insert_order != "any" and not brand.insert_order_sources:
        yield file.error(("insert_order",), "expected insert_order_sources beside it, came none")
    if brand.pin is not None and brand.pin.min_length > brand.pin.max_length:
        yield file.error(("pin", "min_length"), f"expected at most max_length {brand.pin.max_length},"
                         f" came {brand.pin.min_length}")


def _match_faults(match: Match, class_driver: bool) -> Iterator[str]:
    if match.id_product is not None and match.id_vendor is None:
        yield "expected id_vendor beside id_product, came none"
    if class_driver and (match.id_vendor is not None or match.b_interface_class is None):
        yield "expected only an interface class for a class driver"
    if not class_driver and match.id_vendor is None:
        yield "expected id_vendor: only a class driver may do without"
    low, high = match.bcd_device_min, match.bcd_device_max
    if low is not None and high is not None and low > high:
        yield f"expected bcd_device_min of at most {high:#06x}, came {low:#06x}"


def _check_packages(file: _File) -> Iterator[Problem]:
    for index, package in enumerate(file.brand.package):
        for level, text in package_faults(package):
            tell = file.error if level == "error" else file.warning
            yield tell(("package", index), f"{package.id}: {text}")


def _check_pages(file: _File) -> Iterator[Problem]:
    if file.brand.hand_off is not None:
        for text in page_faults(file.brand.hand_off.page):
            yield file.error(("hand_off", "page"), text)
    for index, package in enumerate(file.brand.package):
        for mirror in package.payload.mirrors if package.payload else ():
            for text in page_faults(mirror):
                yield file.error(("package", index, "payload", "mirrors"), text)


def page_faults(url: str) -> Iterator[str]:
    """What keeps an address from being opened: anything but https with a plain ASCII host name, and all that the client
    refuses to open."""
    try:
        check_page(url)
    except PolicyError as error:
        yield error.message
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        yield f"expected an https address, came {url!r}: {error}"
        return
    host = parts.hostname or ""
    if parts.scheme != "https" or parts.username is not None or parts.password is not None or port is not None:
        yield f"expected https with a host alone (no user, no port), came {url!r}"
    labels = host.split(".")
    plain = all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label) for label in labels)
    if not plain or len(labels) < 2 or _is_address(host) or any(label.startswith("xn--") for label in labels):
        yield f"expected a host name in ASCII, came {host!r}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_patches(file: _File) -> Iterator[Problem]:
    claimed = set(claimed_ids(file.brand))
    smart_card = {(m.id_vendor, m.id_product) for model in file.brand.model for m in model.match
                  if m.b_interface_class == CLASS_SMART_CARD}
    for index, patch in enumerate(file.brand.patch):
        if patch.on.system != "linux":
            yield file.error(("patch", index, "on"), f"expected linux, came {patch.on.system}")
        if not isinstance(patch, CcidListEntry | UdevRule):
            continue
        device = (patch.id_vendor, patch.id_product)
        shown = f"{patch.id_vendor:04x}:{patch.id_product:04x}"
        if device not in claimed:
            yield file.error(("patch", index), f"expected an id that a match of this brand names, came {shown}")
        elif isinstance(patch, CcidListEntry) and device not in smart_card:
            yield file.error(("patch", index), f"expected a match for {shown} with b_interface_class 0x0B: pcscd does"
                             " not look at the class itself")


def _check_readme(file: _File) -> Iterator[Problem]:
    path = file.folder / "README.md"
    for line, text in readme_faults(path, set(claimed_ids(file.brand))):
        yield Problem(path=shown_path(path), line=line, level="error", text=text)


CHECKS: tuple[Callable[[_File], Iterable[Problem]], ...] = (
    _check_folder, _check_sources, _check_texts, _check_ids, _check_matches, _check_packages, _check_pages,
    _check_patches, _check_readme)


def _blocked(files: Sequence[_File], folder: Path) -> Iterator[Problem]:
    """Security B6: declared files that are on the list of vulnerable drivers, and the list itself."""
    path = folder / blocklist.FILE_NAME
    if not path.is_file():
        return
    try:
        known = blocklist.load_blocklist(path)
    except DataError as error:
        yield from (Problem(path=shown_path(path), line=1, level="error", text=text) for text in error.problems)
        return
    for file in files:
        for index, package in enumerate(file.brand.package):
            if package.payload is not None and package.payload.sha256 in known.hashes:
                yield file.error(("package", index, "payload"), f"{package.id}: the file is on the driver block list:"
                                 f" {known.hashes[package.payload.sha256]}")


def _overlaps(files: Sequence[_File]) -> Iterator[Problem]:
    """Exact ids that two brands claim: an error unless a device tells which of them it is."""
    claims: dict[tuple[int, int], list[tuple[_File, KeyPath, Match]]] = {}
    for file in files:
        for model_index, model in enumerate(file.brand.model):
            for index, match in enumerate(model.match):
                if match.id_vendor is not None and match.id_product is not None:
                    claims.setdefault((match.id_vendor, match.id_product), []).append(
                        (file, ("model", model_index, "match", index), match))
    for (vendor, product), rows in sorted(claims.items()):
        for (file, _, match), (other, path, second) in combinations(rows, 2):
            if file is not other and overlap(match, second) is Overlap.TIE:
                yield other.error(path, f"{vendor:04x}:{product:04x}: a device could fit this match and one of"
                                  f" {file.brand.brand} equally well; tell them apart by strings, bcdDevice,"
                                  " interface class or answer-to-reset")


def _walk(brand: Brand) -> Iterator[tuple[KeyPath, str, object]]:
    """(path, field name, value) of every field of the brand and of what is in it; dictionaries also item by item."""
    waiting: list[tuple[KeyPath, str, object]] = [((), "", brand)]
    while waiting:
        path, name, value = waiting.pop()
        if path:
            yield path, name, value
        if isinstance(value, msgspec.Struct):
            waiting += [((*path, field), field, getattr(value, field)) for field in value.__struct_fields__]
        elif isinstance(value, tuple):
            waiting += [((*path, index), name, item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            waiting += [((*path, key), str(key), item) for key, item in value.items()]
