"""Static gates over all of the program's code: no credential is asked for or held (security I1, section 8), and no program is
run through a shell or by a name that is searched for (C10).

Every exception is written down here, by file and by name, with its reason; one that is not needed any more fails too.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CODE = Path(__file__).parents[2] / "installer"
SOURCES = sorted(CODE.rglob("*.py"))
OTHER_TEXTS = sorted(p for p in CODE.rglob("*.*") if p.suffix in (".html", ".js", ".j2", ".toml", ".ps1", ".sh", ".c"))

CREDENTIAL = re.compile(r"(?i)pins?|puk|password|passwd|passphrase|passcode|credentials?|secrets?|login")
KEYS = "passphrases of a publisher's own key files, and PINs of a publisher's own devices"
FLAGS = "what the token's flags say of its PIN (CK_TOKEN_INFO), read without one"
RULES = "the rules of a PIN for people to read, from brand data"
EXCEPTED: dict[str, tuple[str, set[str]]] = {
    "keyfit/app/certificate.py": (RULES, {"PinState", "_pin_rules", "pin", "pin_state"}),
    "keyfit/ui/commands/certificate.py": (RULES, {"pin"}),
    "keyfit/model/catalog.py": (RULES, {"PinRules", "pin"}),
    "keyfit/publisher/compile.py": (RULES, {"pin"}),
    "keyfit/core/certificate.py": (FLAGS, {"PinState", "login_required", "pin_count_low", "pin_final_try", "pin_initialised",
                                           "pin_locked", "pin_state", "pin_to_be_changed"}),
    "keyfit/model/certificate.py": (FLAGS, {"PinState", "login_required", "pin_count_low", "pin_final_try", "pin_initialised",
                                            "pin_locked", "pin_to_be_changed"}),
    "keyfit/token/child.py": (FLAGS, {
        "CKF_LOGIN_REQUIRED", "CKF_USER_PIN_COUNT_LOW", "CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_INITIALIZED",
        "CKF_USER_PIN_LOCKED", "CKF_USER_PIN_TO_BE_CHANGED", "login_required", "pin_count_low", "pin_final_try",
        "pin_initialised", "pin_locked", "pin_to_be_changed"}),
    "keyfit/token/pkcs11.py": (FLAGS, {
        "CKF_LOGIN_REQUIRED", "CKF_USER_PIN_COUNT_LOW", "CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_INITIALIZED",
        "CKF_USER_PIN_LOCKED", "CKF_USER_PIN_TO_BE_CHANGED"}),
    "keyfit/core/secret.py": ("the type that shows no secret", {"Secret"}),
    "keyfit/trust/session.py": ("the administrator's proxy, from the system's settings", {"Secret", "login", "password"}),
    "keyfit/platforms/linux/identity.py": ("what is kept out of logs", {"SHORTEST_SECRET", "_credentials", "password"}),
    "keyfit/trust/addresses.py": ("addresses with one are refused", {"_without_login", "password"}),
    "keyfit/publisher/lint/__init__.py": ("addresses with one are refused; " + RULES, {"password", "pin"}),
    "keyfit/engine/staging.py": ("the standard library's random names", {"secrets"}),
    "keyfit/engine/kept.py": ("the standard library's random names", {"secrets"}),
    "keyfit/platforms/linux/uevents.py": ("who sent a message: socket(7)", {"SCM_CREDENTIALS"}),
}
PUBLISHERS_KEYS = {f"keyfit/publisher/{name}.py" for name in (
    "bundle_signing", "keyring", "release", "workplace", *(f"commands/{c}" for c in (
        "bundle", "delegate", "init", "refresh", "release", "revoke", "rollout", "rotate", "sign")))}
"""Where KEYS is the reason. The publisher's tools are no part of the frozen client."""
ASKS = re.compile(r"hide_input|password_option|getpass|QLineEdit|EchoMode|SecureTextField|type\s*=\s*[\"']?password"
                  r"|show\s*=\s*[\"'][*\u2022][\"']|ES_PASSWORD|inputmode=.numeric")
CLIPBOARD = re.compile(r"(?i)clipboard|pyperclip|\bxclip\b|\bxsel\b|wl-copy|wl-paste|pbpaste|pbcopy")
LOGS_IN = re.compile(r"C_Login|C_LoginUser|C_SetPIN|C_InitPIN|C_InitToken|CKU_|SCardGetAttrib.*PIN|VERIFY_PIN")


def below(path: Path) -> str:
    return str(path.relative_to(CODE))


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name that code gives or uses: variables, attributes, arguments, functions, classes, imports."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value
        yield from getattr(node, "names", []) if isinstance(node, ast.Global | ast.Nonlocal) else ()


