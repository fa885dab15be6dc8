"""The virtual token by itself: what a host's USB stack, a CCID driver and a PIV middleware would see."""

from __future__ import annotations

import queue
import threading
from hashlib import sha256

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from tests.sim.vtoken import (
    Ccid,
    CcidFunction,
    HidFunction,
    MassStorageFunction,
    PivCard,
    Stall,
    UsbDevice,
    VendorFunction,
)

OUT, IN, NOTICES = 0x01, 0x82, 0x83
SELECT_PIV = bytes.fromhex("00a4040005a000000308")
VERIFY_PIN = bytes.fromhex("0020008008") + b"123456\xff\xff"
MANAGEMENT_KEY = bytes.fromhex("010203040506070801020304050607080102030405060708")


class Host:
    """A host that reads one endpoint at a time."""

    def __init__(self, device: UsbDevice) -> None:
        self.device = device

    def read(self, endpoint: int, length: int = 4096, timeout_s: float = 10.0) -> bytes:
        arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.device.host_in(endpoint, object(), length, lambda tag, data: arrived.put(data))
        return arrived.get(timeout=timeout_s)

    def ccid(self, kind: int, data: bytes = b"", level: int = 0, sequence: int = 7) -> bytes:
        header = bytes([kind]) + len(data).to_bytes(4, "little") + bytes([0, sequence, 0]) + level.to_bytes(2, "little")
        self.device.host_out(OUT, header + data)
        return self.read(IN)


@pytest.fixture
def card() -> PivCard:
    return PivCard()


@pytest.fixture
def ccid(card: PivCard) -> Ccid:
    return Ccid(card)


@pytest.fixture
def host(ccid: Ccid) -> Host:
    return Host(UsbDevice(0x1050, 0x0407, [CcidFunction(ccid)], product="YubiKey CCID", serial="42"))


# -- USB


def test_descriptors_say_what_the_device_was_made_of() -> None:
    device = UsbDevice(0x096E, 0x0807, [HidFunction(), CcidFunction(Ccid())], bcd_device=0x1234, manufacturer="A", serial="S")
    described = device.control(0x80, 6, 0x0100, 0, 64)
    assert described == device.device_descriptor
    assert described[8:14] == bytes.fromhex("6e09 0708 3412")
    assert (described[14], described[15], described[16]) == (1, 0, 3)
    whole = device.control(0x80, 6, 0x0200, 0, 0xFFFF)
    assert int.from_bytes(whole[2:4], "little") == len(whole)
    assert device.control(0x80, 6, 0x0200, 0, 9) == whole[:9]
    assert [(number, kind) for number, kind, _, _ in device.interfaces] == [(0, 3), (1, 0x0B)]
    assert [endpoint.address for endpoint in device.endpoints] == [0x81, 0x02, 0x03, 0x84, 0x85]
    assert {endpoint.interface for endpoint in device.endpoints[2:]} == {1}


def test_strings_may_be_anything_a_hostile_device_could_send() -> None:
    device = UsbDevice(1, 2, [VendorFunction()], manufacturer="\x1b[2J", product=b"\x00\xd8\x41", serial="ключ")
    assert device.control(0x80, 6, 0x0302, 0x0409, 255) == b"\x05\x03\x00\xd8\x41"
    assert (device.strings[1], device.strings[3]) == ("\x1b[2J", "ключ")
    assert "\ufffd" in device.strings[2]
    with pytest.raises(ValueError, match="252"):
        UsbDevice(1, 2, [VendorFunction()], serial="x" * 200)


