"""Is a page one that may be opened in the user's browser? (security G2)

The page is a complete literal from signed data; this check is the second pair of eyes. Python's own URL parser is not used
to decide: it and browsers disagree on backslashes and control characters, so such characters are refused before anything.
"""

import re

from keyfit.errors import PolicyError

MAX_LENGTH = 300
_PAGE = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+)"
    r"(?P<rest>/[A-Za-z0-9._~/%?=&#+,;:@!$'()*-]*)?\Z"
)
"""Lower-case ASCII host with at least one dot, no user, no port, then only characters that a URL may hold unescaped (RFC
3986, section 2). What does not match as a whole is refused; nothing is repaired."""


def check_page(page: str) -> None:
    """Refuse anything but a plain https address.

    Raises:
        PolicyError: code "page-refused".
    """
    found = _PAGE.match(page) if len(page) <= MAX_LENGTH else None
    if found is None:
        raise PolicyError("page-refused", f"The page {page[:80]!r} is not a plain https address, so it is not opened.",
                          hint="Tell the publisher of the brand's data.")
    labels = found["host"].split(".")
    # browsers take a host whose last label is a number, also in hexadecimal, for an IPv4 address (WHATWG URL, "ends in a
    # number"); no top-level domain begins with a digit
    if not labels[-1][0].isalpha() or any(len(label) > 63 for label in labels):
        raise PolicyError("page-refused", f"The host {found['host']!r} is not a name.",
                          hint="Tell the publisher of the brand's data.")
