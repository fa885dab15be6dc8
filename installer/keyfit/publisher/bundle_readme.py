"""The README that an administrator finds in an offline kit, in English and Chinese, made from what is in the kit."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from keyfit.errors import EXIT_CODES, Outcome
from keyfit.model.catalog import Brand, Manifest
from keyfit.trust.manifests import decode_manifest

LANGUAGES = ("en", "zh_CN")

OUTCOME_WORDS: Mapping[Outcome, tuple[str, str]] = {
    Outcome.DONE: ("done, or nothing to do", "完成，或无需操作"),
    Outcome.RESTART_REQUIRED: ("done, restart required", "完成，需要重新启动"),
    Outcome.UPDATES_AVAILABLE: ("updates available (update --check --exit-code only)",
                                "有可用更新（仅限 update --check --exit-code）"),
    Outcome.FAILED_UNCHANGED: ("failed, and the machine is as it was before", "失败，系统已恢复到之前的状态"),
    Outcome.USAGE: ("wrong command line", "命令行有误"),
    Outcome.NO_TOKEN: ("no token found, or no driver for it", "未找到令牌，或没有适用的驱动"),
    Outcome.NETWORK: ("network or repository unreachable, or a file is missing", "无法访问网络或软件源，或缺少文件"),
    Outcome.INTERNAL: ("a fault of Keyfit's own", "Keyfit 自身错误"),
    Outcome.CANNOT_WRITE: ("disk full, or a file cannot be written", "磁盘已满，或无法写入文件"),
    Outcome.BUSY: ("another installation is running", "另一安装程序正在运行"),
    Outcome.TRUST: ("signature, hash, expiry or rollback check failed", "签名、哈希、有效期或回滚检查未通过"),
    Outcome.ELEVATION_REQUIRED: ("administrator rights needed and not given", "需要管理员权限"),
    Outcome.FORBIDDEN: ("forbidden by policy, or two brands claim one device", "被策略禁止，或两个品牌声明了同一设备"),
    Outcome.UNSUPPORTED: ("this system is not supported", "不支持此系统"),
    Outcome.INTERRUPTED: ("interrupted: finish or take back with keyfit recover",
                          "操作被中断：请用 keyfit recover 完成或撤销"),
    Outcome.CANCELLED: ("cancelled by the user", "用户已取消"),
}
"""Outcome -> (English, Chinese); the codes themselves come from `errors.EXIT_CODES`."""


class Driver(Struct, frozen=True, kw_only=True, order=True):
    """A driver file in the kit."""

    brand: str
    system: str
    architecture: str
    package: str
    version: str
    file: str
    length_bytes: int
    sha256: str


class KitFacts(Struct, frozen=True, kw_only=True):
    """What the README tells. Dates are ISO 8601.

    Attributes:
        names: brand -> its name by language.
        outside: (brand, system) -> packages that come from the system's own archives.
        programs: folders below `program/`.
    """

    label: str
    signed_on: str
    expires_on: str
    names: dict[str, dict[str, str]]
    drivers: tuple[Driver, ...]
    outside: dict[tuple[str, str], tuple[str, ...]]
    programs: tuple[str, ...]
    root_sha256: str


def drivers_of(keyfit: Path) -> tuple[dict[str, dict[str, str]], tuple[Driver, ...], dict[tuple[str, str], tuple[str, ...]]]:
    """(names, drivers, outside) of the manifests in a kit's verified folder; see `KitFacts`."""
    names: dict[str, dict[str, str]] = {}
    drivers: set[Driver] = set()
    outside: dict[tuple[str, str], set[str]] = {}
    for manifest in _manifests(keyfit / "targets"):
        for brand in (*manifest.brands, *(staged.brand for staged in manifest.staged)):
            names[brand.brand] = dict(brand.names)
            drivers |= {driver for driver in _drivers(manifest, brand)
                        if (keyfit / "payloads" / driver.sha256[:2] / driver.sha256).is_dir()}
            fetched = {package.name for package in brand.package if package.kind == "distribution"}
            if fetched:
                outside.setdefault((brand.brand, manifest.system), set()).update(fetched)
    return names, tuple(sorted(drivers)), {key: tuple(sorted(found)) for key, found in sorted(outside.items())}


def _manifests(targets: Path) -> Iterable[Manifest]:
    for path in sorted(targets.rglob("*.json")):
        folder = path.parent.relative_to(targets).as_posix()
        yield decode_manifest(path.read_bytes(), f"{folder}/{path.name.partition('.')[2]}")


def _drivers(manifest: Manifest, brand: Brand) -> Iterable[Driver]:
    for package in brand.package:
        if package.payload is not None:
            yield Driver(brand=brand.brand, system=manifest.system, architecture=manifest.architecture, package=package.name,
                         version=package.version, file=package.payload.file, sha256=package.payload.sha256,
                         length_bytes=package.payload.length_bytes)


def readme(facts: KitFacts, language: str) -> str:
    """The text, in English or Chinese."""
    return (_chinese if language == "zh_CN" else _english)(facts)