@pytest.mark.parametrize(
    "request_", [(0x80, 6, 0x0309, 0, 255), (0x80, 99, 0, 0, 0), (0x81, 10, 0, 5, 1), (0xC0, 1, 0, 0, 8), (0xA1, 9, 0, 0, 8)]
)
def test_what_the_device_does_not_know_is_stalled(host: Host, request_: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(Stall):
        host.device.control(*request_)


def test_a_chosen_configuration_is_forgotten_at_a_reset(host: Host) -> None:
    host.device.control(0x00, 9, 1, 0, 0)
    assert host.device.control(0x80, 8, 0, 0, 1) == b"\x01"
    host.device.reset()
    assert host.device.control(0x80, 8, 0, 0, 1) == b"\x00"


def test_a_cancelled_read_gets_nothing_and_the_next_one_everything() -> None:
    device = UsbDevice(1, 2, [VendorFunction()])
    got: list[tuple[object, bytes]] = []
    device.host_in(IN, "first", 64, lambda tag, data: got.append((tag, data)))
    assert device.cancel("first")
    assert not device.cancel("first")
    device.host_out(OUT, b"hello")
    assert got == []
    device.host_in(IN, "second", 3, lambda tag, data: got.append((tag, data)))
    device.host_in(IN, "third", 3, lambda tag, data: got.append((tag, data)))
    assert got == [("second", b"hel"), ("third", b"lo")]


def test_hid_reports_are_answered_at_their_full_length() -> None:
    device = UsbDevice(1, 2, [HidFunction(lambda report: report[::-1])])
    device.host_out(0x02, b"\x01\x02")
    assert Host(device).read(0x81) == b"\x02\x01" + bytes(62)
    assert device.control(0x81, 6, 0x2200, 0, 255) == HidFunction.REPORT_DESCRIPTOR


def test_a_drive_is_read_and_says_when_it_is_ejected() -> None:
    ejected = threading.Event()
    device = UsbDevice(1, 2, [MassStorageFunction(b"A" * 2048 + b"B" * 100, on_eject=ejected.set)])
    host = Host(device)

    def command(cdb: str, wanted: int) -> tuple[bytes, int]:
        raw = bytes.fromhex(cdb)
        wrapper = b"USBCtag!" + wanted.to_bytes(4, "little") + bytes([0x80, 0, len(raw)])
        device.host_out(0x02, wrapper + raw.ljust(16, b"\0"))
        data = host.read(0x81) if wanted else b""
        status = host.read(0x81)
        assert (status[:8], len(status)) == (b"USBStag!", 13)
        return data, status[12]

    assert command("25000000000000000000", 8) == (bytes.fromhex("0000000100000800"), 0)
    assert command("28000000000100000100", 2048) == (b"B" * 100 + bytes(1948), 0)
    assert command("ff0000000000", 0) == (b"", 1)
    assert command("030000001200", 18)[0][2] == 5, "the sense data names the refusal"
    assert command("1b0000000200", 0) == (b"", 0)
    assert ejected.wait(5)


# -- reader


def test_a_powered_card_gives_its_answer_to_reset_and_takes_apdus(host: Host, ccid: Ccid, card: PivCard) -> None:
    assert host.ccid(0x65)[7] & 3 == 1, "present, not powered"
    assert host.ccid(0x62)[10:] == card.atr
    reply = host.ccid(0x6F, SELECT_PIV, sequence=9)
    assert (reply[0], reply[6], reply[-2:]) == (0x80, 9, b"\x90\x00")
    assert [each.command for each in ccid.log] == [SELECT_PIV]


def test_an_apdu_in_pieces_is_put_together(host: Host, ccid: Ccid) -> None:
    host.ccid(0x62)
    assert host.ccid(0x6F, SELECT_PIV[:4], level=1)[9] == 0x10
    assert host.ccid(0x6F, SELECT_PIV[4:], level=2)[-2:] == b"\x90\x00"
    message = b"\x6f" + len(SELECT_PIV).to_bytes(4, "little") + bytes(5) + SELECT_PIV
    host.device.host_out(OUT, message[:7])
    host.device.host_out(OUT, message[7:])
    assert host.read(IN)[-2:] == b"\x90\x00"
    assert [each.command for each in ccid.log] == [SELECT_PIV, SELECT_PIV]


def test_an_empty_reader_says_so_and_tells_of_a_card_put_in(host: Host, ccid: Ccid, card: PivCard) -> None:
    ccid.remove()
    assert host.read(NOTICES) == b"\x50\x02"
    refused = host.ccid(0x62)
    assert (refused[7], refused[8]) == (0x42, 0xFE)
    ccid.insert(card)
    assert host.read(NOTICES) == b"\x50\x03"
    assert host.ccid(0x62)[10:] == card.atr


def test_a_card_that_computes_for_long_asks_for_more_time(host: Host, ccid: Ccid) -> None:
    host.ccid(0x62)
    ccid.delay_s = 1.5
    assert host.ccid(0x6F, SELECT_PIV)[7] & 0xC0 == 0x80
    assert host.read(IN)[-2:] == b"\x90\x00"


def test_a_token_pulled_out_in_the_middle_does_not_answer_after_it_was_plugged_in_again(host: Host, ccid: Ccid) -> None:
    host.ccid(0x62)
    ccid.delay_s = 60
    host.device.host_out(OUT, b"\x6f" + len(SELECT_PIV).to_bytes(4, "little") + bytes(5) + SELECT_PIV)
    host.device.reset()
    ccid.delay_s = 0
    assert host.ccid(0x65, sequence=77)[6] == 77, "the first thing it says is the answer to the new question"


def test_other_slots_and_unknown_commands_fail_without_harm(host: Host) -> None:
    host.device.host_out(OUT, b"\x62" + bytes(4) + b"\x01" + bytes(4))
    assert host.read(IN)[8] == 5
    assert host.ccid(0x99)[7] & 0x40
    assert host.ccid(0x62)[0] == 0x80


# -- PIV


def send(card: PivCard, command: str, data: bytes = b"") -> bytes:
    """One command, chained if it is long; the whole response."""
    head = bytes.fromhex(command)
    while len(data) > 255:
        assert card.transmit(bytes([head[0] | 0x10]) + head[1:] + b"\xff" + data[:255]) == b"\x90\x00"
        data = data[255:]
    answer = card.transmit(head + (bytes([len(data)]) + data if data else b"") + b"\x00")
    body = answer[:-2]
    while answer[-2] == 0x61:
        answer = card.transmit(b"\x00\xc0\x00\x00" + answer[-1:])
        body += answer[:-2]
    return body + answer[-2:]


def tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + value


def log_in_as_administrator(card: PivCard, key: bytes = MANAGEMENT_KEY) -> bytes:
    challenge = send(card, "0087039b", tlv(0x7C, tlv(0x81, b"")))[4:12]
    encryptor = Cipher(TripleDES(key), modes.ECB()).encryptor()
    return send(card, "0087039b", tlv(0x7C, tlv(0x82, encryptor.update(challenge))))


@pytest.fixture
def selected(card: PivCard) -> PivCard:
    assert card.transmit(SELECT_PIV)[-2:] == b"\x90\x00"
    return card


def test_nothing_works_before_the_application_is_selected(card: PivCard) -> None:
    assert card.transmit(VERIFY_PIN) == b"\x6d\x00"
    assert card.transmit(bytes.fromhex("00a4040005a000000309")) == b"\x6a\x82"
    assert card.transmit(b"\x00\xa4") == b"\x67\x00"


def test_three_wrong_pins_block_and_the_puk_unblocks(selected: PivCard) -> None:
    wrong = VERIFY_PIN.replace(b"123456", b"654321")
    assert [selected.transmit(wrong).hex() for _ in range(3)] == ["63c2", "63c1", "6983"]
    assert selected.transmit(VERIFY_PIN) == b"\x69\x83"
    assert selected.pin_tries == 0
    unblock = bytes.fromhex("002c008010") + b"12345678" + b"111111\xff\xff"
    assert selected.transmit(unblock) == b"\x90\x00"
    assert selected.transmit(VERIFY_PIN.replace(b"123456", b"111111")) == b"\x90\x00"
    assert selected.pin_tries == 3


def test_a_login_is_asked_for_and_ends_with_the_power(selected: PivCard) -> None:
    asked = bytes.fromhex("00200080")
    assert selected.transmit(asked).hex() == "63c3"
    assert selected.transmit(VERIFY_PIN) == b"\x90\x00"
    assert selected.transmit(asked) == b"\x90\x00"
    selected.reset()
    selected.transmit(SELECT_PIV)
    assert selected.transmit(asked).hex() == "63c3"


def test_keys_are_only_made_for_the_administrator(selected: PivCard) -> None:
    generate = tlv(0xAC, tlv(0x80, b"\x11"))
    assert send(selected, "0047009a", generate) == b"\x69\x82"
    assert log_in_as_administrator(selected, bytes(24)) == b"\x69\x82"
    assert send(selected, "0047009a", generate) == b"\x69\x82"
    assert selected.slots == []
    assert log_in_as_administrator(selected) == b"\x90\x00"
    assert send(selected, "0047009a", generate)[-2:] == b"\x90\x00"
    assert selected.slots == [0x9A]


def test_a_generated_rsa_key_signs_after_the_pin(selected: PivCard) -> None:
    log_in_as_administrator(selected)
    made = send(selected, "0047009a", tlv(0xAC, tlv(0x80, b"\x07")))
    assert made[:2] == b"\x7f\x49"
    modulus = made[made.index(b"\x81\x82\x01\x00") + 4 :][:256]
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420") + sha256(b"message").digest()
    block = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest_info)) + b"\x00" + digest_info
    request = tlv(0x7C, b"\x82\x00" + tlv(0x81, block))
    assert send(selected, "0087079a", request) == b"\x69\x82"
    selected.transmit(VERIFY_PIN)
    answer = send(selected, "0087079a", request)
    assert answer[-2:] == b"\x90\x00"
    public = rsa.RSAPublicNumbers(65537, int.from_bytes(modulus, "big")).public_key()
    public.verify(answer[-258:-2], b"message", padding.PKCS1v15(), hashes.SHA256())


