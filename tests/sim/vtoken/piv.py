"""A blank PIV card that computes: enough for OpenSC and for Yubico's PKCS#11 module.

Source of every number here: NIST SP 800-73-4 part 1 (objects, table 3) and part 2 (commands, section 3); SP 800-78-4
(algorithms, table 6-2); for the commands 0xFD and 0xF8, Yubico's description of its PIV extensions.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DEFAULT_PIN = "123456"
DEFAULT_PUK = "12345678"
DEFAULT_MANAGEMENT_KEY = bytes.fromhex("010203040506070801020304050607080102030405060708")
"""What a new card has: Yubico's published factory values."""

APPLICATION_ID = bytes.fromhex("a000000308000010000100")
"""The PIV card application, version 1.0 (part 1, section 2.2); selected by any prefix of five bytes or more."""

CERTIFICATE_OF_SLOT = {0x9A: "5fc105", 0x9C: "5fc10a", 0x9D: "5fc10b", 0x9E: "5fc101"}
"""Data objects that hold the certificates (part 1, table 3)."""

FIRMWARE = bytes([4, 3, 5])
"""Version reported to Yubico's tools: one from before they ask for key metadata, which this card does not keep."""

_RSA_2048, _EC_P256, _TRIPLE_DES = 0x07, 0x11, (0x00, 0x03)
_DISCOVERY, _CHUID, _PRINTED = "7e", "5fc102", "5fc109"
_FASCN = bytes.fromhex("d4e739da739ced39ce739d836858210842108421c84210c3eb")
"""The FASC-N of a card that no agency issued (part 1, section 3.1.2): all nines."""

_PIN_REFERENCE, _PUK_REFERENCE = 0x80, 0x81
_SIGNATURE_SLOT, _MANAGEMENT_SLOT, _FREE_SLOT = 0x9C, 0x9B, 0x9E
_TRIES = 3
_MAX_SHORT = 256

_OK = 0x9000
_BLOCKED, _NOT_ALLOWED, _WRONG_LENGTH, _WRONG_DATA = 0x6983, 0x6982, 0x6700, 0x6A80
_NOT_FOUND, _NO_REFERENCE, _WRONG_P1_P2, _NO_INSTRUCTION = 0x6A82, 0x6A88, 0x6A86, 0x6D00
_TRIES_LEFT = 0x63C0
"""Status words (part 2, table 6)."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class _Refusal(Exception):
    """The card answers with a status word only."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04x}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """A command APDU (ISO 7816-4, section 5.1); `expected` is Ne."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    expected: int


class _Secret:
    """A PIN or PUK and the tries that are left."""

    def __init__(self, value: str) -> None:
        self.value, self.tries = value, _TRIES

    def check(self, given: bytes) -> None:
        """Compare with what was given, padded with 0xFF. Raises _Refusal."""
        if not self.tries:
            raise _Refusal(_BLOCKED)
        if given.rstrip(b"\xff") != self.value.encode():
            self.tries -= 1
            raise _Refusal(_TRIES_LEFT | self.tries if self.tries else _BLOCKED)
        self.tries = _TRIES


