"""Driver files on their way: what is kept, what is continued, what is thrown away."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from keyfit.errors import KeyfitError, NetworkError, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.trust.repository import TufRepository
from tests.sim.repository import (
    IMPATIENT,
    Behaviour,
    HostileServer,
    SignedRepository,
    cut_after,
    drip_body,
    drip_headers,
    endless_body,
    ends_early,
    pause_after,
    redirect,
    sign_in_page,
    silence,
    status,
    wrong_bytes,
)

DATA = random.Random(1).randbytes(900_000)
QUICK = msgspec.structs.replace(IMPATIENT, connect_s=0.3, silence_s=0.7)
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    return SignedRepository(tmp_path / "publisher")


@pytest.fixture
def driver(repository: SignedRepository) -> Payload:
    return repository.add_payload("acme_1.0_amd64.deb", DATA)


def refused(client: TufRepository, driver: Payload, kind: type[KeyfitError] = TrustError) -> str:
    with pytest.raises(kind) as caught:
        client.payload(driver)
    assert caught.value.hint
    return caught.value.code


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "payloads").iterdir()} - {"lock"}


def test_a_payload_is_fetched_once_and_stays_verified(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        client = repository.client(tmp_path, server.url)
        seen: list[tuple[int, int]] = []

        path = client.payload(driver, lambda done, total: seen.append((done, total)))

        assert path.read_bytes() == DATA
        assert path.stat().st_mode & 0o777 == 0o600
        assert seen == sorted(seen)
        assert seen[-1] == (len(DATA), len(DATA))
        assert files(tmp_path) == {driver.sha256}
        assert client.payload(driver) == path
        assert len(server.asked("payloads/")) == 1


def test_a_cached_payload_that_was_changed_is_fetched_again(repository: SignedRepository, driver: Payload,
                                                            tmp_path: Path) -> None:
    client = repository.client(tmp_path)
    client.payload(driver).write_bytes(b"x" + DATA[1:])

    assert client.payload(driver).read_bytes() == DATA


def test_d2_a_cached_payload_with_a_second_name_is_not_used(repository: SignedRepository, driver: Payload,
                                                            tmp_path: Path) -> None:
    """D2: who holds the other name could change it after the check."""
    client = repository.client(tmp_path)
    path = client.payload(driver)
    os.link(path, tmp_path / "second")

    assert client.payload(driver).read_bytes() == DATA
    assert path.stat().st_nlink == 1
    assert path.stat().st_ino != (tmp_path / "second").stat().st_ino


def test_wrong_bytes_are_refused_and_not_kept(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", wrong_bytes())

        assert refused(repository.client(tmp_path, server.url), driver) == "payload-hash"

        assert files(tmp_path) == set()
        assert len(server.asked("payloads/")) == 1


def test_a7_a_body_that_never_ends_is_cut_at_the_signed_length(repository: SignedRepository, driver: Payload,
                                                               tmp_path: Path) -> None:
    """A7."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", endless_body())

        assert refused(repository.client(tmp_path, server.url), driver) == "payload-too-long"

    assert files(tmp_path) == set()


def test_a7_a_server_that_announces_more_is_not_listened_to(repository: SignedRepository, driver: Payload,
                                                            tmp_path: Path) -> None:
    """A7: a 10 GB length is refused before a byte is written."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", lambda handler, data: handler.answer(200, b"x", length=10_000_000_000))

        assert refused(repository.client(tmp_path, server.url), driver) == "payload-too-long"


@pytest.mark.parametrize(("behaviour", "code"), [
    (drip_body(), "download-too-slow"), (silence(), "repository-unreachable"), (drip_headers(), "repository-unreachable"),
])
def test_a7_a_server_that_drips_is_given_up(repository: SignedRepository, driver: Payload, tmp_path: Path,
                                            behaviour: Behaviour, code: str) -> None:
    """A7: one byte every tenth of a second is never silent for long."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", behaviour)

        assert refused(repository.client(tmp_path, server.url, limits=QUICK), driver, NetworkError) == code


def test_a7_the_minimum_speed_ends_a_drip_long_before_the_total_time(repository: SignedRepository, driver: Payload,
                                                                     tmp_path: Path) -> None:
    """A7: with an hour left, a drip is still given up after one window."""
    limits = msgspec.structs.replace(IMPATIENT, payload_s=3600)
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", drip_body(0.02))

        with pytest.raises(NetworkError, match="fewer than 1000 bytes per second"):
            repository.client(tmp_path, server.url, limits=limits).payload(driver)


