"""When a step fails, what was done is taken back, and the error says whose turn it is."""

from pathlib import Path

import pytest

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.errors import BusyError, HostError, KeyfitError, NetworkError, Outcome, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.model.plan import Change, Plan, Wait
from tests.sim.host import SimHost, differences
from tests.sim.packages import SimPackage
from tests.sim.plans import CCID_LIST, LIST, changes, fetcher, machine, payload, plan
from tests.sim.world import SimReporter

PACKAGES, PACKAGE_FILE, ARCHIVE, UDEV, CCID, _, SERVICE, P11, FIREFOX, NSS = changes()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimHost:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/user"))
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    made = machine(SimHost(tmp_path / "machine"))
    made.real_path("/home/user").mkdir(parents=True)
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")


def install(host: SimHost, journal: Journal, folder: Path, wanted: Plan) -> None:
    transaction.carry_out(wanted, host=host, journal=journal, fetch=fetcher(folder), reporter=SimReporter(),
                          wait=lambda wait: None)


def refused(host: SimHost, journal: Journal, folder: Path, *wanted: Change) -> KeyfitError:
    """Install, which has to fail and leave everything as it was, with nothing left to recover."""
    old = host.snapshot()
    with pytest.raises(KeyfitError) as caught:
        install(host, journal, folder, plan(*wanted))
    assert differences(old, host.snapshot()) == []
    assert not journal.open_transactions()
    assert not journal.records()
    return caught.value


