"""Mirrors: what a publisher signed, copied by somebody who holds no key, and used by clients that know only its root."""

import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from tuf.api.metadata import TargetFile

from keyfit.model.catalog import (
    AppManifest,
    Brand,
    Grant,
    Manifest,
    Payload,
    Staged,
    app_target,
    brand_target,
    device_target,
    grant_target,
)
from keyfit.publisher.cli import run
from keyfit.publisher.compile import claim_of
from keyfit.publisher.mirror_folder import STATE, MirrorFolder
from keyfit.trust.repository import TufRepository
from tests.sim.brands import a_brand, a_match, a_package
from tests.sim.nginx import Nginx
from tests.sim.repository import (
    Behaviour,
    HostileServer,
    SignedRepository,
    cut_after,
    endless_body,
    redirect,
    sign_in_page,
    status,
    wrong_bytes,
)
from tests.sim.syscalls import killed

CHECKOUT = Path(__file__).resolve().parents[2]
PLATFORMS = (("linux", "amd64"), ("linux", "arm64"), ("windows", "amd64"))
CALLS_OF_A_RUN = 100
"""Of one that goes from one release to the next without an end put to it."""
DEVICES = {"acme": (0x1234, 0x0001), "bolt": (0x1234, 0x0002), "core": (0x2345, 0x0001)}
DEVICE = device_target(0x1234, 0x0001, "linux", "amd64")


class Published:
    """A repository with three brands on three platforms, each with a driver file of its own."""

    def __init__(self, folder: Path) -> None:
        self.repository = SignedRepository(folder, bin_bits=5)
        self.payloads: dict[str, Payload] = {}
        self.sequence = 0
        self.release()

    def release(self, sequence: int | None = None) -> None:
        """All brands anew, with new driver files."""
        self.sequence = sequence or self.sequence + 1
        targets: dict[str, bytes] = {}
        for system, architecture in PLATFORMS:
            for name, ids in DEVICES.items():
                brand = self._brand(name, system, architecture)
                for path in (brand_target(name, system, architecture), device_target(*ids, system, architecture)):
                    targets[path] = msgspec.json.encode(Manifest(
                        keyfit=1, path=path, system=system, architecture=architecture, brands=(brand,)))  # type: ignore[arg-type]
        self.repository.release_raw(targets)

    def _brand(self, name: str, system: str, architecture: str) -> Brand:
        file = f"{name}_{self.sequence}_{system}-{architecture}.deb"
        if file not in self.payloads:
            data = random.Random(file).randbytes(50_000)
            self.payloads[file] = self.repository.add_payload(file, data)
        vendor, product = DEVICES[name]
        brand = a_brand(name, a_match(id_vendor=vendor, id_product=product),
                        package=(a_package(name, "deb", payload=self.payloads[file]),))
        return msgspec.structs.replace(brand, sequence=self.sequence)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path / "publisher")


class Mirror:
    """The mirror's folder, the command that makes it, and clients of it."""

    def __init__(self, published: Published, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.repository = published.repository
        self.folder = folder / "mirror"
        self.root = folder / "trusted-root.json"
        self.root.write_bytes(self.repository.trusted_root)
        self._capture = capture
        self._clients = folder / "clients"

    def __call__(self, url: str, *options: object, expect: int = 0) -> dict[str, Any]:
        """Run the command; its data, or its first message if it fails."""
        self._capture.readouterr()
        code = run(["--json", "mirror", url, str(self.folder), "--trust-root", str(self.root), *map(str, options)])
        output = self._capture.readouterr()
        document: dict[str, Any] = json.loads(output.out)
        assert (code, output.err) == (expect, ""), document
        return document["data"] if expect == 0 else document["messages"][0]  # type: ignore[no-any-return]

    def client(self, name: str = "one", url: str = "", **options: Any) -> TufRepository:
        """A client that knows only the root and the mirror."""
        return self.repository.client(self._clients / name, url or self.folder.as_uri() + "/", **options)

    def files(self) -> dict[str, bytes]:
        """All that a web server would serve."""
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in sorted(self.folder.rglob("*"))
                if path.is_file() and path.relative_to(self.folder).parts[0] != STATE}