def _english(facts: KitFacts) -> str:
    return f"""KEYFIT OFFLINE KIT {facts.label}
Signed on {facts.signed_on}. May be used until {facts.expires_on}.

This kit installs drivers of USB crypto tokens without a network. Everything in keyfit/ is signed; a computer accepts it
only if its Keyfit carries the root of this publisher's offline kits.

FOR PEOPLE

  Windows   double-click start.cmd: 1. System Upgrade, then 2. Driver Installation
  Linux     sudo sh start.sh
  start.html explains the two steps.

SILENT INSTALLATION

  Linux     sudo sh start.sh driver BRAND --silent
  Windows   start.cmd driver BRAND --silent
  or directly, both parts at once:
            keyfit install BRAND --silent --source FOLDER-OF-THIS-KIT

  No question, no window, no browser. "system" instead of "driver" does only what prepares the system. Keyfit is taken
  from program/ if it is there for the system, else from PATH.
  To take it back: keyfit uninstall BRAND --yes

  start.cmd was written after Microsoft's documentation and has not been run by its authors.

EXIT CODES (Linux and macOS, Windows)

{_exit_codes(0)}

WHAT IS IN THIS KIT

{_drivers_text(facts, "en", "No driver files.")}
{_outside_text(facts, "en", "These brands also use packages of the system's own archives, which are NOT in this kit. What is"
                           " not installed already has to come from an archive that the computer can reach:")}
  program/  {", ".join(facts.programs) or "not in this kit"}

HOW TO CHECK IT

  Whole copy?        sha256sum -c CHECKSUMS.sha256        finds damage, not forgery: anybody can make such a list.
  Signed, and ours?  keyfit plan BRAND --source FOLDER    checks every signature, hash and date and changes nothing.
  media-root.json    is here to be compared, NOT to be trusted: a kit cannot vouch for itself. Its SHA-256 is
                     {facts.root_sha256}
                     Compare it with what the publisher tells you in another way. Only a root that came that way, or with
                     Keyfit itself, may be given with --trust-root.
  program/           is not covered by the kit's signatures. Check the publisher's signature on the program itself, or its
                     SHA-256 on the publisher's own site, before you run it.

  A computer that has used a newer kit of this publisher refuses this one. Ask for a newer kit in time: an expired kit is
  refused unless the administrator's policy grants days of grace.
"""


def _chinese(facts: KitFacts) -> str:
    return f"""KEYFIT 离线安装套件 {facts.label}
签名日期：{facts.signed_on}。有效期至：{facts.expires_on}。

本套件可在没有网络的情况下安装 USB 令牌（U盾）驱动。keyfit/ 目录中的全部内容均已签名；只有当计算机上的 Keyfit 内置了
本发布者离线套件的根元数据时，才会接受本套件。

普通用户

  Windows   双击 start.cmd：1. 系统升级，然后 2. 驱动安装
  Linux     sudo sh start.sh
  start.html 对这两步作了说明。

静默安装

  Linux     sudo sh start.sh driver 品牌 --silent
  Windows   start.cmd driver 品牌 --silent
  或者一次完成两个部分：
            keyfit install 品牌 --silent --source 本套件所在目录

  不提问、不弹窗、不打开浏览器。用 system 代替 driver 时，只做系统准备工作。如果 program/ 中有适用于本系统的 Keyfit
  则使用它，否则使用 PATH 中的 Keyfit。
  撤销安装：keyfit uninstall 品牌 --yes

  start.cmd 依据微软文档编写，作者尚未在 Windows 上实际运行过。

退出代码（Linux 与 macOS，Windows）

{_exit_codes(1)}

套件内容

{_drivers_text(facts, "zh_CN", "没有驱动文件。")}
{_outside_text(facts, "zh_CN", "以下品牌还需要系统自带软件源中的软件包，这些软件包【不在】本套件中。尚未安装的部分须来自"
                              "计算机可以访问的软件源：")}
  program/  {", ".join(facts.programs) or "本套件中没有"}

如何校验

  副本是否完整？   sha256sum -c CHECKSUMS.sha256      只能发现损坏，不能防伪造：任何人都能生成这样的列表。
  是否由我方签名？ keyfit plan 品牌 --source 目录      检查全部签名、哈希和日期，不作任何更改。
  media-root.json  仅供比对，【不能】作为信任依据：套件不能为自己作证。其 SHA-256 为
                   {facts.root_sha256}
                   请与发布者通过其他途径公布的值比对。只有通过其他途径获得的、或随 Keyfit 一同提供的根元数据，
                   才可用于 --trust-root。
  program/         不在套件签名的保护范围内。运行之前，请检查程序本身的发布者签名，或与发布者网站公布的 SHA-256 比对。

  使用过本发布者较新套件的计算机会拒绝本套件。请及时索取新套件：过期的套件会被拒绝，除非管理员策略给予宽限天数。
"""


def _exit_codes(language: int) -> str:
    rows = [(*EXIT_CODES[outcome], OUTCOME_WORDS[outcome][language]) for outcome in EXIT_CODES]
    return "\n".join(f"  {posix:>4}  {windows:>5}  {words}" for posix, windows, words in rows)


def _drivers_text(facts: KitFacts, language: str, none: str) -> str:
    lines: list[str] = []
    for brand in sorted({driver.brand for driver in facts.drivers}):
        lines += [f"  {_name(facts, brand, language)} ({brand})"]
        for driver in (driver for driver in facts.drivers if driver.brand == brand):
            version = f" {driver.version}" if driver.version else ""
            lines += [f"    {driver.system} {driver.architecture}: {driver.package}{version}, {driver.file},"
                      f" {driver.length_bytes} bytes", f"      SHA-256 {driver.sha256}"]
        lines.append("")
    return "\n".join(lines) if lines else f"  {none}\n"


def _outside_text(facts: KitFacts, language: str, heading: str) -> str:
    if not facts.outside:
        return ""
    rows = [f"    {_name(facts, brand, language)} ({brand}), {system}: {', '.join(packages)}"
            for (brand, system), packages in facts.outside.items()]
    return "\n".join([f"  {line}" for line in _wrapped(heading)] + rows) + "\n"


def _wrapped(text: str) -> Sequence[str]:
    import textwrap

    return textwrap.wrap(text, 116)


def _name(facts: KitFacts, brand: str, language: str) -> str:
    names = facts.names.get(brand, {})
    return names.get(language) or names.get("en") or brand