def test_an_elliptic_curve_key_signs_and_its_signature_slot_wants_the_pin_each_time(selected: PivCard) -> None:
    log_in_as_administrator(selected)
    made = send(selected, "0047009c", tlv(0xAC, tlv(0x80, b"\x11")))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), made[5:-2])
    request = tlv(0x7C, b"\x82\x00" + tlv(0x81, sha256(b"message").digest()))
    selected.transmit(VERIFY_PIN)
    answer = send(selected, "0087119c", request)
    public.verify(answer[4:-2], b"message", ec.ECDSA(hashes.SHA256()))
    assert send(selected, "0087119c", request) == b"\x69\x82"


def test_a_certificate_is_kept_and_read_back(selected: PivCard) -> None:
    certificate = bytes(range(256)) * 4
    content = tlv(0x70, certificate) + b"\x71\x01\x00\xfe\x00"
    put = b"\x5c\x03\x5f\xc1\x05" + tlv(0x53, content)
    assert send(selected, "00db3fff", put) == b"\x69\x82"
    log_in_as_administrator(selected)
    assert send(selected, "00db3fff", put) == b"\x90\x00"
    assert selected.certificate(0x9A) == certificate
    assert send(selected, "00cb3fff", b"\x5c\x03\x5f\xc1\x05") == tlv(0x53, content) + b"\x90\x00"
    assert send(selected, "00cb3fff", b"\x5c\x03\x5f\xc1\x0a") == b"\x6a\x82"


@pytest.mark.parametrize("garbage", [b"\x7c", b"\x7c\x05\x80", b"\xff" * 40, b"\x5c\x7f"])
def test_malformed_templates_get_a_status_word(selected: PivCard, garbage: bytes) -> None:
    for command in ("0087079a", "00cb3fff", "0087039b"):
        answer = send(selected, command, garbage)
        assert len(answer) == 2
        assert answer[0] in (0x69, 0x6A)