@pytest.fixture
def mirror(published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mirror:
    return Mirror(published, tmp_path, capsys)


def works(client: TufRepository, target: str = DEVICE) -> int:
    """The client gets a manifest and its driver file; returns the brand's sequence."""
    client.refresh()
    manifest = client.manifest(target)
    assert manifest is not None
    payload = manifest.brands[0].package[0].payload
    assert payload is not None
    assert hashlib.sha256(client.payload(payload).read_bytes()).hexdigest() == payload.sha256
    return manifest.brands[0].sequence


def origin_files(published: Published) -> dict[str, bytes]:
    folder = published.repository.folder
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith(".gz")}


# -- a good origin ------------------------------------------------------------------------------------------------------


def test_a_mirror_is_the_same_bytes_and_serves_any_client(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        made = mirror(server.url)

    files = mirror.files()
    current = {name: data for name, data in origin_files(published).items() if name in files}
    assert {name: data for name, data in files.items() if not name.endswith(".gz")} == current
    assert made["targets"] == {"files": 18, "fetched": 18, "fetched_bytes": sum(map(len, published.repository.targets.values()))}
    assert made["payloads"] == {"files": 9, "fetched": 9, "fetched_bytes": 450_000}
    assert made["metadata"]["files"] == len([name for name in current if name.startswith("metadata/")])
    for name, (vendor, product) in DEVICES.items():
        for system, architecture in PLATFORMS:
            assert works(mirror.client(), device_target(vendor, product, system, architecture)) == 1
            assert works(mirror.client(), brand_target(name, system, architecture)) == 1


def test_web_servers_can_read_it_whatever_the_umask(published: Published, mirror: Mirror) -> None:
    before = os.umask(0o077)
    try:
        mirror(published.repository.url)
    finally:
        os.umask(before)

    for path in (mirror.folder, *mirror.folder.rglob("*")):
        if STATE not in path.parts:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (mirror.folder / STATE).stat().st_mode & 0o777 == 0o700


def test_the_second_run_fetches_nothing(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        mirror(server.url)
        before = mirror.files()
        server.requests.clear()

        again = mirror(server.url)

        assert {path for path, _ in server.requests} == {"/metadata/2.root.json", "/metadata/timestamp.json"}
    assert mirror.files() == before
    assert [again[kind]["fetched"] for kind in ("metadata", "targets", "payloads")] == [0, 0, 0]


def test_a_new_release_brings_only_what_is_new(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        mirror(server.url)
        published.repository.release(a_brand("dawn"))
        server.requests.clear()

        renewed = mirror(server.url)

        asked = [path for path, _ in server.requests]
    assert len(asked) == len(set(asked))
    assert renewed["targets"]["fetched"] == 1
    assert renewed["payloads"]["fetched"] == 0
    assert renewed["metadata"]["fetched"] == 3  # bin, snapshot, timestamp
    assert mirror.client().manifest(brand_target("dawn", "linux", "amd64")) is not None


def test_each_worker_keeps_its_connection(published: Published, mirror: Mirror) -> None:
    connections: list[Any] = []

    def note(handler: Any, data: bytes) -> None:
        connections.append(handler.client_address)
        if data:
            handler.serve(data)
        else:
            handler.answer(404, b"no such file")

    with HostileServer(published.repository.folder) as server:
        server.misbehave("", note)
        mirror(server.url, "--jobs", 3)

    assert len(connections) > 60
    assert len(set(connections)) <= 3 + 1  # the workers', and the one of the command itself
    assert works(mirror.client()) == 1


def test_compressed_copies_are_the_same_and_always_alike(published: Published, mirror: Mirror) -> None:
    mirror(published.repository.url)
    files = mirror.files()

    packed = {name: data for name, data in files.items() if name.endswith(".gz")}
    assert {name.removesuffix(".gz") for name in packed} == {name for name in files if name.startswith("metadata/")
                                                            and not name.endswith(".gz")}
    for name, data in packed.items():
        assert gzip.decompress(data) == files[name.removesuffix(".gz")]
        assert data[3:8] == bytes(5)  # neither file name nor time (RFC 1952)
    (mirror.folder / "metadata" / "timestamp.json.gz").write_bytes(b"damaged")
    mirror(published.repository.url)
    assert mirror.files() == files


def test_nginx_sends_the_compressed_copies_and_nothing_of_the_notes(published: Published, mirror: Mirror,
                                                                    tmp_path: Path) -> None:
    """The real server, set up as the documentation says."""
    mirror(published.repository.url)
    with Nginx(mirror.folder, tmp_path / "nginx") as server:
        assert works(mirror.client(url=server.url)) == 1
        answers = server.answers()
        notes = requests.get(f"{server.url}{STATE}/files.json", timeout=5).status_code

    assert notes == 403
    sent = {answer.path: answer for answer in answers if answer.status == 200}
    metadata = [answer for path, answer in sent.items() if path.startswith("/metadata/")]
    assert len(metadata) >= 5
    assert {answer.coding for answer in metadata} == {"gzip"}
    assert all(answer.body_bytes == len(mirror.files()[answer.path[1:] + ".gz"]) for answer in metadata)
    (driver,) = [answer for path, answer in sent.items() if path.startswith("/payloads/")]
    assert (driver.coding, driver.body_bytes) == ("-", 50_000)


def test_a_mirror_can_be_mirrored(published: Published, mirror: Mirror, tmp_path: Path) -> None:
    mirror(published.repository.url)
    first, mirror.folder = mirror.folder, tmp_path / "second"
    with Nginx(first, tmp_path / "nginx") as server:
        mirror(server.url)

    assert mirror.files() == {path.relative_to(first).as_posix(): path.read_bytes() for path in first.rglob("*")
                              if path.is_file() and STATE not in path.parts}


def test_a_compressed_copy_that_nobody_renews_is_not_left_behind(published: Published, mirror: Mirror) -> None:
    """A server with gzip_static would go on sending an old timestamp for ever."""
    mirror(published.repository.url)
    mirror(published.repository.url, "--no-gzip")

    assert not [name for name in mirror.files() if name.endswith(".gz")]


def test_what_was_damaged_is_mended(published: Published, mirror: Mirror) -> None:
    mirror(published.repository.url)
    good = mirror.files()
    for pattern in ("metadata/*-*.json", "metadata/*.drivers.json", "metadata/*.snapshot.json", "metadata/1.root.json",
                    "targets/usb/1234/*", "payloads/*/*/acme*"):
        path = next(path for path in mirror.folder.glob(pattern) if path.is_file())
        path.write_bytes(path.read_bytes()[:-1] + b"X")
    (next(mirror.folder.glob("payloads/*/*/bolt*"))).unlink()
    (mirror.folder / "metadata" / "1.root.json").write_bytes(published.repository.trusted_root)

    mirror(published.repository.url)

    assert mirror.files() == good


# -- keys that changed --------------------------------------------------------------------------------------------------


def rotate(repository: SignedRepository, owner: str) -> None:
    """New keys for a role; the old ones are still there to sign the change."""
    draft = repository.work.begin()
    draft.set_keys(owner, [repository.work.keyring.make(repository.work.keyring.next_name(owner)).key()], 1)
    repository.work.finish(draft, ())


@pytest.mark.parametrize("trusted", [1, 2, 4])
def test_clients_with_an_older_root_can_follow(published: Published, mirror: Mirror, trusted: int) -> None:
    """Whichever root the mirror itself was given."""
    for owner in ("root", "timestamp", "root"):
        rotate(published.repository, owner)
    mirror.root.write_bytes((published.repository.folder / "metadata" / f"{trusted}.root.json").read_bytes())

    made = mirror(published.repository.url)

    assert (made["oldest_root"], made["versions"]["root"]) == (1, 4)
    for version in range(1, 5):
        root = (published.repository.folder / "metadata" / f"{version}.root.json").read_bytes()
        assert works(mirror.client(f"with-root-{version}", trusted_root=root)) == 1


def test_older_roots_that_did_not_lead_here_are_not_mirrored(published: Published, mirror: Mirror, tmp_path: Path) -> None:
    """Such a root would send clients with an older one astray."""
    rotate(published.repository, "root")
    mirror.root.write_bytes((published.repository.folder / "metadata" / "2.root.json").read_bytes())
    (published.repository.folder / "metadata" / "1.root.json").write_bytes(SignedRepository(tmp_path / "other").trusted_root)

    assert mirror(published.repository.url, expect=76)["code"] == "metadata-signature"
    assert not (mirror.folder / "metadata" / "timestamp.json").exists()


@pytest.mark.parametrize("owner", ["root", "timestamp", "snapshot", "targets"])
def test_a_mirror_follows_a_change_of_keys(published: Published, mirror: Mirror, owner: str) -> None:
    mirror(published.repository.url)
    rotate(published.repository, owner)
    published.release()

    mirror(published.repository.url)

    assert works(mirror.client()) == 2


def test_a4_a_brand_with_keys_of_its_own_comes_with_its_grant(published: Published, mirror: Mirror) -> None:
    """A device's manifest says only that such a brand claims it; a client needs the rest too."""
    work = published.repository.work
    draft = work.begin()
    draft.delegate("core", [work.keyring.make("brand-core-1").key()], 1)
    work.finish(draft, ())
    mine, theirs = (published._brand(name, "linux", "amd64") for name in ("acme", "core"))
    own = msgspec.structs.replace(theirs, model=mine.model)
    published.repository.release_raw({
        grant_target("core"): msgspec.json.encode(Grant(keyfit=1, path=grant_target("core"), brand="core")),
        brand_target("core", "linux", "amd64"): msgspec.json.encode(Manifest(
            keyfit=1, path=brand_target("core", "linux", "amd64"), system="linux", architecture="amd64", brands=(own,))),
        DEVICE: msgspec.json.encode(Manifest(keyfit=1, path=DEVICE, system="linux", architecture="amd64",
                                             brands=(mine, claim_of(own)))),
    })

    made = mirror(published.repository.url, "--brand", "acme", "--system", "linux", "--architecture", "amd64")

    assert made["payloads"]["files"] == 2
    client = mirror.client()
    manifest = client.manifest(DEVICE)
    assert manifest is not None
    assert [brand.brand for brand in manifest.brands] == ["acme", "core"]
    for brand in manifest.brands:
        assert brand.package[0].payload is not None
        client.payload(brand.package[0].payload)


# -- in part ------------------------------------------------------------------------------------------------------------


def test_chosen_brands_come_with_all_that_their_clients_need(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        made = mirror(server.url, "--brand", "acme", "--system", "linux")

        assert not [path for path, _ in server.requests if "core" in path or "2345" in path]
    assert made["targets"]["files"] == 4
    assert made["payloads"]["files"] == 2
    assert works(mirror.client()) == 1
    assert works(mirror.client(), brand_target("acme", "linux", "arm64")) == 1
    bins = [name for name in mirror.files() if re.search(r"\.[a-z]+-[0-9a-f]+\.json$", name)]
    assert len(bins) <= 7  # of 32; also to know what there is not
    with pytest.raises(Exception, match="does not have"):
        mirror.client().manifest(brand_target("core", "linux", "amd64"))


def test_chosen_platforms_come_with_all_brands(published: Published, mirror: Mirror) -> None:
    made = mirror(published.repository.url, "--architecture", "arm64")

    assert (made["targets"]["files"], made["payloads"]["files"]) == (6, 3)
    for name in DEVICES:
        assert works(mirror.client(), brand_target(name, "linux", "arm64")) == 1


def test_a_device_of_two_brands_brings_both(published: Published, mirror: Mirror) -> None:
    """One signed file names both; a client may choose either."""
    ours, theirs = (published._brand(name, "linux", "amd64") for name in ("acme", "core"))
    both = Manifest(keyfit=1, path=DEVICE, system="linux", architecture="amd64", brands=(ours, theirs))
    published.repository.release_raw({DEVICE: msgspec.json.encode(both)})

    made = mirror(published.repository.url, "--brand", "acme", "--system", "linux", "--architecture", "amd64")

    assert made["payloads"]["files"] == 2


def test_a_staged_version_comes_too(published: Published, mirror: Mirror) -> None:
    new = published.repository.add_payload("acme_2.deb", b"new" * 1000)
    brand = published._brand("acme", "linux", "amd64")
    later = msgspec.structs.replace(brand, sequence=2, package=(a_package("acme", "deb", payload=new),))
    manifest = Manifest(keyfit=1, path=DEVICE, system="linux", architecture="amd64", brands=(brand,),
                        staged=(Staged(brand=later, share=100),))
    published.repository.release_raw({DEVICE: msgspec.json.encode(manifest)})

    mirror(published.repository.url)

    assert (mirror.folder / "payloads" / new.path).read_bytes() == b"new" * 1000


def test_versions_of_keyfit_itself_come_too(published: Published, mirror: Mirror) -> None:
    program = published.repository.add_payload("keyfit_2.0_amd64.deb", b"program" * 1000)
    path = app_target("linux", "amd64")
    version = AppManifest(keyfit=1, path=path, system="linux", architecture="amd64", version="2.0", sequence=1, payload=program)
    work = published.repository.work
    draft = work.begin()
    draft.change_targets({path: msgspec.json.encode(version)})
    work.finish(draft, ())

    mirror(published.repository.url, "--brand", "acme", "--system", "linux")

    assert (mirror.folder / "payloads" / program.path).read_bytes() == b"program" * 1000
    assert list(mirror.folder.glob("targets/app/*.linux-amd64.json"))


def test_a_brand_that_is_not_there_is_named(published: Published, mirror: Mirror) -> None:
    message = mirror(published.repository.url, "--brand", "acme", "--brand", "nobody", expect=2)

    assert message["code"] == "no-such-brand"
    assert "nobody" in message["text"]
    assert not (mirror.folder / "metadata" / "timestamp.json").exists()


# -- broken off ---------------------------------------------------------------------------------------------------------


def test_a_driver_file_is_taken_up_where_it_was_cut(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        server.misbehave("bolt_1_windows", cut_after(20_000), status(503))
        assert mirror(server.url, expect=69)["code"] in ("connection-cut", "repository-unreachable", "payload-truncated")
        server.misbehave("bolt_1_windows", None)
        server.requests.clear()

        rest = mirror(server.url)

        (asked,) = server.asked("bolt_1_windows")
    assert asked["Range"] == "bytes=20000-"
    assert rest["targets"]["fetched"] == 0
    assert 1 <= rest["payloads"]["fetched"] < 9
    assert works(mirror.client(), device_target(0x1234, 0x0002, "windows", "amd64")) == 1


def test_killed_at_any_moment_readers_see_the_old_or_the_new(published: Published, mirror: Mirror) -> None:
    """Twenty-four kills on the way from one release to the next, then a run that is left alone."""
    mirror(published.repository.url)
    published.release()
    chance, old, ended = random.Random(7), 1, []
    for number in range(24):
        with HostileServer(published.repository.folder) as server:
            command = [sys.executable, "-m", "keyfit.publisher", "--quiet", "mirror", server.url, str(mirror.folder),
                       "--trust-root", str(mirror.root)]
            ended.append(killed(command, chance.randint(1, CALLS_OF_A_RUN), cwd=CHECKOUT).returncode)
        seen = works(mirror.client(f"reader-{number}"))
        assert seen in (old, published.sequence)
        if seen == published.sequence:  # it got through: on to the next release
            old = seen
            published.release()

    assert set(ended) <= {0, -signal.SIGKILL}
    assert ended.count(-signal.SIGKILL) >= 15
    mirror(published.repository.url, "--prune")
    mirror(published.repository.url, "--prune")
    assert works(mirror.client("last")) == published.sequence
    assert list((mirror.folder / STATE / "incoming").iterdir()) == []
    origin = origin_files(published)
    assert all(data == origin[name] for name, data in mirror.files().items() if not name.endswith(".gz"))


# -- a bad origin -------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, Callable[[], Behaviour], int, set[str]]] = {
    "other bytes in a bin": (".b", wrong_bytes, 76, {"metadata-invalid", "metadata-signature", "metadata-hash"}),
    "other bytes in the snapshot": ("snapshot", wrong_bytes, 76, {"metadata-hash"}),
    "other bytes in a manifest": ("targets/usb", wrong_bytes, 76, {"target-hash"}),
    "other bytes in a driver": ("payloads/", wrong_bytes, 76, {"payload-hash"}),
    "a manifest without end": ("targets/brand", endless_body, 76, {"target-hash"}),
    "a snapshot without end": ("snapshot", endless_body, 76, {"metadata-too-large", "metadata-hash"}),
    "a driver without end": ("payloads/", endless_body, 76, {"payload-too-long"}),
    "no driver": ("payloads/", lambda: status(404), 69, {"repository-file-missing"}),
    "no manifest": ("targets/usb", lambda: status(404), 69, {"repository-file-missing"}),
    "a sign-in page": ("", sign_in_page, 69, {"captive-portal"}),
    "a server in trouble": ("", lambda: status(503, Retry_After="86400"), 69, {"repository-unreachable"}),
    "a redirect": ("targets/", lambda: redirect("http://127.0.0.1:1/"), 69, {"redirect-refused"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_fails_leaves_the_mirror_as_readers_saw_it(published: Published, mirror: Mirror, fault: str) -> None:
    part, behaviour, code, expected = FAULTS[fault]
    mirror(published.repository.url)
    before = mirror.files()
    published.release()
    with HostileServer(published.repository.folder) as server:
        server.misbehave(part, behaviour())

        message = mirror(server.url, expect=code)

        assert message["code"] in expected
        assert message["hint"]
    after = mirror.files()
    assert {name: after[name] for name in before} == before
    fresh = after.keys() - before.keys()
    assert all(after[name] == origin_files(published)[name] for name in fresh if not name.endswith(".gz"))
    assert works(mirror.client()) == 1
    mirror(published.repository.url)
    assert works(mirror.client()) == 2


def test_no_server(published: Published, mirror: Mirror) -> None:
    with HostileServer(published.repository.folder) as server:
        url = server.url

    assert mirror(url, expect=69)["code"] == "repository-unreachable"
    assert mirror("https://user:secret@example.com/", expect=2)["code"] == "bad-repository-address"
    assert mirror("http://example.com/", expect=2)["code"] == "https-required"


def test_another_root_mirrors_nothing(published: Published, mirror: Mirror, tmp_path: Path) -> None:
    mirror.root.write_bytes(SignedRepository(tmp_path / "other").trusted_root)

    assert mirror(published.repository.url, expect=76)["code"] == "metadata-signature"
    assert not (mirror.folder / "metadata").exists()
    mirror.root.write_bytes(b"{}")
    assert mirror(published.repository.url, expect=76)["code"] == "trusted-root-invalid"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "drivers", "bins"])
def test_what_is_out_of_date_is_not_mirrored(published: Published, mirror: Mirror, role: str) -> None:
    mirror(published.repository.url)
    before = mirror.files()
    published.repository.expire(role)

    assert mirror(published.repository.url, expect=76)["code"] == "metadata-expired"
    after = mirror.files()
    assert {name: after[name] for name in before} == before


def test_a5_an_origin_that_was_set_back_is_refused(published: Published, mirror: Mirror, tmp_path: Path) -> None:
    """A5: also if the mirror's own files were lost in between, since it remembers what it has verified."""
    published.repository.keep(tmp_path / "old")
    published.release()
    mirror(published.repository.url)
    published.repository.go_back(tmp_path / "old")

    assert mirror(published.repository.url, expect=76)["code"] == "metadata-rollback"
    assert works(mirror.client()) == 2


@pytest.mark.parametrize("name", ["usb/../../../x.json", "usb/1234/x y.json", "/etc/x.json", "usb//x.json", "usb/x/"])
def test_a8_names_that_are_no_file_of_ours_are_refused(published: Published, mirror: Mirror, name: str) -> None:
    """A8: even when they are signed."""
    work = published.repository.work
    draft = work.begin()
    draft.edit(draft.role_of(name)).targets[name] = TargetFile.from_data(name, b"{}", ["sha256"])
    work.finish(draft, ())

    assert mirror(published.repository.url, expect=76)["code"] == "metadata-invalid"
    assert not (mirror.folder / "metadata" / "timestamp.json").exists()


# -- a bad place --------------------------------------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_left_alone(published: Published, mirror: Mirror) -> None:
    mirror.folder.mkdir()
    (mirror.folder / "index.html").write_text("mine")

    assert mirror(published.repository.url, expect=2)["code"] == "not-a-mirror"
    assert mirror.files() == {"index.html": b"mine"}


def test_the_repository_itself_is_no_place_for_its_mirror(published: Published, mirror: Mirror) -> None:
    mirror.folder = published.repository.folder

    assert mirror(published.repository.url, expect=2)["code"] == "not-a-mirror"


def test_the_mirror_of_another_repository_is_left_alone(published: Published, mirror: Mirror, tmp_path: Path) -> None:
    mirror(published.repository.url)
    before = mirror.files()
    other = SignedRepository(tmp_path / "other")
    other.release(a_brand())
    mirror.root.write_bytes(other.trusted_root)

    message = mirror(other.url, expect=1)

    assert message["code"] == "other-repository"
    assert mirror.files() == before


def test_one_run_at_a_time(published: Published, mirror: Mirror) -> None:
    with MirrorFolder(mirror.folder).locked():
        assert mirror(published.repository.url, expect=75)["code"] == "mirror-busy"


FULL_DISK = """
import os, sys
from pathlib import Path
from keyfit.publisher.cli import run
old, new, folder, root, free = sys.argv[1:]
assert run(["--quiet", "mirror", old, folder, "--trust-root", root]) == 0
disk = os.statvfs(folder)
Path(folder, ".keyfit-mirror", "ballast").write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - int(free))))
sys.stdout.flush()
code = run(["--json", "mirror", new, folder, "--trust-root", root])
sys.stdout.flush()
os.system(f"cp -r {folder} {folder}-then")
sys.exit(code)
"""


@pytest.mark.parametrize("free_bytes", [8_192, 40_960, 122_880, 700_000, 16_200_000])
def test_a_full_disk_leaves_the_old_mirror(published: Published, mirror: Mirror, tmp_path: Path, free_bytes: int) -> None:
    """On a real small file system, full at different stages; for driver files, what is free is looked at first."""
    published.repository.keep(tmp_path / "old")
    published.release()
    mirror.folder.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=20m none "$1" && shift && exec "$@"', "sh", mirror.folder,
         sys.executable, "-c", FULL_DISK, (tmp_path / "old").as_uri(), published.repository.url, mirror.folder, mirror.root,
         str(free_bytes)], capture_output=True, text=True, check=False)

    document = json.loads(done.stdout)
    assert (done.returncode, document["messages"][0]["code"], done.stderr) == (73, "disk-full", "")
    assert works(mirror.client(url=Path(f"{mirror.folder}-then").as_uri() + "/")) == 1


def test_what_is_no_longer_needed_is_removed_when_asked(published: Published, mirror: Mirror) -> None:
    mirror(published.repository.url)
    (mirror.folder / "robots.txt").write_text("mine")
    published.release()
    kept = mirror(published.repository.url)
    assert kept["pruned"] == 0
    both = set(mirror.files())

    first = mirror(published.repository.url, "--prune")

    assert first["pruned"] > 0
    left = set(mirror.files())
    assert left < both
    assert "robots.txt" in left
    assert len([name for name in left if name.startswith("payloads/")]) == 9
    assert len([name for name in left if name.startswith("targets/")]) == 18
    assert "metadata/1.root.json" in left
    for name, ids in DEVICES.items():
        assert works(mirror.client(), device_target(*ids, "windows", "amd64")) == 2, name


def test_readers_that_have_just_read_the_old_timestamp_find_its_files(published: Published, mirror: Mirror) -> None:
    """Removal keeps what the run before has published."""
    mirror(published.repository.url)
    old = set(mirror.files())
    published.release()

    mirror(published.repository.url, "--prune")

    assert old <= set(mirror.files())


def test_the_rate_is_kept_to(published: Published, mirror: Mirror) -> None:
    began = time.monotonic()
    made = mirror(published.repository.url, "--rate-limit", 200)

    fetched = sum(made[kind]["fetched_bytes"] for kind in ("targets", "payloads"))
    assert fetched > 450_000
    assert time.monotonic() - began >= fetched / 200_000
    assert mirror("https://example.com/", "--rate-limit", 1, expect=2)["code"] == "usage"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mirror", "--help"]) == 0
    assert "Example: keyfit-publish mirror https://" in capsys.readouterr().out
