"""Brands with keys of their own, versions for a share of the machines, and versions that are taken back - from the
publisher's command to what a client does."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.core.rollout import effective
from keyfit.errors import KeyfitError, WithdrawnError
from keyfit.model.catalog import Manifest, brand_target
from keyfit.publisher.release import Workplace
from tests.sim.publisher import TARGET, Publisher

FEW = ("--threshold", "root=1/1", "--threshold", "targets=1/1", "--threshold", "app=1/1", "--threshold", "drivers=1/1",
       "--threshold", "media-root=1/1", "--threshold", "media=1/1")
BRAND_TARGET = brand_target("acme", "linux", "amd64")


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    made = Publisher(tmp_path, capsys)
    made.init(*FEW)
    return made


def seen(publisher: Publisher, folder: Path, target: str = TARGET) -> Manifest:
    manifest = publisher.client(folder).manifest(target)
    assert manifest is not None
    return manifest


def refusal(publisher: Publisher, folder: Path, target: str = TARGET) -> str:
    with pytest.raises(KeyfitError) as caught:
        publisher.client(folder).manifest(target)
    return caught.value.code


def signed_by(publisher: Publisher, target: str) -> str:
    """The role that names a target, by the published metadata."""
    return Workplace(publisher.folder).repository.role_of(target)


# -- one brand at a time -------------------------------------------------------------------------------------------


def test_one_brand_is_released_without_touching_the_others(publisher: Publisher, tmp_path: Path) -> None:
    publisher.write_brand(brand="other", product="0x0002")
    publisher.release()
    before = publisher.metadata()
    publisher.write_brand(sequence=2)
    publisher.write_brand(sequence=7, brand="other", product="0x0002")

    done = publisher.release("--brand", "acme")["data"]

    assert done["changed_targets"] == 16
    fresh = {name for name in publisher.metadata() if name not in before}
    assert len(fresh) == done["changed_bins"] + 1  # the snapshot
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 2
    assert seen(publisher, tmp_path / "a", "usb/1234/0002-linux-amd64.json").brands[0].sequence == 1


def test_an_id_that_a_brand_gives_up_stays_with_the_brand_that_shares_it(publisher: Publisher, tmp_path: Path) -> None:
    match = 'id_product = 0x0001\nsources = ["page"]'
    publisher.write_brand(**{match: match + '\nproduct = "Acme*"'})
    publisher.write_brand(brand="other", **{match: match + '\nproduct = "Other*"'})
    publisher.release()
    assert [b.brand for b in seen(publisher, tmp_path / "a").brands] == ["acme", "other"]
    publisher.write_brand(sequence=2, product="0x0003")

    publisher.release("--brand", "acme")

    assert [b.brand for b in seen(publisher, tmp_path / "a").brands] == ["other"]
    assert [b.brand for b in seen(publisher, tmp_path / "a", "usb/1234/0003-linux-amd64.json").brands] == ["acme"]


def test_a_single_brand_may_not_claim_what_another_has(publisher: Publisher) -> None:
    publisher.release()
    publisher.write_brand(brand="thief", product="0x0001")
    before = publisher.metadata()

    document = publisher.release("--brand", "thief", expect=2)

    assert document["messages"][0]["code"] == "lint-failed"
    assert "1234:0001" in document["messages"][1]["text"]
    assert publisher.metadata() == before
    assert publisher.release("--brand", "nobody", expect=2)["messages"][0]["code"] == "no-such-brand"


def test_a_brand_that_changes_without_a_new_sequence_is_told_of(publisher: Publisher) -> None:
    publisher.release()
    publisher.write_brand(**{"Acme One": "Acme Two"})

    codes = [message["code"] for message in publisher.release()["messages"]]

    assert "sequence-unchanged" in codes


def test_a_brand_that_is_gone_leaves_its_numbers(publisher: Publisher, tmp_path: Path) -> None:
    """A5: if it comes back, then with a sequence that clients accept."""
    publisher.write_brand(brand="other", product="0x0002", sequence=5)
    publisher.release()
    for file in (publisher.drivers / "other").iterdir():
        file.unlink()
    (publisher.drivers / "other").rmdir()
    publisher.release()
    assert publisher.client(tmp_path / "a").manifest("usb/1234/0002-linux-amd64.json") is None
    publisher.write_brand(brand="other", product="0x0002", sequence=4)

    assert publisher.release(expect=2)["messages"][0]["code"] == "sequence-too-low"
    publisher.write_brand(brand="other", product="0x0002", sequence=6)
    publisher.release()
    assert seen(publisher, tmp_path / "a", "usb/1234/0002-linux-amd64.json").brands[0].sequence == 6


# -- keys of their own ---------------------------------------------------------------------------------------------


def test_a4_a_brand_signs_its_own_data_and_the_publisher_the_rest(publisher: Publisher, tmp_path: Path) -> None:
    """A4: without the brand's key nothing new is installed for it; with it, it goes as before."""
    publisher.add()
    publisher.release("--hand-off", publisher.hand_off)
    whole = seen(publisher, tmp_path / "a").brands[0]

    publisher("delegate", publisher.folder, "acme", "--make", "1")

    assert publisher("delegate", publisher.folder)["data"]["brands"] == ["acme"]
    assert signed_by(publisher, BRAND_TARGET) == "brand-acme"
    assert signed_by(publisher, TARGET).startswith("b-")
    after = seen(publisher, tmp_path / "a").brands[0]
    assert (after.package, after.hand_off, after.sequence) == (whole.package, whole.hand_off, whole.sequence)
    raw = Workplace(publisher.folder).repository.target(TARGET)
    assert raw is not None
    assert not msgspec.json.decode(raw, type=Manifest).brands[0].package

    key = tmp_path / "brand.pem"
    (publisher.folder / "keys" / "brand-acme-1.pem").rename(key)
    publisher.write_brand(sequence=2)
    left = publisher.release("--hand-off", publisher.hand_off)["data"]
    assert {m["role"] for m in left["missing"]} == {"brand-acme"}
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 1
    assert publisher("sign", publisher.folder, "--key", key)["data"]["complete"]
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 2


