"""Damaged files of every kind: a reader says that they are out of form, or reports; it never fails otherwise (H2, K6)."""

import importlib
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.pe import image_hash, layout
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import signing, windows
from tests.sim.debfile import ar, deb_file, tar
from tests.sim.driverpackage import catalogue, inf, plain_hash, zipped
from tests.sim.xarfile import component, developer, xar

from .test_rpm import build

KINDS = ("deb", "plain deb", "rpm", "archive", "exe", "msi", "inf", "pkg")
Changes = list[tuple[int, int]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, vendor: signing.Identity, stamper: signing.Identity,
            signed: Path) -> dict[str, bytes]:
    """A sound file of each kind, not packed where that can be chosen, so that changes reach what is inside."""
    folder = tmp_path_factory.mktemp("samples")
    with signing.TimeStampAuthority(folder / "authority", stamper) as authority:
        stamped = signing.sign(vendor, signed, folder / "stamped.exe", "-h", "sha256", *authority.options)
    library = windows.program(folder / "acme.dll").read_bytes()
    text = inf().encode()
    listed = {"acme.inf": plain_hash(text), "acme.dll": image_hash(Source.of(library), layout(Source.of(library)), "sha256")}
    installer = windows.installer(folder / "acme.msi", {"acme.dll": folder / "acme.dll"})
    driver = folder / "driver"
    driver.mkdir()
    for name, data in {"acme.inf": text, "acme.dll": library, "acme.cat": catalogue(folder, listed, vendor)}.items():
        (driver / name).write_bytes(data)
    control = tar({"./control": b"Package: acme\nVersion: 1\nArchitecture: all\n", "./postinst": b"#!/bin/sh\ntrue\n"})
    return {
        "deb": deb_file(), "rpm": build(folder).read_bytes(), "exe": stamped.read_bytes(),
        "plain deb": ar({"debian-binary": b"2.0\n", "control.tar": control, "data.tar": tar({"./usr/a": b"x" * 100})}),
        "archive": zipped({"a.exe": signed.read_bytes(), "b": b"x"}),
        "msi": signing.sign(vendor, installer, folder / "signed.msi", "-h", "sha256", "-add-msi-dse").read_bytes(),
        "inf": windows.cabinet(folder / "acme.cab", driver).read_bytes(),
        "pkg": xar(component(scripts={"postinstall": b"#!/bin/sh\n"}), developer(folder), compressed=False),
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12), cut=st.integers(0, 10**6),
       whole=st.booleans())
def test_h2_a_damaged_file_is_out_of_form_or_reported(kind: str, changes: Changes, cut: int, whole: bool,
                                                      samples: dict[str, bytes], trust: Trust) -> None:
    data = bytearray(samples[kind])
    for position, value in changes:
        data[position % len(data)] = value
    if not whole:
        del data[cut % len(data) :]
    name = kind.split()[-1]
    reader = importlib.import_module(f"keyfit.publisher.inspection.{name}").inspect
    arguments = () if name in ("deb", "rpm") else (trust,)
    with suppress(Malformed):  # anything else fails the test
        reader(Source(io.BytesIO(bytes(data))), *arguments)
