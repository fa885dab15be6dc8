"""Takes out of a text what may not be in a log or in a report: names, secrets, serial numbers (security I2, F3).

Two ways together: values that are known to be private are replaced wherever they stand; and what looks private by the words
around it is replaced whatever it is. Every pattern looks at a bounded number of characters from any one place, so that no
text takes long.
"""

import re
from collections.abc import Callable, Mapping

HIDDEN = "<hidden>"
SHORTEST = 2
"""Shorter values are not looked for: a single letter is in every text."""
_SEPARATOR = r"(?:[\s\"']{0,4}[=:][\s\"']{0,4}|\s{1,4}is\s{1,4}|\s{1,4}(?=\d{4}))"
_VALUE = r"[^\s\"',;]{1,1000}"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple((re.compile(pattern), by) for pattern, by in (
    # the user and password of an address
    (r"(?<=://)[^/\s\"'<>]{1,1000}@", HIDDEN + "@"),
    (r"(?i)\b(authorization\s{0,3}:\s{0,3}\S{1,20})\s{1,3}\S{1,4000}", r"\1 " + HIDDEN),
    # PIN=1234, "my_pin": "1234", PIN is 1234, userPin: 1234
    (r"((?:(?<![A-Za-z])[Pp]in|(?<=[a-z])Pin|PIN)(?![a-z])[A-Za-z0-9_-]{0,40}" + _SEPARATOR + ")" + _VALUE, r"\1" + HIDDEN),
    (r"(?i)((?:puk|passw(?:or)?d|passphrase|pass[_-]?code|secret|credential|api[_-]?key|access[_-]?token)[A-Za-z0-9_-]{0,40}"
     + _SEPARATOR + ")" + _VALUE, r"\1" + HIDDEN),
    # serial number: 12 AB, iSerial 3 0123456789, serialNumber=...; at least one digit, so that no plain word counts
    (r"(?i)(serial(?:[ _-]?(?:number|no|nr|short))?\.?[\s\"'=:#]{1,30}(?:\d{1,3}\s{1,20})?)(?=[\w:.-]{0,60}\d)[\w:.-]{3,1000}",
     r"\1" + HIDDEN),
    # pcscd puts the serial number of a reader into its name, before two numbers: "ACME Token (0123AB) 00 00"
    (r"\([0-9A-Za-z-]{4,64}\)(?= \d\d \d\d)", f"({HIDDEN})"),
    # whom a certificate is for, and who signed it
    (r"(?i)\b((?:subject|issuer)(?:\s{0,3}name)?\s{0,3}[=:]\s{0,3})[^\n]{1,2000}", r"\1" + HIDDEN),
    (r"\b((?:CN|SN|GN|UID|serialNumber|emailAddress|givenName|surname|OU|2\.5\.4\.\d{1,3})\s{0,2}=\s{0,2})[^,\n+/]{1,500}",
     r"\1" + HIDDEN),
    (r"(?i)(?<![\w.+-])[\w.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}", HIDDEN),
    # anybody's home directory
    (r"(?i)(?:/home|/Users|\b[A-Z]:\\Users)[/\\][^/\\\s\"':;,]{1,255}", "~"),
))


def redactor(known: Mapping[str, str]) -> Callable[[str], str]:
    """Make the function that redacts a text.

    Args:
        known: private value -> what stands in its place. It is found as a whole word, in any case of letters.
    """
    values = {value.casefold(): by for value, by in known.items() if len(value) >= SHORTEST}
    longest_first = sorted(values, key=len, reverse=True)
    edge = r"[A-Za-z0-9]"
    pattern = re.compile(f"(?<!{edge})(?:{'|'.join(map(re.escape, longest_first))})(?!{edge})", re.IGNORECASE)

    def redact(text: str) -> str:
        if values:
            text = pattern.sub(lambda found: values.get(found[0].casefold(), HIDDEN), text)
        for shape, by in _PATTERNS:
            text = shape.sub(by, text)
        return text

    return redact
