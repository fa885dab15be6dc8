"""RPM packages made by rpmbuild, read as rpm reads them."""

import subprocess
from pathlib import Path

import pytest

from keyfit.publisher.inspection import rpm
from keyfit.publisher.inspection.reports import RpmReport
from keyfit.publisher.inspection.source import Malformed, Source

SPEC = """Name: acme
Version: 1.0
Release: 2
Epoch: 3
Summary: Acme
License: MIT
%description
For tests.
%install
mkdir -p %{{buildroot}}/usr/lib64/acme %{{buildroot}}/etc
echo module > %{{buildroot}}/usr/lib64/acme.so
ln -s acme.so %{{buildroot}}/usr/lib64/acme.so.1
echo x > %{{buildroot}}/etc/acme.conf
{more}
%post
{script}
%files
%dir /usr/lib64/acme
/usr/lib64/acme.so
/usr/lib64/acme.so.1
%config /etc/acme.conf
{files}
"""


def build(folder: Path, *, architecture: str = "x86_64", script: str = "ldconfig", more: str = "", files: str = "") -> Path:
    spec = folder / "acme.spec"
    spec.write_text(SPEC.format(script=script, more=more, files=files))
    subprocess.run(["/usr/bin/rpmbuild", "-bb", "--define", f"_topdir {folder}/top", "--target", architecture, spec],
                   check=True, capture_output=True, timeout=100)
    (made,) = (folder / "top" / "RPMS").rglob("*.rpm")
    return made


def read(path: Path) -> RpmReport:
    with path.open("rb") as file:
        return rpm.inspect(Source(file))


@pytest.mark.parametrize(("architecture", "told"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("noarch", "all")])
def test_a_package_is_read_as_rpm_reads_it(architecture: str, told: str, tmp_path: Path) -> None:
    made = build(tmp_path, architecture=architecture)
    listed = subprocess.run(["/usr/bin/rpm", "-qpl", made], check=True, capture_output=True, text=True, timeout=60).stdout

    report = read(made)
    assert (report.name, report.version, report.architecture) == ("acme", "3:1.0-2", told)
    assert set(report.files) == set(listed.split()) - {"/usr/lib64/acme"}
    assert report.scripts == ("%post",)
    assert report.problems == report.notes == ()


def test_h3_f2_j3_what_a_package_may_not_hold_or_do(tmp_path: Path) -> None:
    more = ("echo x > %{buildroot}/usr/bin.sh; ln -s /tmp/x %{buildroot}/usr/evil;"
            " mkdir -p %{buildroot}/etc/pki/ca-trust/source/anchors; echo x > %{buildroot}/etc/pki/ca-trust/source/anchors/a.pem")
    files = "%attr(4755,root,root) /usr/bin.sh\n/usr/evil\n/etc/pki/ca-trust/source/anchors/a.pem"
    report = read(build(tmp_path, script="firewall-cmd --add-port 1/tcp; curl http://x", more=more, files=files))
    said = "\n".join(report.problems)

    assert "/usr/bin.sh: expected no set-user-id" in said
    assert "/usr/evil: expected a link inside the system" in said
    assert "/etc/pki/ca-trust/source/anchors/a.pem: a driver package may not add" in said
    assert "%post touches the firewall" in said
    assert "'curl'" in report.notes[0]


def test_a_changed_byte_is_found_in_header_and_payload(tmp_path: Path) -> None:
    made = build(tmp_path)
    data = made.read_bytes()
    header = data.index(b"For tests.")
    for position in (header, len(data) - 20):
        changed = bytearray(data)
        changed[position] ^= 1
        (tmp_path / "changed.rpm").write_bytes(changed)
        with pytest.raises(Malformed, match="damaged"):
            read(tmp_path / "changed.rpm")
    (tmp_path / "changed.rpm").write_bytes(data[:3_000])
    with pytest.raises(Malformed):
        read(tmp_path / "changed.rpm")
