"""What no driver package may change: protections that are the user's, not the vendor's (security J3, F2).

Two forms: registry values, as INF and MSI files set them, and words of scripts and command lines. The lists name settings by
where Microsoft, Apple and Debian document them; they are for people's review, not proof that nothing else does harm.
"""

import re
from collections.abc import Iterator

from msgspec import Struct


class _Key(Struct, frozen=True):
    what: str
    path: str
    value: str = ""


_MICROSOFT = r"software\\(policies\\)?microsoft"
_KEYS = (
    # Defender antivirus (learn.microsoft.com: Policy CSP - Defender; ADMX "WindowsDefender")
    _Key("Microsoft Defender", rf"{_MICROSOFT}\\windows defender(\\.*)?"),
    _Key("Microsoft Defender", rf"{_MICROSOFT}\\microsoft antimalware(\\.*)?"),
    _Key("a protection service of Windows",
         r"system\\currentcontrolset\\services\\(windefend|wdnissvc|sense|wscsvc|mpssvc|bfe|wdfilter|securityhealthservice)(\\.*)?"),
    # User Account Control (learn.microsoft.com: User Account Control settings and configuration, registry keys)
    _Key("User Account Control", rf"{_MICROSOFT}\\windows\\currentversion\\policies\\system",
         r"enablelua|consentpromptbehavior(admin|user)|promptonsecuredesktop|enableinstallerdetection"
         r"|filteradministratortoken|validateadmincodesignatures|enablesecureuiapaths|enableuiadesktoptoggle"
         r"|localaccounttokenfilterpolicy|enablevirtualization"),
    # SmartScreen (learn.microsoft.com: Available SmartScreen settings; Policy CSP - SmartScreen)
    _Key("SmartScreen", rf"{_MICROSOFT}\\windows\\system", r"enablesmartscreen|shellsmartscreenlevel"),
    _Key("SmartScreen", rf"{_MICROSOFT}\\windows\\currentversion\\explorer", "smartscreenenabled"),
    _Key("SmartScreen", rf"{_MICROSOFT}\\windows\\currentversion\\apphost", r"enablewebcontentevaluation|preventoverride"),
    _Key("SmartScreen", rf"{_MICROSOFT}\\(internet explorer|microsoftedge)\\phishingfilter"),
    _Key("SmartScreen", rf"{_MICROSOFT}\\edge(\\.*)?", r"smartscreen.*|preventsmartscreen.*"),
    _Key("SmartScreen and attachment checks", rf"{_MICROSOFT}\\windows\\currentversion\\policies\\attachments"),
    # driver and code signing (learn.microsoft.com: Driver signing, boot options; Device Guard; vulnerable driver blocklist)
    _Key("driver signing", r"software\\(policies\\)?microsoft\\(windows nt\\)?driver signing( policy)?"),
    _Key("driver signing", r"system\\currentcontrolset\\control\\(ci|deviceguard)(\\.*)?"),
    _Key("driver signing", r"(bcd00000000|system\\setup\\.*bcd.*)(\\.*)?"),
    _Key("driver signing", rf"{_MICROSOFT}\\windows\\deviceguard(\\.*)?"),
    # TLS (learn.microsoft.com: TLS registry settings; Internet Settings)
    _Key("TLS", r"system\\currentcontrolset\\control\\securityproviders\\schannel(\\.*)?"),
    _Key("TLS", rf"{_MICROSOFT}\\cryptography\\(configuration|oid\\encodingtype 0\\certdllcreatecertificatechainengine)(\\.*)?"),
    _Key("TLS", rf"{_MICROSOFT}\\windows\\currentversion\\internet settings",
         r"secureprotocols|certificaterevocation|warnonbadcertrecving|preventignorecerterrors|disablecertificateerroroverride"),
    _Key("TLS", r"software\\(wow6432node\\)?microsoft\\\.netframework\\v[0-9.]+", r"schusestrongcrypto|systemdefaulttlsversions"),
    _Key("the Internet zone's protection",
         rf"{_MICROSOFT}\\windows\\currentversion\\internet settings\\(lockdown_)?zones\\[34]"),
    # trust stores (security F2)
    _Key("a certificate trust store", rf"{_MICROSOFT}\\(systemcertificates|enterprisecertificates)\\(root|authroot|ca"
         r"|trustedpublisher|trustedpeople|disallowed)(\\.*)?"),
    # firewall (learn.microsoft.com: Windows Firewall, policy registry keys)
    _Key("the firewall", r"system\\currentcontrolset\\services\\sharedaccess(\\.*)?"),
    _Key("the firewall", rf"{_MICROSOFT}\\windowsfirewall(\\.*)?"),
)
_COMPILED = tuple((key.what, re.compile(key.path), re.compile(key.value or ".*")) for key in _KEYS)
_SLASHES = re.compile(r"\\+")
_CONTROL_SET = re.compile(r"\\(controlset\d{3}|clone)(?=\\)")


