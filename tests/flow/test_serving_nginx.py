"""The shipped nginx snippet on a repository that the publisher made: who asks for what, and what goes over the wire."""

import gzip
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from keyfit import __version__
from keyfit.trust import poll
from keyfit.trust.limits import Limits
from keyfit.trust.payloads import PayloadStore
from keyfit.trust.repository import TufRepository
from keyfit.trust.transport import Transport
from tests.sim.brands import a_brand, a_match
from tests.sim.network import ELSEWHERE, OwnNetwork, Tinyproxy
from tests.sim.nginx import PACKAGING, Nginx
from tests.sim.repository import CertificateAuthority, SignedRepository

CHECKOUT = Path(__file__).resolve().parents[2]
ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))
TIMESTAMP = "/metadata/timestamp.json"


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    return SignedRepository(tmp_path / "publisher", bin_bits=5)


@pytest.fixture
def nginx(repository: SignedRepository, tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(repository.folder, tmp_path / "nginx") as server:
        yield server


def keyfit(server: Nginx, repository: SignedRepository, folder: Path, *arguments: str, **environment: str
           ) -> dict[str, Any]:
    """The program as a user runs it, in a tree of its own."""
    (folder / "tree").mkdir(exist_ok=True)
    if not (folder / "root.json").exists():
        (folder / "root.json").write_bytes(repository.trusted_root)
    command = [sys.executable, "-m", "keyfit", *arguments, "--json", "--root", folder / "tree", "--cache-dir", folder / "cache",
               "--trust-root", folder / "root.json", "--repository", server.url]
    given = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")} | environment
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, env=given)
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == document["exit_code"], done.stderr
    return document


# -- what a client costs ------------------------------------------------------------------------------------------------


def test_a_fresh_client_fetches_each_role_once_and_packed(repository: SignedRepository, nginx: Nginx, tmp_path: Path) -> None:
    target = repository.release(ACME)
    assert repository.client(tmp_path, nginx.url).manifest(target) is not None

    answers = nginx.answers()
    metadata = [answer for answer in answers if answer.path.startswith("/metadata/")]
    assert [(answer.status, answer.path.split(".", 1)[1]) for answer in metadata] == [
        (404, "root.json"), (200, "json"), (200, "snapshot.json"), (200, "targets.json"), (200, "drivers.json"),
        (200, metadata[-1].path.split(".", 1)[1])]
    assert metadata[-1].path.split(".")[1].startswith("b-")
    assert {answer.coding for answer in metadata[1:]} == {"gzip"}
    for answer in metadata[1:]:
        path = repository.folder / answer.path[1:]
        packed = path.with_name(path.name + ".gz")
        assert packed.exists() is not (".b-" in path.name or ".snapshot." in path.name)
        if packed.exists():
            assert answer.body_bytes == packed.stat().st_size
        assert answer.body_bytes < path.stat().st_size
    (manifest,) = [answer for answer in answers if answer.path.startswith("/targets/")]
    assert (manifest.status, manifest.coding) == (200, "gzip")
    assert len(answers) == len(metadata) + 1


def test_the_program_polls_with_one_request_and_no_body(repository: SignedRepository, nginx: Nginx, tmp_path: Path) -> None:
    """`keyfit update --check`, twice."""
    repository.release(ACME)
    first = keyfit(nginx, repository, tmp_path, "update", "--check")
    assert len(nginx.answers()) > 1
    nginx.forget()

    second = keyfit(nginx, repository, tmp_path, "update", "--check")

    assert second == first
    (answer,) = nginx.answers()
    assert (answer.status, answer.path, answer.body_bytes) == (304, TIMESTAMP, 0)
    assert answer.sent_bytes < 300
    assert answer.request_bytes < 300


def test_the_program_sees_what_is_new(repository: SignedRepository, nginx: Nginx, tmp_path: Path) -> None:
    """The poll's answer changes with the repository, even if that is published twice within one second: nginx makes entity
    tags of a file's second and size, and the sizes are mostly equal."""
    repository.release(ACME)
    for _ in range(3):
        keyfit(nginx, repository, tmp_path, "update", "--check")
        repository.refresh()
        nginx.forget()
        keyfit(nginx, repository, tmp_path, "update", "--check")
        asked = [answer for answer in nginx.answers() if answer.path == TIMESTAMP]
        assert asked[-1].status == 200, asked


