"""The network between client and repository: who may read along, lead astray, or merely be in the way."""

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from keyfit.errors import NetworkError, TrustError
from keyfit.trust.repository import TufRepository
from tests.sim.brands import a_brand, a_match
from tests.sim.repository import (
    IMPATIENT,
    Behaviour,
    CertificateAuthority,
    HostileServer,
    SignedRepository,
    drip_body,
    drip_headers,
    endless_body,
    packed,
    redirect,
    sign_in_page,
    silence,
    status,
)

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    return SignedRepository(tmp_path / "publisher")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "authority")


@pytest.fixture
def trusted(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> CertificateAuthority:
    """The authority in the system's store; SSL_CERT_FILE is where OpenSSL looks for that."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


def unreachable(client: TufRepository) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        client.refresh()
    assert caught.value.hint
    return caught.value


def test_a_repository_over_http_on_this_machine(repository: SignedRepository, tmp_path: Path) -> None:
    target = repository.release(ACME)
    with HostileServer(repository.folder) as server:
        assert repository.client(tmp_path, server.url).manifest(target) is not None


def test_f1_a_certificate_from_the_systems_store_is_accepted(repository: SignedRepository, tmp_path: Path,
                                                             trusted: CertificateAuthority) -> None:
    """F1."""
    target = repository.release(ACME)
    with HostileServer(repository.folder, tls=trusted) as server:
        assert repository.client(tmp_path, server.url).manifest(target) is not None


def test_f1_a_certificate_that_the_system_does_not_know_is_refused(repository: SignedRepository, tmp_path: Path,
                                                                   authority: CertificateAuthority,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """F1: and the variables that other programs obey change nothing."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority.path))
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    with HostileServer(repository.folder, tls=authority) as server:
        assert unreachable(repository.client(tmp_path, server.url)).code == "tls-not-trusted"
        assert server.requests == []


def test_f1_a_certificate_for_another_name_is_refused(repository: SignedRepository, tmp_path: Path,
                                                      trusted: CertificateAuthority) -> None:
    """F1: "localhost" leads to the same server, whose certificate does not name it."""
    with HostileServer(repository.folder, tls=trusted) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        assert unreachable(repository.client(tmp_path, url)).code == "tls-not-trusted"


def test_f1_the_bundled_list_of_roots_is_not_loaded(repository: SignedRepository, tmp_path: Path,
                                                    authority: CertificateAuthority,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """F1: the server's authority is put where Python programs find a list of their own; only the system's store counts."""
    monkeypatch.setattr("certifi.where", lambda: str(authority.path))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authority.path))
    with HostileServer(repository.folder, tls=authority) as server:
        assert unreachable(repository.client(tmp_path, server.url)).code == "tls-not-trusted"


@pytest.mark.parametrize(("location", "code"), [
    ("http://127.0.0.1:1/metadata/timestamp.json", "redirect-refused"),
    ("https://elsewhere.example.com/timestamp.json", "redirect-refused"),
    ("https://127.0.0.1@elsewhere.example.com/x", "redirect-refused"),
    ("https://user:password@127.0.0.1/x", "redirect-refused"),
    ("https://127.0.0.1\t.example.com/x", "redirect-refused"),
    ("https://elsewhere.example.com\\@127.0.0.1/x", "redirect-refused"),
    ("file:///etc/passwd", "redirect-refused"),
    ("ftp://127.0.0.1/x", "redirect-refused"),
    ("/metadata/timestamp.json", "too-many-redirects"),
])
def test_f3_redirects_that_are_not_followed(repository: SignedRepository, tmp_path: Path, location: str, code: str,
                                            trusted: CertificateAuthority) -> None:
    """F3: to http, to a host that nobody named, with credentials, to names that parsers disagree about, in a loop."""
    with HostileServer(repository.folder, tls=trusted) as server:
        server.misbehave("timestamp.json", redirect(location))

        assert unreachable(repository.client(tmp_path, server.url)).code == code
        assert len(server.asked("timestamp.json")) == (4 if code == "too-many-redirects" else 1)


