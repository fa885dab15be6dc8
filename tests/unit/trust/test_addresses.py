"""Addresses: what a repository may be called, and where an answer may send us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.errors import NetworkError, UserError
from keyfit.trust.addresses import check_redirect, check_repository, host_of, is_loopback, origin

HOSTS = frozenset({"a.example.com"})


@pytest.mark.parametrize("url", [
    "https://a.example.com", "https://a.example.com:8443/keyfit/", "http://127.0.0.1:8000", "http://[::1]/x/",
    "http://localhost/", "file:///srv/keyfit", "file://localhost/srv/keyfit/",
])
def test_addresses_that_are_accepted_end_in_a_slash(url: str) -> None:
    assert check_repository(url) == url.rstrip("/") + "/"


@pytest.mark.parametrize(("url", "code"), [
    ("http://a.example.com/", "https-required"), ("http://127.0.0.1.a.example.com/", "https-required"),
    ("http://localhost.a.example.com/", "https-required"), ("http://0x7f000001/", "https-required"),
    ("http://2130706433/", "https-required"), ("http://[::2]/", "https-required"),
    ("ftp://a.example.com/", "bad-repository-address"), ("//a.example.com/", "bad-repository-address"),
    ("https://", "bad-repository-address"), ("https://user:canary@a.example.com/", "bad-repository-address"),
    ("https://a.example.com\\@evil.example.com/", "bad-repository-address"),
    ("https://a.exam\tple.com/", "bad-repository-address"), ("https://a.example.com/\r\nX: y", "bad-repository-address"),
    ("https://ä.example.com/", "bad-repository-address"), ("https://a.example.com:99999/", "bad-repository-address"),
    ("https://[::1/", "bad-repository-address"), ("file://server/share/", "bad-repository-address"),
    ("", "bad-repository-address"),
])
def test_f1_addresses_that_are_refused(url: str, code: str) -> None:
    """F1."""
    with pytest.raises(UserError) as caught:
        check_repository(url)

    assert caught.value.code == code
    assert caught.value.hint


@given(st.text())
def test_f3_a_redirect_is_followed_to_named_https_hosts_or_not_at_all(location: str) -> None:
    """F3: whatever a server writes into the header."""
    try:
        target = check_redirect("https://a.example.com/metadata/timestamp.json", location, HOSTS)
    except NetworkError:
        return
    assert target.startswith("https://")
    assert host_of(target) in HOSTS


@pytest.mark.parametrize(("host", "loopback"), [
    ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False),
    ("localhost.", False), ("example.com", False), ("", False),
])
def test_loopback_is_told_without_a_lookup(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_f3_messages_show_neither_user_nor_path() -> None:
    """F3."""
    assert origin("https://user:canary@a.example.com:444/canary?canary") == "https://a.example.com"