def registry_fault(key: str, value: str) -> str:
    """Which protection a registry value belongs to; empty if to none.

    Args:
        key: path below the root, in any case, with or without WOW6432Node.
        value: name of the value; empty for the default one, or "*" for the whole key.
    """
    path = _SLASHES.sub(r"\\", key.strip().strip("\\").lower()).replace("software\\wow6432node\\", "software\\")
    path = _CONTROL_SET.sub(r"\\currentcontrolset", path)
    name = value.strip().lower()
    for what, place, names in _COMPILED:
        if place.fullmatch(path) and (name == "*" or names.fullmatch(name)):
            return what
        if name == "*" and place.fullmatch(path + "\\x"):
            return what
    return ""


class _Word(Struct, frozen=True):
    what: str
    pattern: str


_WORDS = (
    _Word("Microsoft Defender", r"(set|add)-mppreference|disablerealtimemonitoring|mpcmdrun|sc(\.exe)?\s+(stop|config|delete)\s+"
          r"(windefend|mpssvc|wscsvc|sense)|net(\.exe)?\s+stop\s+\W?(windefend|mpssvc|wscsvc)"),
    _Word("User Account Control", r"\benablelua\b|consentpromptbehavior"),
    _Word("SmartScreen", r"\bsmartscreenenabled\b|enablesmartscreen"),
    _Word("driver signing", r"\bbcdedit\b|testsigning|nointegritychecks|loadoptions\s+ddisable|csrutil\s+disable"
          r"|kextconsent|nvram\s+boot-args|mokutil\s+--disable-validation"),
    _Word("the firewall", r"netsh(\.exe)?\s+(advfirewall|firewall)|set-netfirewallprofile|new-netfirewallrule"
          r"|\bufw\s+(disable|allow)|firewall-cmd\b|\biptables\s+-[FPA]|socketfilterfw"),
    _Word("a certificate trust store", r"certutil(\.exe)?\s[^\n]*-addstore|certmgr(\.exe)?\s+(/|-)add|import-certificate"
          r"|update-ca-(certificates|trust)|\btrust\s+anchor\b|security\s+add-trusted-cert|/usr/local/share/ca-certificates"
          r"|/etc/pki/ca-trust/source|certutil\s[^\n]*-A\s"),
    _Word("Gatekeeper", r"spctl\s+--(master|global)-disable|xattr\s+-[a-z]*d[a-z]*\s+com\.apple\.quarantine"
          r"|lsquarantine"),
    _Word("access control of the system", r"\bsetenforce\s+0|selinux=disabled|aa-teardown|aa-disable"),
    _Word("checks of downloads", r"curl\b[^\n]*\s((?-i:-[a-zA-Z]*k[a-zA-Z]*\b)|--insecure)|wget\s[^\n]*--no-check-certificate"
          r"|servercertificatevalidationcallback|--allow-unauthenticated|--force-depends|--nogpgcheck|--nosignature"),
)
_WORDS_COMPILED = tuple((word.what, re.compile(word.pattern, re.IGNORECASE)) for word in _WORDS)
_FETCHERS = re.compile(r"\b(curl|wget|nscurl|bitsadmin|certutil\s+-urlcache|start-bitstransfer|invoke-webrequest|downloadfile"
                       r"|winhttprequest|xmlhttp|apt-get\s+install|apt\s+install|dnf\s+install|yum\s+install|pip3?\s+install)\b",
                       re.IGNORECASE)


def words_faults(text: str) -> Iterator[str]:
    """Protections that a script or command line touches, each with the words that say so."""
    for what, pattern in _WORDS_COMPILED:
        found = pattern.search(text)
        if found:
            yield f"touches {what}: {' '.join(found.group().split())[:80]!a}"


def fetches(text: str) -> str:
    """The word by which a script fetches something from a network; empty if it does not."""
    found = _FETCHERS.search(text)
    return " ".join(found.group().split()) if found else ""