def test_f3_a_redirect_to_a_host_of_the_repository_is_followed(repository: SignedRepository, tmp_path: Path,
                                                               trusted: CertificateAuthority) -> None:
    """F3: https, named host, without credentials or cookies."""
    with HostileServer(repository.folder, tls=trusted) as other, HostileServer(repository.folder, tls=trusted) as server:
        server.misbehave("timestamp.json", status(302, Location=other.url + "metadata/timestamp.json",
                                                  Set_Cookie="id=1; Path=/"))

        repository.client(tmp_path, server.url).refresh()

        assert [set(headers) for headers in other.asked("")] == [{"Host", "User-Agent", "Accept", "Accept-Encoding"}]


def test_f3_netrc_is_not_read(repository: SignedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3, CVE-2024-47081."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with HostileServer(repository.folder) as server:
        repository.client(tmp_path, server.url).refresh()

        assert server.requests
        assert not any("Authorization" in headers for _, headers in server.requests)


def test_f3_a_proxys_password_is_in_no_message(repository: SignedRepository, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: the proxy of the environment is used, and what it needs to know stays between us."""
    with HostileServer(tmp_path) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("http://", "http://someone:canary@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        error = unreachable(repository.client(tmp_path, "https://packages.example.com/"))

    assert error.code == "proxy-failed"
    assert "canary" not in error.message + error.hint + str(error)


def test_f5_requests_carry_nothing_but_the_programs_name(repository: SignedRepository, tmp_path: Path) -> None:
    """F5: no cookie comes back, no language, no system."""
    repository.release(ACME)
    with HostileServer(repository.folder) as server:
        server.misbehave("2.root.json", status(404, Set_Cookie="track=1; Path=/"))
        repository.client(tmp_path, server.url).refresh()

    for _, headers in server.requests:
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
        assert headers["User-Agent"].startswith("keyfit/")


@pytest.mark.parametrize("behaviour", [sign_in_page(), sign_in_page("application/json"), status(511)],
                         ids=["html", "html-as-json", "511"])
def test_f4_a_sign_in_page_is_recognised(repository: SignedRepository, tmp_path: Path, behaviour: Behaviour) -> None:
    """F4: whatever the network answers with, on the first request already, and nothing of it is stored."""
    with HostileServer(repository.folder) as server:
        server.misbehave("", behaviour)

        error = unreachable(repository.client(tmp_path, server.url))

    assert error.code == "captive-portal"
    assert "sign in" in error.hint
    kept = [path for path in (tmp_path / "metadata").rglob("*") if path.is_file()]
    assert not any(b"DOCTYPE" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("behaviour", [drip_body(), drip_headers(), silence()], ids=["body", "headers", "silence"])
@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "targets/brand"])
def test_a7_a_slow_server_is_given_up(repository: SignedRepository, tmp_path: Path, name: str,
                                      behaviour: Behaviour) -> None:
    """A7: for every kind of metadata, in bounded time."""
    limits = msgspec.structs.replace(IMPATIENT, connect_s=0.3, silence_s=0.5, metadata_s=1)
    target = repository.release(ACME)
    with HostileServer(repository.folder) as server:
        server.misbehave(name, behaviour)
        began = time.monotonic()

        with pytest.raises(NetworkError) as caught:
            repository.client(tmp_path, server.url, limits=limits).manifest(target)

    assert caught.value.code in ("download-too-slow", "repository-unreachable")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "snapshot.json", "targets.json", "targets/brand"])
def test_a7_metadata_without_end_is_cut(repository: SignedRepository, tmp_path: Path, name: str) -> None:
    """A7."""
    target = repository.release(ACME)
    with HostileServer(repository.folder) as server:
        server.misbehave(name, endless_body())

        with pytest.raises(TrustError) as caught:
            repository.client(tmp_path, server.url).manifest(target)

    assert caught.value.code == ("target-hash" if name == "targets/brand" else "metadata-too-large")


def test_metadata_and_manifests_may_be_packed(repository: SignedRepository, tmp_path: Path) -> None:
    """Lengths and hashes that were signed are those of the content."""
    target = repository.release(ACME)
    with HostileServer(repository.folder) as server:
        server.misbehave("2.root.json", status(404, Content_Encoding="gzip"))
        server.misbehave("", packed())

        assert repository.client(tmp_path, server.url).manifest(target) is not None
        assert {headers["Accept-Encoding"] for headers in server.asked("")} == {"gzip"}


def test_payloads_are_asked_for_as_they_are(repository: SignedRepository, tmp_path: Path) -> None:
    payload = repository.add_payload("driver.deb", b"driver" * 1000)
    with HostileServer(repository.folder) as server:
        client = repository.client(tmp_path, server.url)
        client.payload(payload)

        assert [headers["Accept-Encoding"] for headers in server.asked("payloads")] == ["identity"]


@pytest.mark.parametrize(("name", "coding", "change"), [
    ("payloads", "gzip", gzip.compress),
    ("timestamp.json", "br", bytes),
    ("timestamp.json", "deflate", zlib.compress),
    ("timestamp.json", "gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    ("timestamp.json", "gzip", bytes),
    ("timestamp.json", "gzip", lambda data: gzip.compress(data)[:-1]),
    ("timestamp.json", "gzip", lambda data: gzip.compress(data) + b"\n"),
    ("timestamp.json", "gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])),
], ids=["payload", "br", "deflate", "twice", "not-packed", "cut", "more", "two-members"])
def test_codings_that_are_refused(repository: SignedRepository, tmp_path: Path, name: str, coding: str,
                                  change: Callable[[bytes], bytes]) -> None:
    payload = repository.add_payload("driver.deb", b"driver" * 1000)
    with HostileServer(repository.folder) as server:
        server.misbehave(name, packed(change, coding))
        client = repository.client(tmp_path, server.url)

        with pytest.raises(NetworkError) as caught:
            client.payload(payload) if name == "payloads" else client.refresh()

    assert caught.value.code == "bad-answer"


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """500 MB of blanks in half a megabyte."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * 1_000_000) for _ in range(500)) + packer.flush()


@pytest.mark.parametrize("name", ["timestamp.json", "targets.json", "targets/brand"])
def test_a7_a_gzip_bomb_is_cut_at_the_limit(repository: SignedRepository, tmp_path: Path, name: str,
                                            bomb: bytes) -> None:
    """A7: of 500 MB no more is unpacked than metadata may have, within half a second and 20 MB."""
    target = repository.release(ACME)
    with HostileServer(repository.folder) as server:
        repository.client(tmp_path / "warm", server.url).refresh()  # imports count neither here nor there
        server.misbehave(name, packed(lambda _: bomb))
        began = time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(TrustError) as caught:
                repository.client(tmp_path / "cold", server.url).manifest(target)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        spent = time.process_time() - began

    assert caught.value.code == ("target-hash" if name == "targets/brand" else "metadata-too-large")
    assert peak < 20_000_000
    assert spent < 0.5


def test_retry_after_does_not_hold_us_up(repository: SignedRepository, tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        server.misbehave("timestamp.json", status(503, Retry_After="86400"))
        began = time.monotonic()

        error = unreachable(repository.client(tmp_path, server.url))

        assert time.monotonic() - began < 5
        assert error.code == "repository-unreachable"
        assert "86400 seconds" in error.hint
        assert len(server.asked("timestamp.json")) == 1


def test_nobody_listens(repository: SignedRepository, tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        url = server.url

    assert unreachable(repository.client(tmp_path, url)).code == "repository-unreachable"


def test_the_next_address_helps_against_a_slow_one(repository: SignedRepository, tmp_path: Path) -> None:
    target = repository.release(ACME)
    with HostileServer(repository.folder) as slow, HostileServer(repository.folder) as good:
        slow.misbehave("", drip_headers())
        limits = msgspec.structs.replace(IMPATIENT, connect_s=0.3, silence_s=0.5)

        assert repository.client(tmp_path, slow.url, good.url, limits=limits).manifest(target) is not None
