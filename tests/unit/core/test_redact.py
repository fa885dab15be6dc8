"""Security I2, F3: what may not stay in a log is found by its value, and by the words around it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.redact import redactor

KNOWN = {"ada": "<user>", "Ada Lovelace": "<user>", "/home/ada": "~", "engine.example": "<host>", "p@ss": "<hidden>", "x": "no"}
CANARY = "C4N4RY-77"


@pytest.mark.parametrize(("text", "expected"), [
    ("/home/ada/.pki/nssdb", "~/.pki/nssdb"),
    ("ADA@engine", "<user>@engine"),
    ("for Ada Lovelace, ada", "for <user>, <user>"),
    ("an adapter for Canada", "an adapter for Canada"),
    ("file_ada.txt on engine.example:80", "file_<user>.txt on <host>:80"),
    ("with p@ss!", "with <hidden>!"),
    ("x stays, since it is too short", "x stays, since it is too short"),
])
def test_i2_known_values(text: str, expected: str) -> None:
    assert redactor(KNOWN)(text) == expected


@pytest.mark.parametrize("text", [
    f"PIN={CANARY}", f"pin: {CANARY}", f'"userPin": "{CANARY}"', f"TOKEN_PIN='{CANARY}'", f"SO-PIN = {CANARY}",
    f"the PIN is {CANARY}", "PIN 777777", f"PUK={CANARY}", f"password: {CANARY}", f"PASSWD={CANARY}", f"Passphrase={CANARY}",
    f"db_password_2={CANARY}", f"client_secret={CANARY}", f"api-key: {CANARY}", f"https://ada:{CANARY}@proxy:3128/x",
    f"http://{CANARY}@proxy", f"http_proxy=http://a:{CANARY}@b@c/", f"Proxy-Authorization: Basic {CANARY}",
    f"serial number: {CANARY}", f"Serial: {CANARY}", f"iSerial                 3 {CANARY}", f"ID_SERIAL_SHORT={CANARY}",
    f"serialNumber={CANARY},O=x", f"S: SerialNumber={CANARY}", f"ACME Token ({CANARY}) 00 00", f"subject=CN = Ada {CANARY}",
    f"issuer: C=DE, O=Bank, CN={CANARY}", f"CN={CANARY},O=Bank", f"2.5.4.5={CANARY}", f"emailAddress={CANARY}@b.example",
    f"mail {CANARY}@bank.example now", f"/home/{CANARY}/x", f"C:\\Users\\{CANARY}\\x",
])
def test_i2_values_that_are_known_by_their_words(text: str) -> None:
    done = redactor({})(text)

    assert CANARY not in done
    assert "777777" not in done
    assert done  # something is left to read


@pytest.mark.parametrize("text", [
    "Unpacking libacsccid1 (1.1.8-1) ...", "Setting up pcscd (1.9.9-2) ...", "dpkg: error processing archive (--install):",
    "Device 072F:B200 at 1-1", "usr/lib/pcsc/drivers/ifd-acsccid.bundle", "mapping: spinning", "2026-11-25T07:25:18Z",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "The serial line is open",
])
def test_what_says_nothing_of_anybody_stays(text: str) -> None:
    assert redactor(KNOWN)(text) == text


@given(st.text(max_size=300), st.text(max_size=300))
def test_i2_a_known_value_is_gone_whatever_stands_around_it(before: str, after: str) -> None:
    done = redactor({"Zq7value": "-"})(f"{before} Zq7value {after}")

    assert "Zq7value" not in done


@pytest.mark.parametrize("piece", ["pin", "PIN=", "://", "serial ", "a@", "CN=", "/home/", "subject=", "passw", "aA1-", "(a) "])
def test_i2_no_text_takes_long(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    begun = time.process_time()

    redactor(KNOWN)(text)

    assert time.process_time() - begun < 5