class PivCard:
    """The card. Keys are made in it and cannot be read.

    Attributes:
        objects: Data objects by their tag in hex, without the outer tag 53.
        serial: Serial number for Yubico's tools.
    """

    def __init__(self, *, serial: int = 12345678, historical: bytes = b"KEYFIT-PIV") -> None:
        """Make a blank card; `historical` are up to 15 bytes that tell its ATR from others."""
        # TS, T0 with TD1 and the historical bytes, TD1: T=1, check byte (ISO 7816-3, section 8.2)
        body = bytes([0x80 | len(historical), 0x01]) + historical
        check = 0
        for byte in body:
            check ^= byte
        self._atr = b"\x3b" + body + bytes([check])
        self.serial = serial
        self.objects: dict[str, bytes] = {_CHUID: _chuid(serial)}
        self._keys: dict[int, PrivateKey] = {}
        self._pin, self._puk = _Secret(DEFAULT_PIN), _Secret(DEFAULT_PUK)
        self.reset()

    @property
    def atr(self) -> bytes:
        """The answer to reset."""
        return self._atr

    @property
    def pin_tries(self) -> int:
        """Wrong PINs the card takes before it blocks."""
        return self._pin.tries

    @property
    def slots(self) -> list[int]:
        """Slots that have a key."""
        return sorted(self._keys)

    def certificate(self, slot: int) -> bytes | None:
        """The DER certificate of a slot, or None."""
        content = self.objects.get(CERTIFICATE_OF_SLOT[slot])
        if not content:
            return None
        fields = dict(_parse(content))
        return gzip.decompress(fields[0x70]) if fields.get(0x71) == b"\x01" else fields[0x70]

    def reset(self) -> None:
        """Power-up: nothing selected, nobody logged in."""
        self._selected = self._verified = self._verified_just_now = self._administrator = False
        self._pending, self._chained = b"", b""
        self._witness: bytes | None = None
        self._challenge: bytes | None = None

    def transmit(self, apdu: bytes) -> bytes:
        """Return the response to a command APDU, status word included; a malformed one gets a status word too."""
        try:
            command = _decode(apdu)
            if command.ins == 0xC0:  # GET RESPONSE
                return self._next_part(command.expected)
            if command.cla & 0x10:  # command chaining: more is to come
                self._chained += command.data
                return _OK.to_bytes(2, "big")
            data, self._chained = self._chained + command.data, b""
            self._pending = self._execute(command, data)
        except _Refusal as refusal:
            return refusal.status.to_bytes(2, "big")
        except (KeyError, IndexError, ValueError):  # templates that are not what they should be
            return _WRONG_DATA.to_bytes(2, "big")
        return self._next_part(command.expected)

    def _next_part(self, expected: int) -> bytes:
        part, self._pending = self._pending[:expected], self._pending[expected:]
        status = _OK if not self._pending else 0x6100 | min(len(self._pending), 0xFF)
        return part + status.to_bytes(2, "big")

    def _execute(self, command: _Command, data: bytes) -> bytes:
        if command.ins == 0xA4:
            return self._select(command.p1, data)
        if not self._selected:
            raise _Refusal(_NO_INSTRUCTION)
        handlers = {
            0x20: lambda: self._verify(command.p1, command.p2, data),
            0x24: lambda: self._change_reference(command.p2, data),
            0x2C: lambda: self._reset_retry_counter(data),
            0xCB: lambda: self._get_data(data),
            0xDB: lambda: self._put_data(data),
            0x47: lambda: self._generate(command.p2, data),
            0x87: lambda: self._general_authenticate(command.p1, command.p2, data),
            0xFD: lambda: FIRMWARE,
            0xF8: lambda: self.serial.to_bytes(4, "big"),
        }
        if command.ins not in handlers:
            raise _Refusal(_NO_INSTRUCTION)
        return handlers[command.ins]()

    # -- application and login

    def _select(self, p1: int, name: bytes) -> bytes:
        if p1 != 4 or len(name) < 5 or not APPLICATION_ID.startswith(name):
            raise _Refusal(_NOT_FOUND)
        self._selected, self._verified = True, False
        return _tlv(0x61, _tlv(0x4F, APPLICATION_ID[5:]) + _tlv(0x79, _tlv(0x4F, APPLICATION_ID[:5])))

    def _verify(self, p1: int, p2: int, pin: bytes) -> bytes:
        if p2 != _PIN_REFERENCE:
            raise _Refusal(_NO_REFERENCE)
        if p1 == 0xFF:  # log out
            self._verified = False
            return b""
        if not pin:  # is a login needed?
            if self._verified:
                return b""
            raise _Refusal(_TRIES_LEFT | self._pin.tries if self._pin.tries else _BLOCKED)
        self._verified = False
        self._pin.check(pin)
        self._verified = self._verified_just_now = True
        return b""

    def _change_reference(self, reference: int, data: bytes) -> bytes:
        if reference not in (_PIN_REFERENCE, _PUK_REFERENCE):
            raise _Refusal(_NO_REFERENCE)
        secret = self._pin if reference == _PIN_REFERENCE else self._puk
        old, new = _split_references(data)
        secret.check(old)
        secret.value = new
        return b""

    def _reset_retry_counter(self, data: bytes) -> bytes:
        puk, new = _split_references(data)
        self._puk.check(puk)
        self._pin = _Secret(new)
        return b""

    # -- data objects

    def _get_data(self, data: bytes) -> bytes:
        tag = dict(_parse(data))[0x5C].hex()
        if tag == _DISCOVERY:  # PIN usage policy: the PIV PIN, and no other
            return _tlv(0x7E, _tlv(0x4F, APPLICATION_ID) + _tlv(0x5F2F, b"\x40\x00"))
        if tag not in self.objects:
            raise _Refusal(_NOT_FOUND)
        if tag == _PRINTED and not self._verified:
            raise _Refusal(_NOT_ALLOWED)
        return _tlv(0x53, self.objects[tag])

    def _put_data(self, data: bytes) -> bytes:
        self._require_administrator()
        fields = dict(_parse(data))
        tag, content = fields[0x5C].hex(), fields[0x53]
        if content:
            self.objects[tag] = content
        else:
            self.objects.pop(tag, None)
        return b""

    # -- keys

    def _require_administrator(self) -> None:
        if not self._administrator:
            raise _Refusal(_NOT_ALLOWED)

    def _generate(self, slot: int, data: bytes) -> bytes:
        self._require_administrator()
        if slot not in CERTIFICATE_OF_SLOT:
            raise _Refusal(_WRONG_P1_P2)
        algorithm = dict(_parse(dict(_parse(data))[0xAC]))[0x80][0]
        if algorithm == _RSA_2048:
            key = rsa.generate_private_key(65537, 2048)
            self._keys[slot] = key
            numbers = key.public_key().public_numbers()
            return _tlv(0x7F49, _tlv(0x81, numbers.n.to_bytes(256, "big")) + _tlv(0x82, numbers.e.to_bytes(3, "big")))
        if algorithm == _EC_P256:
            curve_key = ec.generate_private_key(ec.SECP256R1())
            self._keys[slot] = curve_key
            point = curve_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return _tlv(0x7F49, _tlv(0x86, point))
        raise _Refusal(_WRONG_DATA)

    def _general_authenticate(self, algorithm: int, slot: int, data: bytes) -> bytes:
        fields = dict(_parse(dict(_parse(data))[0x7C]))
        if slot == _MANAGEMENT_SLOT:
            if algorithm not in _TRIPLE_DES:
                raise _Refusal(_WRONG_P1_P2)
            return self._authenticate_administrator(fields)
        if slot not in self._keys:
            raise _Refusal(_NO_REFERENCE)
        self._require_pin(slot)
        return _tlv(0x7C, _tlv(0x82, self._use_key(self._keys[slot], algorithm, fields)))

    def _require_pin(self, slot: int) -> None:
        fresh, self._verified_just_now = self._verified_just_now, False
        if slot == _FREE_SLOT:
            return
        if not self._verified or (slot == _SIGNATURE_SLOT and not fresh):  # a PIN for each signature
            raise _Refusal(_NOT_ALLOWED)

    def _use_key(self, key: PrivateKey, algorithm: int, fields: dict[int, bytes]) -> bytes:
        if isinstance(key, rsa.RSAPrivateKey):
            message = fields[0x81]
            numbers = key.private_numbers()
            modulus = numbers.public_numbers.n
            if algorithm != _RSA_2048 or len(message) != 256 or int.from_bytes(message, "big") >= modulus:
                raise _Refusal(_WRONG_DATA)
            return pow(int.from_bytes(message, "big"), numbers.d, modulus).to_bytes(256, "big")
        if algorithm != _EC_P256:
            raise _Refusal(_WRONG_DATA)
        if 0x85 in fields:
            return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, fields[0x85]))
        return key.sign(fields[0x81].rjust(32, b"\0")[-32:], ec.ECDSA(Prehashed(hashes.SHA256())))

    def _authenticate_administrator(self, fields: dict[int, bytes]) -> bytes:
        """Part 2, appendix A.1: by a challenge of the card, or mutually by a witness."""
        if fields.get(0x80) == b"":
            self._witness = os.urandom(8)
            return _tlv(0x7C, _tlv(0x80, _triple_des(self._witness)))
        if fields.get(0x81) == b"":
            self._challenge = os.urandom(8)
            return _tlv(0x7C, _tlv(0x81, self._challenge))
        if 0x80 in fields:
            witness, self._witness = self._witness, None
            self._admit(witness is not None and fields[0x80] == witness)
            return _tlv(0x7C, _tlv(0x82, _triple_des(fields[0x81])))
        challenge, self._challenge = self._challenge, None
        self._admit(challenge is not None and fields[0x82] == _triple_des(challenge))
        return b""

    def _admit(self, proved: bool) -> None:
        if not proved:
            raise _Refusal(_NOT_ALLOWED)
        self._administrator = True


