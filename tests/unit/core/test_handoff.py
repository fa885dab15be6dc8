"""The page that is opened is a plain https address, or it is not opened."""

import pytest

from keyfit.core.handoff import check_page
from keyfit.errors import Outcome, PolicyError

REFUSED = {
    "empty": "",
    "http": "http://bank.example/",
    "other scheme": "javascript:alert(1)",
    "file": "file:///etc/passwd",
    "data": "data:text/html,x",
    "scheme of a program": "ms-settings:privacy",
    "upper-case scheme": "HTTPS://bank.example/",
    "no scheme": "bank.example/",
    "scheme-relative": "//bank.example/",
    "one slash": "https:/bank.example/",
    "three slashes": "https:///bank.example/",
    "option": "--new-window=https://bank.example/",
    "option with one dash": "-https://bank.example/",
    "leading space": " https://bank.example/",
    "leading newline": "\nhttps://bank.example/",
    "leading tab": "\thttps://bank.example/",
    "trailing newline": "https://bank.example/\n",
    "newline inside": "https://bank.example/\nhttps://evil.example/",
    "tab in the host": "https://bank\t.example/",
    "NUL": "https://bank.example/\0.evil.example",
    "escape": "https://bank.example/\x1b[2J",
    "user": "https://bank.example@evil.example/",
    "user and password": "https://bank.example:x@evil.example/",
    "empty user": "https://@bank.example/",
    "port": "https://bank.example:443/",
    "port without number": "https://bank.example:/",
    "backslash before at": "https://bank.example\\@evil.example/",
    "backslashes for slashes": "https:\\\\bank.example\\",
    "backslash in the path": "https://bank.example/a\\..\\b",
    "percent in the host": "https://bank%2eexample/",
    "encoded at": "https://bank.example%40evil.example/",
    "encoded NUL in the host": "https://bank.example%00.evil.example/",
    "Cyrillic letter": "https://b\u0430nk.example/",
    "full-width dot": "https://bank\uff0eexample/",
    "ideographic dot": "https://bank\u3002example/",
    "right-to-left override": "https://bank.example/\u202egnp.exe",
    "soft hyphen": "https://ba\u00adnk.example/",
    "upper-case host": "https://Bank.example/",
    "IPv4": "https://192.0.2.1/",
    "IPv4 in one number": "https://3221225985/",
    "IPv4 in hexadecimal": "https://0xc0.0x0.0x2.0x1/",
    "IPv6": "https://[2001:db8::1]/",
    "localhost": "https://localhost/",
    "label begins with a dash": "https://-bank.example/",
    "label ends with a dash": "https://bank-.example/",
    "empty label": "https://bank..example/",
    "leading dot": "https://.bank.example/",
    "trailing dot": "https://bank.example./",
    "label of 64": f"https://{'a' * 64}.example/",
    "underscore": "https://bank_.example/",
    "query without path": "https://bank.example?x",
    "fragment without path": "https://bank.example#@evil.example/",
    "space in the path": "https://bank.example/a b",
    "quote": 'https://bank.example/"x',
    "back-quote": "https://bank.example/`id`",
    "angle brackets": "https://bank.example/<script>",
    "braces": "https://bank.example/{0}",
    "pipe": "https://bank.example/|id",
    "too long": "https://bank.example/" + "a" * 300,
}


@pytest.mark.parametrize("page", REFUSED.values(), ids=REFUSED)
def test_g2_a_hostile_page_is_refused(page: str) -> None:
    with pytest.raises(PolicyError) as refused:
        check_page(page)

    assert refused.value.code == "page-refused"
    assert refused.value.outcome is Outcome.FORBIDDEN
    assert refused.value.message.isprintable(), "the refusal itself is safe to show"


@pytest.mark.parametrize("page", [
    "https://bank.example", "https://bank.example/", "https://e-bank.bank.example/token/activate?step=1&lang=zh_CN#top",
    "https://xn--bcher-kva.example/", "https://95588.example/a%20b", "https://1.example/",
])
def test_a_plain_https_page_is_let_through(page: str) -> None:
    check_page(page)