def test_a4_a_brand_s_stolen_key_is_replaced_by_the_publisher(publisher: Publisher, tmp_path: Path) -> None:
    """A4, K1: the thief's key is worth nothing after it, and clients follow."""
    publisher.release()
    publisher("delegate", publisher.folder, "acme", "--make", "2", "--needed", "2")
    assert seen(publisher, tmp_path / "a").brands[0].brand == "acme"

    done = publisher("rotate", publisher.folder, "brand-acme", "--remove", "brand-acme-1", "--make", "1")["data"]

    assert (done["keys"], done["needed"]) == (["brand-acme-2", "brand-acme-3"], 2)
    targets = json.loads((publisher.folder / "repository" / "metadata" / f"{done['versions']['targets']}.targets.json")
                         .read_bytes())["signed"]["delegations"]
    role = next(r for r in targets["roles"] if r["name"] == "brand-acme")
    assert set(role["keyids"]) <= set(targets["keys"])
    assert len(targets["keys"]) == 4  # app, drivers, and two of the brand's: the old one is gone
    assert seen(publisher, tmp_path / "a").brands[0].brand == "acme"


def test_a4_a_brand_s_keys_can_be_taken_away(publisher: Publisher, tmp_path: Path) -> None:
    """A4: and given again, without a client noticing more than new data."""
    publisher.add()
    publisher.release()
    publisher("delegate", publisher.folder, "acme", "--make", "1")
    assert seen(publisher, tmp_path / "a").brands[0].package

    publisher("delegate", publisher.folder, "acme", "--remove")
    assert signed_by(publisher, BRAND_TARGET).startswith("b-")
    assert seen(publisher, tmp_path / "a").brands[0].package
    assert seen(publisher, tmp_path / "a", BRAND_TARGET).brands[0].package
    publisher("delegate", publisher.folder, "acme", "--make", "1")

    assert seen(publisher, tmp_path / "a").brands[0].package
    assert publisher("delegate", publisher.folder, "nobody", "--make", "1", expect=2)["messages"][0]["code"] == "no-such-brand"
    assert publisher("delegate", publisher.folder, "acme", expect=2)["messages"][0]["code"] == "bad-threshold"


# -- a share of the machines ---------------------------------------------------------------------------------------


def test_a_new_version_reaches_a_share_and_then_everybody(publisher: Publisher, tmp_path: Path) -> None:
    publisher.release()
    publisher.write_brand(sequence=2)
    publisher.release("--share", "1")

    machines = [f"machine {number}" for number in range(3000)]

    def reached() -> set[str]:
        manifest = seen(publisher, tmp_path / "a")
        return {m for m in machines if effective(manifest, m, {}).brands[0].sequence == 2}

    first = reached()
    assert 10 < len(first) < 60
    assert publisher("rollout", publisher.folder)["data"]["rollouts"]["acme"] == {
        "sequence": 2, "share_percent": 1.0, "hold": False, "main_sequence": 1}
    publisher("rollout", publisher.folder, "acme", "--share", "50")
    more = reached()
    assert first < more
    publisher("rollout", publisher.folder, "acme", "--hold")
    assert not reached()
    publisher("rollout", publisher.folder, "acme", "--resume")
    assert reached() == more
    assert publisher("rollout", publisher.folder, "acme", "--share", "10", expect=2)["messages"][0]["code"] == "share-shrinks"
    publisher("rollout", publisher.folder, "acme", "--share", "100")

    assert seen(publisher, tmp_path / "a").brands[0].sequence == 2
    assert not seen(publisher, tmp_path / "a").staged
    assert publisher("rollout", publisher.folder, "acme", "--hold", expect=2)["messages"][0]["code"] == "nothing-staged"