def is_credential(name: str) -> bool:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return any(CREDENTIAL.fullmatch(word) for word in words) or CREDENTIAL.fullmatch(name) is not None


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def test_i1_the_gate_knows_such_names_from_others() -> None:
    names = ("pin", "user_pin", "userPin", "PIN", "PIN_ENTRY", "passwordField", "Password", "old_puk", "login", "_secret", "pins")
    others = ("pinned", "spin", "mapping", "unpinning", "PINNED", "passed", "passes", "secretary", "logins_seen_by", "opinion")

    assert [name for name in names if not is_credential(name)] == []
    assert [name for name in others if is_credential(name)] == []


def test_i1_no_name_in_the_code_is_of_a_credential() -> None:
    found = {below(path): {name for name in identifiers(parsed(path)) if is_credential(name)} for path in SOURCES}
    found = {path: names for path, names in found.items() if names and path not in PUBLISHERS_KEYS}

    assert found == {path: names for path, (_, names) in EXCEPTED.items()}


def test_i1_the_publishers_exceptions_are_needed() -> None:
    for path in PUBLISHERS_KEYS:
        assert any(is_credential(name) for name in identifiers(parsed(CODE / path))), path


def test_i1_nothing_asks_for_a_credential_or_touches_the_clipboard() -> None:
    asking = {below(path) for path in (*SOURCES, *OTHER_TEXTS) if ASKS.search(path.read_text(errors="replace"))}
    clipboard = {below(path) for path in (*SOURCES, *OTHER_TEXTS) if CLIPBOARD.search(path.read_text(errors="replace"))}

    assert asking == {"keyfit/publisher/workplace.py"}  # KEYS
    assert clipboard == set()


def test_i1_nothing_logs_in_to_a_token() -> None:
    assert {below(path) for path in (*SOURCES, *OTHER_TEXTS) if LOGS_IN.search(path.read_text(errors="replace"))} == set()


def test_i1_no_option_and_no_variable_of_the_client_is_for_a_credential() -> None:
    for path in SOURCES:
        if below(path).startswith("keyfit/publisher/"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = node.value
                is_option = re.fullmatch(r"--[a-z-]+", word) is not None
                is_variable = re.fullmatch(r"[A-Z][A-Z0-9_]+", word) is not None
                assert not ((is_option or is_variable) and is_credential(word)), (below(path), word)


# ---- C10

STARTS = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
NEVER = {"os": {"system", "popen", "execlp", "execlpe", "execvp", "execvpe", "spawnlp", "spawnvp", "spawnlpe", "spawnvpe",
                "posix_spawnp", "startfile"},
         "asyncio": {"create_subprocess_shell"}, "pty": {"spawn"}, "commands": {"getoutput"}, "webbrowser": {"open"},
         "subprocess": {"getoutput", "getstatusoutput"}}
"""Calls that use a shell, or look a program up in PATH."""
WHO_STARTS = {
    "keyfit/platforms/linux/browser.py", "keyfit/platforms/linux/elevator.py", "keyfit/platforms/linux/programs.py",
    "keyfit/platforms/linux/ttyagent.py",
    "keyfit/token/reader.py", "keyfit/publisher/inspection/run.py", "keyfit/publisher/inspection/unpack.py"}
"""The only files that start a process."""


def calls(tree: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """(module or object, function, call) of `module.function(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            yield node.func.value.id, node.func.attr, node


def test_c10_no_shell_and_nothing_looked_up_in_path() -> None:
    for path in SOURCES:
        tree = parsed(path)
        for module, function, call in calls(tree):
            assert function not in NEVER.get(module, ()), f"{below(path)}:{call.lineno} {module}.{function}"
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{below(path)}:{node.value.lineno} shell=")
            if isinstance(node, ast.ImportFrom) and node.module in (*NEVER, "subprocess"):
                taken = {alias.name for alias in node.names}
                assert not taken & (NEVER.get(node.module, set()) | STARTS), f"{below(path)}: from {node.module} import {taken}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), f"{below(path)}:{node.lineno} {node.func.id}"


def test_c10_only_a_few_files_start_programs_and_always_by_a_list() -> None:
    starting: set[str] = set()
    for path in SOURCES:
        for module, function, call in calls(parsed(path)):
            if module == "subprocess" and function in STARTS:
                starting.add(below(path))
                assert call.args, f"{below(path)}:{call.lineno}"
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp), f"{below(path)}:{call.lineno}"
                assert any(k.arg == "env" for k in call.keywords) or path.name in ("browser.py", "unpack.py"), below(path)

    assert starting == WHO_STARTS


def test_c10_every_program_of_the_table_is_an_absolute_path() -> None:
    from keyfit.platforms.linux.programs import PROGRAMS

    for name, places in PROGRAMS.items():
        for place in places:
            assert place.startswith(("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")), name
            assert Path(place).name == name