@pytest.mark.parametrize("has_copy", [True, False], ids=["gzip_static", "gzip"])
def test_a_conditional_request_is_answered_without_a_body(repository: SignedRepository, nginx: Nginx, has_copy: bool) -> None:
    """With the copy that the publisher made, and with compression by nginx alone."""
    if not has_copy:
        (repository.folder / "metadata" / "timestamp.json.gz").unlink()
    url = nginx.url + TIMESTAMP[1:]
    asked = {"Accept-Encoding": "gzip"}
    first = requests.get(url, headers=asked, timeout=5)
    assert first.headers["Content-Encoding"] == "gzip"
    assert first.headers["ETag"].startswith('"' if has_copy else 'W/"')
    assert first.headers["Vary"] == "Accept-Encoding"

    again = requests.get(url, headers=asked | {"If-None-Match": first.headers["ETag"]}, timeout=5)

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"].removeprefix("W/")
    assert nginx.answers()[-1].body_bytes == 0
    assert poll.is_unchanged(url, first.headers["ETag"], f"keyfit/{__version__}")
    repository.release(ACME)
    assert not poll.is_unchanged(url, first.headers["ETag"], f"keyfit/{__version__}")


def test_who_does_not_take_gzip_gets_the_same(repository: SignedRepository, nginx: Nginx) -> None:
    url = nginx.url + TIMESTAMP[1:]
    plain = requests.get(url, headers={"Accept-Encoding": "identity"}, timeout=5)
    packed = requests.get(url, headers={"Accept-Encoding": "gzip"}, timeout=5)
    through = requests.get(url, headers={"Accept-Encoding": "gzip", "Via": "1.1 proxy"}, timeout=5)

    assert "Content-Encoding" not in plain.headers
    assert plain.content == packed.content == through.content
    assert packed.headers["Content-Encoding"] == through.headers["Content-Encoding"] == "gzip"


def test_a_driver_file_is_sent_as_it_is_and_taken_up_where_it_was_cut(repository: SignedRepository, nginx: Nginx,
                                                                      tmp_path: Path) -> None:
    data = random.Random(1).randbytes(600_000) + b"\0" * 600_000  # a part that gzip would love
    payload = repository.add_payload("driver.json", data)
    store = PayloadStore(tmp_path / "cache", Transport(Limits()))
    url = nginx.url + "payloads/" + payload.path

    def interrupt(size: int, _: int) -> None:
        if size >= 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch(payload, [url], interrupt)
    kept = (tmp_path / "cache" / f"{payload.sha256}.part").stat().st_size
    assert 500_000 <= kept < len(data)

    path = store.fetch(payload, [url])

    assert path.read_bytes() == data
    answer = nginx.answers()[-1]
    assert (answer.status, answer.coding, answer.body_bytes) == (206, "-", len(data) - kept)


# -- what is served, and how long it may be kept --------------------------------------------------------------------------


def test_what_caches_are_told(repository: SignedRepository, nginx: Nginx) -> None:
    repository.release(ACME)
    payload = repository.add_payload("acme.deb", b"driver")
    (manifest,) = (repository.folder / "targets" / "brand").rglob("*.json")

    def headers(path: str) -> Any:
        return requests.head(nginx.url + path, timeout=5).headers

    timestamp = headers("metadata/timestamp.json")
    assert timestamp["Cache-Control"] == "public, max-age=60"
    assert timestamp["Content-Type"] == "application/json"
    for path in ("metadata/1.root.json", f"targets/{manifest.relative_to(repository.folder / 'targets')}",
                 f"payloads/{payload.path}"):
        assert headers(path)["Cache-Control"] == "public, max-age=31536000, immutable", path
        assert headers(path)["ETag"], path
    missing = requests.get(nginx.url + "metadata/2.root.json", timeout=5)
    assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize("path", [
    "", "metadata/", "metadata", "targets/", "payloads/", "metadata/.htaccess", ".git/config", ".mirror/files.json",
    "metadata/timestamp.json.new", "metadata/timestamp.json.gz", "metadata/1.root.json.gz", "other/file.json",
    "file.json", "metadata/../other/file.json", "metadata/%2e%2e/other/file.json", "metadata//timestamp.json.new",
    "payloads/notes.txt",
])
def test_nothing_else_is_served(repository: SignedRepository, nginx: Nginx, path: str) -> None:
    """Files that a publisher's disk may have beside what is meant for everybody."""
    for name in ("metadata/.htaccess", ".git/config", ".mirror/files.json", "metadata/timestamp.json.new", "other/file.json",
                 "file.json", "payloads/notes.txt"):
        file = repository.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("secret")

    answer = requests.Request("GET", nginx.url).prepare()
    answer.url = nginx.url + path  # not tidied up
    with requests.Session() as session:
        got = session.send(answer, timeout=5)

    assert got.status_code in (403, 404)
    assert "secret" not in got.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_sent(repository: SignedRepository, nginx: Nginx, method: str) -> None:
    before = (repository.folder / TIMESTAMP[1:]).read_bytes()
    assert requests.request(method, nginx.url + TIMESTAMP[1:], data=b"x", timeout=5).status_code == 403
    assert requests.request(method, nginx.url + TIMESTAMP[1:], data=b"x" * 5000, timeout=5).status_code in (403, 413)
    assert (repository.folder / TIMESTAMP[1:]).read_bytes() == before


