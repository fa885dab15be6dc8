"""The PKCS#11 and PC/SC bindings: laid out as the standards have it, and unable to log in."""

import ast
import ctypes
import re
from pathlib import Path

import pytest

import keyfit.token
from keyfit.token import pcsc, pkcs11

SOURCES = sorted(Path(keyfit.token.__file__).parent.glob("*.py"))
CHANGING = re.compile(r"C_(Log|Init(Token|PIN)|Set|Sign|Create|Copy|Destroy|Generate|Derive|Wrap|Unwrap|Encrypt|"
                      r"Decrypt|Digest|Verify|Seed)")
PIN_WORDS = re.compile(r"(?i)(password|passphrase|secret|pin(_?(code|value|text))?)\Z")


def test_i1_no_function_that_logs_in_or_changes_a_token_is_bound() -> None:
    names = set(pkcs11.FUNCTIONS)
    assert not {name for name in names if CHANGING.match(name)}
    assert len(SOURCES) >= 8
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            words = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            words += [node.attr] if isinstance(node, ast.Attribute) else []
            assert not [w for w in words for c in re.findall(r"\bC_\w+", w) if CHANGING.match(c)], source


def test_i1_no_parameter_and_no_variable_holds_a_pin() -> None:
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        names = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)} | {
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert not {name for name in names if PIN_WORDS.match(name)}, source


def test_i1_no_call_that_sends_an_apdu_is_bound() -> None:
    text = (Path(keyfit.token.__file__).parent / "pcsc.py").read_text()
    assert set(re.findall(r"\"(SCard[A-Z]\w+)\"", text)) == {
        "SCardEstablishContext", "SCardReleaseContext", "SCardListReaders", "SCardGetStatusChange"}


def test_structures_have_the_sizes_of_the_standard_on_a_64_bit_unix() -> None:
    """As a C compiler lays out pkcs11t.h with 8-byte CK_ULONG; checked against p11-kit's header as well."""
    assert ctypes.sizeof(ctypes.c_ulong) == 8
    sizes = {s: ctypes.sizeof(s) for s in (pkcs11.LibraryInfo, pkcs11.SlotInfo, pkcs11.TokenInfo, pkcs11.Attribute,
                                           pkcs11.InitializeArguments)}
    assert list(sizes.values()) == [88, 112, 208, 24, 48]
    assert pkcs11.FunctionList.functions.offset == 8


@pytest.mark.parametrize(("platform", "size", "dword"), [("linux", 80, 8), ("darwin", 61, 4), ("win32", 64, 4)])
def test_the_reader_state_has_each_platforms_layout(platform: str, size: int, dword: int) -> None:
    abi = pcsc.Abi(platform)
    assert ctypes.sizeof(abi.reader_state) == size
    assert ctypes.sizeof(abi.dword) == dword