def _decode(apdu: bytes) -> _Command:
    """Read a command APDU, short or extended. Raises _Refusal."""
    if len(apdu) < 4:
        raise _Refusal(_WRONG_LENGTH)
    cla, ins, p1, p2 = apdu[:4]
    body, data, expected = apdu[4:], b"", _MAX_SHORT
    if len(body) == 1:
        expected = body[0] or _MAX_SHORT
    elif len(body) == 3 and body[0] == 0:
        expected = int.from_bytes(body[1:], "big") or 0x10000
    elif body:
        extended = body[0] == 0 and len(body) > 3
        start = 3 if extended else 1
        length = int.from_bytes(body[1:3], "big") if extended else body[0]
        data, rest = body[start : start + length], body[start + length :]
        if len(data) < length:
            raise _Refusal(_WRONG_LENGTH)
        if rest:
            expected = int.from_bytes(rest, "big") or (0x10000 if extended else _MAX_SHORT)
    return _Command(cla=cla, ins=ins, p1=p1, p2=p2, data=data, expected=expected)


def _split_references(data: bytes) -> tuple[bytes, str]:
    """An old and a new PIN or PUK of eight bytes each; the new one without its padding."""
    if len(data) != 16:
        raise _Refusal(_WRONG_DATA)
    return data[:8], data[8:].rstrip(b"\xff").decode("ascii")