def test_a7_the_total_time_has_an_end(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    """A7: fast enough in every window, but too slow for its length."""
    limits = msgspec.structs.replace(IMPATIENT, window_rate=1, payload_s=0.8)
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", drip_body(0.02))

        assert refused(repository.client(tmp_path, server.url, limits=limits), driver, NetworkError) == "download-too-slow"


def test_a7_a_full_disk_is_told_before_the_download(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    """A7."""
    limits = msgspec.structs.replace(IMPATIENT, disk_reserve=shutil.disk_usage(tmp_path).total)

    assert refused(repository.client(tmp_path, limits=limits), driver, StorageError) == "disk-full"


def test_a_write_that_the_system_refuses_is_named(repository: SignedRepository, tmp_path: Path) -> None:
    """A limit on the size of files makes the system refuse in the middle of the download."""
    driver = repository.add_payload("big.deb", DATA)
    done = run_client(repository, repository.url, driver, tmp_path, before="""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
""")

    assert done.stdout.strip() == "cannot-write"


def test_a_cut_download_is_continued_from_where_it_was(repository: SignedRepository, driver: Payload,
                                                       tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", cut_after(300_000), cut_after(300_000), None)

        path = repository.client(tmp_path, server.url).payload(driver)

        assert path.read_bytes() == DATA
        ranges = [headers.get("Range") for headers in server.asked("payloads/")]
        assert ranges == [None, "bytes=300000-", "bytes=600000-"]
        assert all(headers.get("If-Range") for headers in server.asked("payloads/")[1:])


def test_without_ranges_a_cut_download_starts_a_new_file(repository: SignedRepository, driver: Payload,
                                                         tmp_path: Path) -> None:
    with HostileServer(repository.folder, ranges=False) as server:
        server.misbehave("payloads/", cut_after(300_000), None)

        assert repository.client(tmp_path, server.url).payload(driver).read_bytes() == DATA


def test_a_server_that_refuses_the_range_is_asked_for_the_whole(repository: SignedRepository, driver: Payload,
                                                                tmp_path: Path) -> None:
    """Status 416, RFC 9110, 15.5.17."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", cut_after(300_000), status(416), None)

        assert repository.client(tmp_path, server.url).payload(driver).read_bytes() == DATA
        assert [h.get("Range") for h in server.asked("payloads/")] == [None, "bytes=300000-", None]


def test_a_file_that_changed_on_the_server_is_not_continued(repository: SignedRepository, driver: Payload,
                                                            tmp_path: Path) -> None:
    """The validator does not fit any more, so the server sends the whole file; its bytes are the wrong ones."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", cut_after(300_000), wrong_bytes())

        assert refused(repository.client(tmp_path, server.url), driver) == "payload-hash"


def test_kept_bytes_that_were_wrong_do_not_stay_wrong(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    """The first part was tampered with, the rest was not: fetched once more from the start."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", cut_after(300_000), cut_after(0))
        client = repository.client(tmp_path, server.url)
        assert refused(client, driver, NetworkError) == "connection-cut"
        part = tmp_path / "payloads" / f"{driver.sha256}.part"
        part.write_bytes(b"evil" + part.read_bytes()[4:])
        server.misbehave("payloads/", None)

        assert client.payload(driver).read_bytes() == DATA


def test_a_killed_download_is_continued(repository: SignedRepository, driver: Payload, tmp_path: Path) -> None:
    """The client is killed in the middle; the next one asks only for the rest."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", pause_after(500_000), None)
        child = start_client(repository, server.url, driver, tmp_path)
        assert server.reached.wait(20)
        part = tmp_path / "payloads" / f"{driver.sha256}.part"
        line = child.stdout.readline() if child.stdout else ""
        while line and int(line) < 500_000:
            line = child.stdout.readline() if child.stdout else ""
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert part.stat().st_size == 500_000

        assert repository.client(tmp_path, server.url).payload(driver).read_bytes() == DATA

        assert server.asked("payloads/")[-1]["Range"] == "bytes=500000-"
    assert files(tmp_path) == {driver.sha256}


def test_a_download_killed_before_its_last_step_needs_no_network(repository: SignedRepository, driver: Payload,
                                                                 tmp_path: Path) -> None:
    with HostileServer(repository.folder) as server:
        client = repository.client(tmp_path, server.url)
        path = client.payload(driver)
        path.rename(path.with_name(path.name + ".part"))

        assert client.payload(driver).read_bytes() == DATA
        assert len(server.asked("payloads/")) == 1


@pytest.mark.parametrize("plant", ["symlink", "hard-link", "fifo", "directory"])
def test_d2_what_is_planted_under_the_partial_name_is_not_written(repository: SignedRepository, driver: Payload,
                                                                  tmp_path: Path, plant: str) -> None:
    """D2, D3: and a FIFO does not hang us."""
    folder = tmp_path / "payloads"
    folder.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = folder / f"{driver.sha256}.part"
    if plant == "symlink":
        part.symlink_to(victim)
    elif plant == "hard-link":
        os.link(victim, part)
    elif plant == "fifo":
        os.mkfifo(part)
    else:
        part.mkdir()

    if plant == "directory":
        assert refused(repository.client(tmp_path), driver, StorageError) == "cannot-write"
    else:
        assert repository.client(tmp_path).payload(driver).read_bytes() == DATA
    assert victim.read_bytes() == b"precious"


def test_d2_a_partial_file_that_is_linked_meanwhile_is_refused(repository: SignedRepository, driver: Payload,
                                                               tmp_path: Path) -> None:
    """D2, CVE-2026-109518: somebody takes a second name for the file while it is written."""
    part = tmp_path / "payloads" / f"{driver.sha256}.part"

    def link(done: int, total: int) -> None:
        if not (tmp_path / "second").exists():
            os.link(part, tmp_path / "second")

    with pytest.raises(StorageError) as caught:
        repository.client(tmp_path).payload(driver, link)

    assert caught.value.code == "unsafe-file"
    assert driver.sha256 not in files(tmp_path)


@pytest.mark.parametrize(("behaviour", "code"), [
    (ends_early(1000), "payload-truncated"),
    (status(503, Retry_After="86400"), "repository-unreachable"),
    (status(404), "repository-file-missing"),
    (status(511), "captive-portal"),
    (sign_in_page(), "captive-portal"),
    (redirect("http://198.51.100.1/x"), "redirect-refused"),
])
def test_f4_what_is_not_the_file_is_named_and_never_stored(repository: SignedRepository, driver: Payload, tmp_path: Path,
                                                           behaviour: Behaviour, code: str) -> None:
    """F4."""
    with HostileServer(repository.folder) as server:
        server.misbehave("payloads/", behaviour)

        assert refused(repository.client(tmp_path, server.url), driver, NetworkError) == code

    assert driver.sha256 not in files(tmp_path)


def test_the_next_address_and_then_the_mirrors_are_tried(repository: SignedRepository, driver: Payload,
                                                         tmp_path: Path) -> None:
    with HostileServer(repository.folder) as bad, HostileServer(repository.folder) as good:
        bad.misbehave("payloads/", status(500))

        assert repository.client(tmp_path, bad.url, good.url).payload(driver).read_bytes() == DATA
        assert len(bad.asked("payloads/")) == len(good.asked("payloads/")) == 1


def test_a_forged_file_is_told_even_if_the_other_addresses_are_down(repository: SignedRepository, driver: Payload,
                                                                    tmp_path: Path) -> None:
    with HostileServer(repository.folder) as down, HostileServer(repository.folder) as forged:
        down.misbehave("payloads/", status(500))
        forged.misbehave("payloads/", wrong_bytes())

        assert refused(repository.client(tmp_path, down.url, forged.url), driver) == "payload-hash"


def start_client(repository: SignedRepository, url: str, driver: Payload, tmp_path: Path,
                 before: str = "") -> "subprocess.Popen[str]":
    """A client in a process of its own; prints its progress, and at the end an error's code or "done"."""
    (tmp_path / "root.json").write_bytes(repository.trusted_root)
    program = f"""{before}
from pathlib import Path
from keyfit.errors import KeyfitError
from keyfit.model.catalog import Payload
from keyfit.trust.repository import TufRepository
folder = Path({str(tmp_path)!r})
client = TufRepository(urls=[{url!r}], trusted_root=(folder / "root.json").read_bytes(),
                       metadata_dir=folder / "metadata", cache_dir=folder / "payloads")
try:
    client.payload(Payload(file={driver.file!r}, sha256={driver.sha256!r}, length_bytes={driver.length_bytes}),
                   {"lambda done, total: None" if before else "lambda done, total: print(done, flush=True)"})
    print("done")
except KeyfitError as error:
    print(error.code)
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)


def run_client(repository: SignedRepository, url: str, driver: Payload, tmp_path: Path,
               before: str = "") -> "subprocess.CompletedProcess[str]":
    child = start_client(repository, url, driver, tmp_path, before)
    output, _ = child.communicate(timeout=60)
    return subprocess.CompletedProcess(child.args, child.returncode, output)
