"""Throw-away signers, made once, and readers called in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.chain import Roots
from tests.sim import signing, windows


@pytest.fixture(scope="session")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where keys and certificates are."""
    return tmp_path_factory.mktemp("signers")


@pytest.fixture(scope="session")
def vendor(signers: Path) -> signing.Identity:
    """Who signs the files that are in order."""
    return signing.make(signers)


@pytest.fixture(scope="session")
def stamper(signers: Path, vendor: signing.Identity) -> signing.Identity:
    """A time-stamp authority below the same root."""
    return signing.make(signers, "stamper", subject="CN=Example Time-stamping", usages=(signing.TIME_STAMPING,),
                        valid=(-300, 365), authority=vendor)


@pytest.fixture(scope="session")
def trust(vendor: signing.Identity) -> Trust:
    """The vendor's root and no other; now."""
    return Trust(Roots(vendor.root.read_bytes()), datetime.now(UTC))


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Windows program, not signed."""
    return windows.program(tmp_path_factory.mktemp("program") / "acme.exe")


@pytest.fixture(scope="session")
def signed(program: Path, vendor: signing.Identity) -> Path:
    """The same, signed by the vendor."""
    return signing.sign(vendor, program, program.with_name("signed.exe"), "-h", "sha256")


Stamp = Callable[..., tuple[str, ...]]


@pytest.fixture
def stamp(stamper: signing.Identity, tmp_path: Path) -> Iterator[Stamp]:
    """Options by which osslsigncode adds a time-stamp, now or at a given second."""
    with ExitStack() as authorities:
        def options(second: int | None = None) -> tuple[str, ...]:
            folder = tmp_path / f"authority-{second or 'now'}"
            return authorities.enter_context(signing.TimeStampAuthority(folder, stamper, second)).options

        yield options