def _chuid(serial: int) -> bytes:
    """A card holder unique identifier, unsigned (part 1, section 3.1.2)."""
    expiry = b"20991231"
    return _tlv(0x30, _FASCN) + _tlv(0x34, serial.to_bytes(16, "big")) + _tlv(0x35, expiry) + b"\x3e\0\xfe\0"


def _triple_des(block: bytes) -> bytes:
    encryptor = Cipher(TripleDES(DEFAULT_MANAGEMENT_KEY), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def _tlv(tag: int, value: bytes) -> bytes:
    """BER-TLV (ISO 7816-4, section 5.2.2)."""
    head = tag.to_bytes((tag.bit_length() + 7) // 8, "big")
    length = len(value)
    if length < 0x80:
        return head + bytes([length]) + value
    size = (length.bit_length() + 7) // 8
    return head + bytes([0x80 | size]) + length.to_bytes(size, "big") + value


def _parse(block: bytes) -> list[tuple[int, bytes]]:
    """The elements of a BER-TLV template. Raises IndexError or ValueError when it is cut short."""
    elements, position = [], 0
    while position < len(block):
        tag = block[position]
        position += 1
        if tag & 0x1F == 0x1F:
            tag = tag << 8 | block[position]
            position += 1
        length = block[position]
        position += 1
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(block[position : position + size], "big")
            position += size
        if position + length > len(block):
            raise ValueError("a template is cut short")
        elements.append((tag, block[position : position + length]))
        position += length
    return elements