def test_the_example_of_a_site_works(repository: SignedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """packaging/nginx/site.conf, with its names and folders replaced by ours."""
    authority = CertificateAuthority(tmp_path / "authority")
    site = (PACKAGING / "site.conf").read_text()
    limits, _, server = site.partition("server {")
    for shown, ours in (("443", "127.0.0.1:PORT"), ("/etc/ssl/drivers.example.com.pem", str(authority.certificate)),
                        ("/etc/ssl/private/drivers.example.com.key", str(authority.key)),
                        ("/srv/keyfit/repository", str(repository.folder)),
                        ("/var/log/nginx/keyfit.log", str(tmp_path / "log")),
                        ("/etc/nginx/snippets/keyfit.conf", str(PACKAGING / "keyfit.conf"))):
        assert server.count(shown) == 1, shown
        server = server.replace(shown, ours)
    lines = server.rsplit("}", 1)[0].splitlines()
    own = "\n".join(line for line in lines if not line.strip().startswith(("listen", "root", "ssl_certificate")))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    target = repository.release(ACME)

    with Nginx(repository.folder, tmp_path / "nginx", tls=authority, http=limits, server=own) as nginx:
        assert repository.client(tmp_path, nginx.url).manifest(target) is not None

    log = (tmp_path / "log").read_text().splitlines()
    assert len(log) == 7, log
    assert all("127.0.0.1" not in line for line in log)


# -- publishing under readers ---------------------------------------------------------------------------------------------


def test_200_clients_read_while_it_is_published(repository: SignedRepository, nginx: Nginx, tmp_path: Path) -> None:
    """Whoever reads, at whatever moment, gets one whole release: never an error, never an older one than before."""
    other = a_brand("bolt", a_match(id_vendor=0x1234, id_product=2))
    numbers = iter(range(1, 1_000_000))

    def publish() -> str:
        sequence = next(numbers)
        return repository.release(*(msgspec.structs.replace(brand, sequence=sequence) for brand in (ACME, other)))

    target = publish()
    done, published = threading.Event(), [1]

    def keep_publishing() -> None:
        while not done.is_set():
            publish()
            published[0] += 1

    def read(number: int) -> list[int]:
        seen = []
        for _ in range(2):
            client = TufRepository(urls=[nginx.url], trusted_root=repository.trusted_root, limits=Limits(),
                                   metadata_dir=tmp_path / str(number) / "metadata", cache_dir=tmp_path / str(number) / "files")
            manifest = client.manifest(target)
            assert manifest is not None
            seen.append(manifest.brands[0].sequence)
        return seen

    publisher = threading.Thread(target=keep_publishing)
    publisher.start()
    try:
        with ThreadPoolExecutor(200) as readers:
            seen = list(readers.map(read, range(200)))
    finally:
        done.set()
        publisher.join()

    assert len(seen) == 200
    assert all(first <= second for first, second in seen)
    assert published[0] > 5
    assert len({sequence for both in seen for sequence in both}) > 2  # they did read while it changed
    assert nginx.errors() == ""


# -- through proxies ----------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(repository: SignedRepository, tmp_path: Path) -> Iterator[Nginx]:
    """The repository on https at an address that is not this machine's."""
    authority = CertificateAuthority(tmp_path / "authority", ELSEWHERE)
    repository.release(ACME)
    with OwnNetwork(), Nginx(repository.folder, tmp_path / "nginx", tls=authority, address=ELSEWHERE) as server:
        yield server


def test_f3_a_proxy_of_the_environment_leads_to_an_https_repository(repository: SignedRepository, elsewhere: Nginx,
                                                                    tmp_path: Path) -> None:
    """F3: by CONNECT, so that the proxy sees a name and a port and nothing else."""
    with Tinyproxy(tmp_path / "proxy", elsewhere.port) as proxy:
        said = keyfit(elsewhere, repository, tmp_path, "update", "--check", https_proxy=proxy.url,
                      SSL_CERT_FILE=str(tmp_path / "authority/ca.pem"))
        assert said["outcome"] == "done"
        assert proxy.asked()
        assert all(line == f"CONNECT {ELSEWHERE}:{elsewhere.port} HTTP/1.0" or line.endswith("HTTP/1.1")
                   for line in proxy.asked())


def test_f3_the_certificate_is_checked_behind_a_proxy(repository: SignedRepository, elsewhere: Nginx, tmp_path: Path) -> None:
    """F3, F1."""
    with Tinyproxy(tmp_path / "proxy", elsewhere.port) as proxy:
        said = keyfit(elsewhere, repository, tmp_path, "update", "--check", https_proxy=proxy.url)
    assert (said["exit_code"], said["messages"][0]["code"]) == (69, "tls-not-trusted")


@pytest.mark.parametrize(("login", "accepted"), [("", False), ("someone:canary@", False), ("someone:right@", True)])
def test_f3_a_proxy_that_asks_for_a_password(repository: SignedRepository, elsewhere: Nginx, tmp_path: Path, login: str,
                                             accepted: bool) -> None:
    """F3: what was given is in no message."""
    with Tinyproxy(tmp_path / "proxy", elsewhere.port, ("someone", "right")) as proxy:
        said = keyfit(elsewhere, repository, tmp_path, "update", "--check",
                      https_proxy=proxy.url.replace("http://", f"http://{login}"),
                      SSL_CERT_FILE=str(tmp_path / "authority/ca.pem"))
    assert "canary" not in json.dumps(said)
    if accepted:
        assert said["outcome"] == "done"
    else:
        assert (said["exit_code"], said["messages"][0]["code"]) == (69, "proxy-failed")
        assert "proxy" in said["messages"][0]["hint"]


def test_f3_a_proxy_that_does_not_let_through(repository: SignedRepository, elsewhere: Nginx, tmp_path: Path) -> None:
    """F3."""
    with Tinyproxy(tmp_path / "proxy", elsewhere.port + 1) as proxy:
        said = keyfit(elsewhere, repository, tmp_path, "update", "--check", https_proxy=proxy.url,
                      SSL_CERT_FILE=str(tmp_path / "authority/ca.pem"))
    assert (said["exit_code"], said["messages"][0]["code"]) == (69, "proxy-failed")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:1", "http://[", "no address"])
def test_f3_a_proxy_that_is_none(repository: SignedRepository, elsewhere: Nginx, tmp_path: Path, proxy: str) -> None:
    """F3: not there, of a kind that we do not speak, or no address at all. The way without it is not tried instead."""
    said = keyfit(elsewhere, repository, tmp_path, "update", "--check", https_proxy=proxy,
                  SSL_CERT_FILE=str(tmp_path / "authority/ca.pem"))
    assert (said["exit_code"], said["messages"][0]["code"]) == (69, "proxy-failed")


@pytest.mark.parametrize("exception", [ELSEWHERE, "192.0.2.0/24", "example.com, 192.0.2.0/30", "*"])
def test_a_proxy_is_not_asked_for_what_no_proxy_names(repository: SignedRepository, elsewhere: Nginx, tmp_path: Path,
                                                      exception: str) -> None:
    with Tinyproxy(tmp_path / "proxy", elsewhere.port) as proxy:
        said = keyfit(elsewhere, repository, tmp_path, "update", "--check", https_proxy=proxy.url, no_proxy=exception,
                      SSL_CERT_FILE=str(tmp_path / "authority/ca.pem"))
        assert said["outcome"] == "done"
        assert proxy.asked() == []


# -- a network that wants a sign-in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code"), [
    ("return 511 'sign in';", "captive-portal"),
    ("default_type text/html; return 200 '<html>Welcome to the hotel</html>';", "captive-portal"),
    ("default_type application/json; return 200 '<!doctype html>';", "captive-portal"),
    ("return 302 http://192.0.2.7/login?to=$uri;", "redirect-refused"),
    ("return 302 https://192.0.2.7/login;", "redirect-refused"),
])
def test_f4_a_network_that_wants_a_sign_in(repository: SignedRepository, tmp_path: Path, answer: str, code: str) -> None:
    """F4: a real server that answers everything with its page; the program says so, and works when that is over."""
    repository.release(ACME)
    with Nginx(repository.folder, tmp_path / "portal", server=f"location / {{ {answer} }}") as portal:
        said = keyfit(portal, repository, tmp_path, "update", "--check")
        assert (said["exit_code"], said["messages"][0]["code"]) == (69, code)
        assert "sign in" in said["messages"][0]["hint"]
    with Nginx(repository.folder, tmp_path / "nginx") as server:
        assert keyfit(server, repository, tmp_path, "update", "--check")["outcome"] == "done"


def test_f4_a_sign_in_page_does_not_pass_for_an_unchanged_repository(repository: SignedRepository, nginx: Nginx,
                                                                     tmp_path: Path) -> None:
    """F4: the cheap check takes nothing but 304 for an answer."""
    repository.release(ACME)
    keyfit(nginx, repository, tmp_path, "update", "--check")
    with Nginx(repository.folder, tmp_path / "portal", server="location / { return 200 '<html>'; }") as portal:
        assert not poll.is_unchanged(portal.url + TIMESTAMP[1:], '"1-1"', "keyfit/0")


def test_the_compressed_copies_are_what_they_stand_for(repository: SignedRepository) -> None:
    """nginx sends them without looking into them."""
    repository.release(ACME)
    for copy in (repository.folder / "metadata").glob("*.gz"):
        assert gzip.decompress(copy.read_bytes()) == copy.with_suffix("").read_bytes()