def test_d7_a_full_disk_at_any_write_changes_nothing(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    for write in range(1, 6):
        host.full_at = host._writes + write
        error = refused(host, journal, tmp_path, PACKAGES, UDEV, CCID, P11, FIREFOX, CCID_OTHER)
        assert error.outcome is Outcome.CANNOT_WRITE


CCID_OTHER = type(CCID)(path=CCID_LIST, id_vendor=0x1EA8, id_product=0x9999, friendly_name="Other")  # type: ignore[call-arg]


def test_another_package_tool_at_work_is_busy(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    host.packages.locked = True
    assert isinstance(refused(host, journal, tmp_path, UDEV, PACKAGES), BusyError)


@pytest.mark.parametrize(("said", "code", "kind"), [
    ("E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem.",
     "dpkg-interrupted", HostError),
    ("E: Failed to fetch http://x/y.deb  Could not resolve 'x'", "archive-unreachable", NetworkError),
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk-full", StorageError),
    ("E: There were unauthenticated packages and -y was used without --allow-unauthenticated", "archive-not-signed",
     HostError),
])
def test_what_apt_says_decides_whose_turn_it_is(host: SimHost, journal: Journal, tmp_path: Path, said: str, code: str,
                                                kind: type[KeyfitError]) -> None:
    host.packages.fails = said
    error = refused(host, journal, tmp_path, UDEV, PACKAGES)
    assert isinstance(error, kind)
    assert (error.code, bool(error.hint)) == (code, True)


def test_an_interrupted_dpkg_is_never_configured_behind_the_users_back(host: SimHost, journal: Journal,
                                                                       tmp_path: Path) -> None:
    host.packages.fails = "E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a'"
    refused(host, journal, tmp_path, PACKAGES)
    assert not any("--configure" in call for call in host.calls)


def test_a_package_whose_configuration_fails_is_not_left_half_installed(host: SimHost, journal: Journal,
                                                                        tmp_path: Path) -> None:
    host.packages.broken = {"pcscd"}
    refused(host, journal, tmp_path, UDEV, PACKAGES)


def test_b1_a_package_that_is_not_what_the_signed_data_says_is_refused(host: SimHost, journal: Journal,
                                                                       tmp_path: Path) -> None:
    other = type(PACKAGE_FILE)(format="deb", name="something-else", version="2.0", payload=PACKAGE_FILE.payload)  # type: ignore[union-attr,call-arg]
    assert refused(host, journal, tmp_path, other).code == "package-mismatch"


def test_missing_dependencies_are_named(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    data = SimPackage(name="libdriver1", version="2.0", depends=("libabsent9",)).deb()
    step = type(PACKAGE_FILE)(format="deb", name="libdriver1", version="2.0", payload=payload("x.deb", data))  # type: ignore[call-arg]

    def fetch(wanted: Payload) -> Path:
        (tmp_path / wanted.file).write_bytes(data)
        return tmp_path / wanted.file

    with pytest.raises(HostError, match="libabsent9"):
        transaction.carry_out(plan(step), host=host, journal=journal, fetch=fetch, reporter=SimReporter(),
                              wait=lambda wait: None)
    assert "libdriver1" not in host.packages.unpacked


def test_nothing_is_changed_before_every_file_is_there(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    def fetch(wanted: Payload) -> Path:
        if wanted.file == "m.tar.gz":
            raise TrustError("hash", "not what was signed")
        return fetcher(tmp_path)(wanted)

    old = host.snapshot()
    with pytest.raises(TrustError):
        transaction.carry_out(plan(*changes()), host=host, journal=journal, fetch=fetch, reporter=SimReporter(),
                              wait=lambda wait: None)
    assert differences(old, host.snapshot()) == []
    assert host.calls == []


def test_cancelling_while_waiting_takes_everything_back(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    def pulled(wait: Wait) -> None:
        raise KeyboardInterrupt

    old = host.snapshot()
    steps = plan(*changes())
    with_wait = type(steps)(**{**{f: getattr(steps, f) for f in steps.__struct_fields__},
                               "waits": (Wait(kind="unplug", before="step-6", text="Unplug it."),)})
    with pytest.raises(KeyfitError) as caught:
        transaction.carry_out(with_wait, host=host, journal=journal, fetch=fetcher(tmp_path), reporter=SimReporter(),
                              wait=pulled)
    assert caught.value.outcome is Outcome.CANCELLED
    assert differences(old, host.snapshot()) == []


def test_undo_that_fails_too_stays_open_and_says_recover(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    old = host.snapshot()

    def pulled(wait: Wait) -> None:
        host.packages.locked = True
        raise KeyboardInterrupt

    steps = plan(PACKAGES, UDEV)
    waiting = type(steps)(**{**{f: getattr(steps, f) for f in steps.__struct_fields__},
                             "waits": (Wait(kind="unplug", before="step-1", text="Unplug it."),)})
    with pytest.raises(KeyfitError) as caught:
        transaction.carry_out(waiting, host=host, journal=journal, fetch=fetcher(tmp_path), reporter=SimReporter(),
                              wait=pulled)
    assert caught.value.outcome is Outcome.INTERRUPTED
    assert "recover" in caught.value.hint
    host.packages.locked = False
    transaction.recover(host=host, journal=journal, reporter=SimReporter())
    assert differences(old, host.snapshot()) == []


def test_uninstall_that_fails_half_way_says_recover(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    old = host.snapshot()
    install(host, journal, tmp_path, plan(PACKAGES, UDEV))
    host.packages.fails = "E: Sub-process /usr/bin/dpkg returned an error code (1)"
    with pytest.raises(KeyfitError) as caught:
        transaction.uninstall("acme", host=host, journal=journal, reporter=SimReporter())
    host.packages.fails = ""
    transaction.recover(host=host, journal=journal, reporter=SimReporter())
    assert differences(old, host.snapshot()) == []
    assert caught.value.outcome is Outcome.INTERRUPTED


@pytest.mark.parametrize("content", [b"", b"<dict></dict>", LIST.replace(b"<string>Gemalto PC Twin Reader</string>", b"")],
                         ids=["empty", "no lists", "uneven"])
def test_a_broken_reader_list_is_refused_and_left_alone(host: SimHost, journal: Journal, tmp_path: Path,
                                                        content: bytes) -> None:
    host.put(CCID_LIST, content)
    assert refused(host, journal, tmp_path, UDEV, CCID).outcome is not Outcome.INTERRUPTED


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"policies": []}', b'{"policies": {"SecurityDevices": 3}}',
                                     b'{"policies": {}, "policies": {"x": 1}}', b"\xff\xfe"])
def test_malformed_firefox_policies_are_refused_and_left_alone(host: SimHost, journal: Journal, tmp_path: Path,
                                                               content: bytes) -> None:
    host.put("/etc/firefox/policies/policies.json", content)
    refused(host, journal, tmp_path, UDEV, FIREFOX)


def test_a_second_keyfit_at_the_same_time_is_busy(host: SimHost, journal: Journal, tmp_path: Path) -> None:
    with journal.locked(), pytest.raises(BusyError) as caught:
        install(host, Journal(tmp_path / "state"), tmp_path, plan(UDEV))
    assert caught.value.code == "another-installation"
