"""Windows catalogue files (.cat): a signed list of the hashes of a driver package's files (security B5).

A catalogue is PKCS #7 over a certificate trust list (Microsoft, [MS-CAESO]; szOID_CTL). Each member has an attribute with
an SpcIndirectDataContent, whose digest is the Authenticode hash for a program and the plain hash for any other file
(learn.microsoft.com: "Catalog Files and Digital Signatures").
"""

from msgspec import Struct

from keyfit.publisher.inspection import cms, der
from keyfit.publisher.inspection.authenticode import INDIRECT_DATA, Trust, check_message
from keyfit.publisher.inspection.reports import SignatureReport
from keyfit.publisher.inspection.source import Malformed

CTL = "1.3.6.1.4.1.311.10.1"
HARDWARE_DRIVER = ("1.3.6.1.4.1.311.10.3.5", "1.3.6.1.4.1.311.10.3.5.1")
"""Extended key usages of Microsoft's certificates for drivers: Windows Hardware Driver Verification, and its Attested form
(learn.microsoft.com: "Validate the Microsoft signature for a submission"; security B4)."""
MAX_MEMBERS = 50_000


class Catalogue(Struct, frozen=True):
    """The hashes on the list, hex, and who signed it."""

    hashes: frozenset[str]
    signature: SignatureReport


def read_catalogue(data: bytes, trust: Trust) -> Catalogue:
    """Read a catalogue and check its signature.

    Raises:
        Malformed: it is none.
    """
    message = cms.signed_data(data)
    if message.content_type != CTL or message.content is None:
        raise Malformed(f"expected a catalogue, came a signature over {message.content_type}")
    return Catalogue(hashes=frozenset(_hashes(message.content)), signature=check_message(message, CTL, trust))


def _hashes(content: der.Node) -> set[str]:
    fields = content.expect(der.SEQUENCE, "a trust list").children()
    # subjectAlgorithm and trustedSubjects are the last sequences before the extensions
    sequences = [field for field in fields if field.tag == der.SEQUENCE]
    if len(sequences) < 3:
        raise Malformed("expected the subjects of a trust list")
    subjects = sequences[2].children()
    if len(subjects) > MAX_MEMBERS:
        raise Malformed(f"expected at most {MAX_MEMBERS} files in a catalogue, came {len(subjects)}")
    return {found for subject in subjects for found in _subject_hashes(subject)}


def _subject_hashes(subject: der.Node) -> list[str]:
    parts = subject.expect(der.SEQUENCE, "a file of a catalogue").children()
    if len(parts) != 2 or parts[1].tag != der.SET:
        raise Malformed("expected a file of a catalogue with attributes")
    found = []
    for attribute in parts[1].children():
        pair = attribute.expect(der.SEQUENCE, "an attribute").children()
        if len(pair) == 2 and der.oid(pair[0]) == INDIRECT_DATA:
            found += [_digest(value) for value in pair[1].children()]
    return found


def _digest(value: der.Node) -> str:
    parts = value.expect(der.SEQUENCE, "SpcIndirectDataContent").children()
    info = parts[1].expect(der.SEQUENCE, "DigestInfo").children() if len(parts) == 2 else []
    if len(info) != 2:
        raise Malformed("expected a DigestInfo")
    return info[1].expect(der.OCTET_STRING, "a file's hash").content.hex()