def test_a_staged_version_that_is_revoked_goes_away_and_locks_nobody_out(publisher: Publisher, tmp_path: Path) -> None:
    """A5: machines that took it are told; those that did not never see it."""
    publisher.release()
    publisher.write_brand(sequence=2)
    publisher.release("--share", "50")
    assert seen(publisher, tmp_path / "a").staged[0].brand.sequence == 2

    publisher("revoke", publisher.folder, "acme", "--sequence", "2", "--reason", "en=It loses the certificate")

    manifest = seen(publisher, tmp_path / "a")
    assert (manifest.brands[0].sequence, manifest.staged) == (1, ())
    assert manifest.revoked[0].reason == {"en": "It loses the certificate"}
    publisher.write_brand(sequence=2)
    assert publisher.release(expect=2)["messages"][0]["code"] == "sequence-revoked"
    publisher.write_brand(sequence=3)
    publisher.release()
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 3


# -- revocation ----------------------------------------------------------------------------------------------------


def test_a5_a_revoked_version_is_refused_with_its_reason(publisher: Publisher, tmp_path: Path) -> None:
    """A5, J4: also by a client that comes from another source later."""
    publisher.release()
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 1

    publisher("revoke", publisher.folder, "acme", "--sequence", "1", "--reason", "en=It stops the computer", "--reason",
              "zh_CN=会使电脑停止运行")

    with pytest.raises(WithdrawnError) as caught:
        publisher.client(tmp_path / "a").manifest(TARGET)
    assert caught.value.reason["zh_CN"] == "会使电脑停止运行"
    publisher.write_brand(sequence=2)
    publisher.release()
    assert seen(publisher, tmp_path / "a").brands[0].sequence == 2


def test_a5_a_minimum_and_a_file_can_be_revoked(publisher: Publisher, tmp_path: Path) -> None:
    """A5: by hash and by version."""
    payload = publisher.add()["data"]["payload"]
    publisher.write_brand(sequence=4)
    publisher.release()

    publisher("revoke", publisher.folder, "acme", "--minimum", "4")
    publisher("revoke", publisher.folder, "acme", "--sha256", payload["sha256"], "--reason", "en=Vulnerable")

    raw = Workplace(publisher.folder).repository.target(BRAND_TARGET)
    assert raw is not None
    manifest = msgspec.json.decode(raw, type=Manifest)
    assert manifest.minimum == {"acme": 4}
    assert manifest.revoked[0].sha256 == payload["sha256"]
    assert refusal(publisher, tmp_path / "a", BRAND_TARGET) == "revoked"
    windows = brand_target("acme", "windows", "amd64")
    assert seen(publisher, tmp_path / "a", windows).brands[0].sequence == 4  # the file is for Linux


@pytest.mark.parametrize(("arguments", "code"), [
    (("acme",), "nothing-to-revoke"), (("acme", "--sequence", "1"), "bad-reason"),
    (("acme", "--sequence", "9", "--reason", "en=x"), "no-such-version"), (("acme", "--minimum", "9"), "bad-minimum"),
    (("acme", "--sha256", "xyz", "--reason", "en=x"), "bad-hash"), (("acme", "--sha256", "0" * 64, "--reason", "en=x"),
                                                                   "no-such-file"),
    (("nobody", "--sequence", "1", "--reason", "en=x"), "no-such-brand"),
    (("acme", "--sequence", "1", "--reason", "English=x"), "bad-reason"),
    (("acme", "--sequence", "1", "--reason", "en=two\nlines"), "bad-reason"),
])
def test_a_revocation_that_makes_no_sense_changes_nothing(publisher: Publisher, arguments: tuple[Any, ...],
                                                          code: str) -> None:
    publisher.release()
    before = publisher.metadata()

    document = publisher("revoke", publisher.folder, *arguments, expect=2)

    assert document["messages"][0]["code"] == code
    assert publisher.metadata() == before


# -- Keyfit itself -------------------------------------------------------------------------------------------------


def test_a_version_of_keyfit_itself_is_signed_by_its_own_role(publisher: Publisher, tmp_path: Path) -> None:
    """A4: no key that signs drivers can sign a new Keyfit."""
    setup = tmp_path / "keyfit-1.2.0.tar.gz"
    setup.write_bytes(b"\x1f\x8b" + b"setup" * 100)

    done = publisher("release", publisher.folder, "--app", f"linux-amd64={setup}", "--app-version", "1.2.0")["data"]

    assert done["versions"]["app"] == 2
    assert done["changed_bins"] == 0
    assert signed_by(publisher, "app/linux-amd64.json") == "app"
    raw = Workplace(publisher.folder).repository.target("app/linux-amd64.json")
    assert raw is not None
    manifest = json.loads(raw)
    assert (manifest["version"], manifest["sequence"]) == ("1.2.0", 1)
    payload = publisher.folder / "repository" / "payloads" / manifest["payload"]["sha256"][:2]
    assert (payload / manifest["payload"]["sha256"] / setup.name).read_bytes() == setup.read_bytes()
    again = publisher("release", publisher.folder, "--app", f"linux-amd64={setup}", "--app-version", "1.3.0")
    assert again["data"]["complete"]
    for wrong in (f"nowhere={setup}", "linux-amd64=/nowhere", f"linux-sparc={setup}"):
        assert publisher("release", publisher.folder, "--app", wrong, "--app-version", "1.2.0",
                         expect=2)["messages"][0]["code"] in ("bad-app", "no-such-file")
