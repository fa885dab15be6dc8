"""Brand files become manifests: cut to one machine and one device, the same bytes every time."""

import json
from pathlib import Path

import msgspec
import pytest

from keyfit.core.match import decide
from keyfit.core.plan import choose_packages
from keyfit.model.catalog import Brand, Catalog, Manifest, Payload, brand_target, device_target
from keyfit.model.host import HostFacts
from keyfit.model.usb import UsbDevice, UsbInterface
from keyfit.publisher import compile as compiler
from keyfit.publisher.brandfile import load_brands

from .conftest import Write, as_new

FILE = Payload(file="acme_1_amd64.deb", sha256="a" * 64, length_bytes=5)


def brand_in(made: dict[str, bytes], target: str) -> Brand:
    (brand,) = msgspec.json.decode(made[target], type=Manifest).brands
    return brand


def test_there_is_a_manifest_for_each_id_and_brand_on_each_of_eight_platforms(write: Write) -> None:
    made = compiler.manifests(as_new(load_brands(write()), {}))

    assert len(made) == 8 * 3
    assert list(made) == sorted(made)
    for target, data in made.items():
        manifest = msgspec.json.decode(data, type=Manifest)
        assert manifest.path == target
        assert target.endswith(f"{manifest.system}-{manifest.architecture}.json")
        assert b": " not in data.split(b'"sources"')[0]


def test_a_device_s_manifest_has_that_device_s_model_packages_and_patches_only(write: Write) -> None:
    made = compiler.manifests(as_new(load_brands(write()), {("acme", "acme-deb"): FILE}))

    one = brand_in(made, device_target(0x1234, 1, "linux", "amd64"))
    assert [m.id for m in one.model] == ["one"]
    assert [p.id for p in one.package] == ["pcscd", "acme-deb"]
    assert one.package[1].payload == FILE
    assert [p.id for p in one.patch] == ["one"]

    two = brand_in(made, device_target(0x1234, 2, "linux", "amd64"))
    assert [p.id for p in two.package] == ["pcscd"]
    assert two.patch == ()


def test_a_package_whose_file_nobody_added_is_left_out_and_its_module_with_it(write: Write) -> None:
    """A module that nothing brings would be registered in browsers as a dead path."""
    brands = load_brands(write())
    target = device_target(0x1234, 1, "linux", "amd64")

    without = brand_in(compiler.manifests(as_new(brands, {})), target)
    assert [p.id for p in without.package] == ["pcscd"]
    assert without.module == ()

    with_file = brand_in(compiler.manifests(as_new(brands, {("acme", "acme-deb"): FILE})), target)
    assert [m.id for m in with_file.module] == ["acme-module"]


def test_a_brand_with_nothing_for_a_system_is_still_named_there(write: Write) -> None:
    brand = brand_in(compiler.manifests(as_new(load_brands(write()), {})), brand_target("acme", "macos", "arm64"))

    assert brand.names["en"] == "Acme"
    assert (brand.package, brand.module, brand.patch) == ((), (), ())
    assert [m.id for m in brand.model] == ["one", "two"]


def test_a_model_keeps_naming_a_package_that_was_left_out_so_that_it_does_not_get_all_others(write: Write) -> None:
    folder = write('packages = ["acme-deb", "pcscd"]', 'packages = ["acme-deb"]')
    brand = brand_in(compiler.manifests(as_new(load_brands(folder), {})), brand_target("acme", "linux", "amd64"))
    facts = HostFacts(machine="m", root="/", system="linux", architecture="amd64", package_managers=("apt",))

    assert brand.model[0].packages == ("acme-deb",)
    assert choose_packages(brand, brand.model[0], facts)[0] == []


def test_sources_that_nothing_refers_to_any_more_are_dropped(write: Write) -> None:
    made = compiler.manifests(as_new(load_brands(write()), {}))

    assert set(brand_in(made, brand_target("acme", "linux", "amd64")).sources) == {"dump", "archive"}
    assert set(brand_in(made, brand_target("acme", "windows", "amd64")).sources) == {"dump"}


def test_all_brands_that_claim_an_id_are_in_its_manifest(write: Write) -> None:
    write()
    folder = write('brand = "acme"', 'brand = "rival"', 'manufacturer = "Acme"', 'manufacturer = "Rival"',
                   "0x0002", "0x0003", folder="rival")
    made = compiler.manifests(as_new(load_brands(folder), {}))

    shared = msgspec.json.decode(made[device_target(0x1234, 1, "linux", "arm64")], type=Manifest)
    assert [b.brand for b in shared.brands] == ["acme", "rival"]
    device = UsbDevice(id_vendor=0x1234, id_product=1, bcd_device=0, manufacturer="Rival", interfaces=(UsbInterface(
        b_interface_number=0, b_interface_class=0x0B, b_interface_sub_class=0, b_interface_protocol=0),))
    chosen = decide(device, shared.brands).chosen
    assert chosen is not None
    assert chosen.brand.brand == "rival"


def test_the_catalogs_are_written_the_same_twice_and_name_every_brand(write: Write, tmp_path: Path) -> None:
    folder = write()

    assert compiler.main([str(folder), str(tmp_path / "one")]) == 0
    assert compiler.main([str(folder), str(tmp_path / "two")]) == 0

    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert len(names) == 8
    assert "catalog-linux-amd64.json" in names
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        assert [b.brand for b in msgspec.json.decode(data, type=Catalog).brands] == ["acme"]
        assert json.loads(data)["keyfit"] == 1


def test_a_faulty_brand_file_leaves_no_catalog_behind(write: Write, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    folder = write("sequence = 1", "sequence = 0")

    assert compiler.main([str(folder), str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "drivers/acme/driver.toml:5: sequence: " in capsys.readouterr().err


def test_the_command_with_too_few_words_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert compiler.main([]) == 2
    assert "DRIVERS OUT" in capsys.readouterr().err
