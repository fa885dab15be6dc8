"""The polkit actions: one for each of the helper's verbs, an administrator's password for each, and nothing else (security C6).

The file's form is polkit(8)'s, section "DECLARING ACTIONS"; the annotations that pkexec knows are in pkexec(1).
"""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

POLICY = Path(__file__).resolve().parents[3] / "packaging/linux/org.keyfit.policy"
PREFIX = "org.freedesktop.policykit.exec."
LANGUAGES = (None, "zh_CN")
LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def verbs() -> set[str]:
    """What the helper does."""
    return set(importlib.import_module("keyfit.engine.helper.messages").VERBS)


def faults(text: str, wanted: set[str]) -> Iterator[str]:
    """What is wrong with a policy file, a line each."""
    found: dict[str, int] = {}
    top = ElementTree.fromstring(text)
    for element in top:
        if element.tag == "action":
            verb = element.get("id", "").removeprefix("org.keyfit.")
            found[verb] = found.get(verb, 0) + 1
            yield from (f"{verb}: {fault}" for fault in action_faults(element, verb))
        elif element.tag != "vendor":
            yield f"unknown element {element.tag}"
    for verb in sorted(found.keys() | wanted):
        if verb not in wanted:
            yield f"{verb}: the helper has no such verb"
        elif found.get(verb) != 1:
            yield f"{verb}: {found.get(verb, 0)} actions"


def action_faults(action: ElementTree.Element, verb: str) -> Iterator[str]:
    if set(action.keys()) != {"id"} or not re.fullmatch(r"org\.keyfit\.[a-z]+", action.get("id", "")):
        yield f"id {action.get('id')}"
    for tag in ("description", "message"):
        texts = [(e.get(LANG), e.text or "") for e in action.findall(tag)]
        if tuple(lang for lang, _ in texts) != LANGUAGES or not all(text.strip() for _, text in texts):
            yield f"{tag}: wanted once in each of {LANGUAGES}, and not empty"
    given = [(e.tag, e.text) for defaults in action.findall("defaults") for e in defaults]
    if sorted(given) != [("allow_active", "auth_admin"), ("allow_any", "auth_admin"), ("allow_inactive", "no")]:
        yield f"defaults {given}"
    notes = [(e.get("key"), e.text) for e in action.findall("annotate")]
    if notes != [(PREFIX + "path", "/opt/keyfit/keyfit-helper"), (PREFIX + "argv1", verb)]:
        yield f"annotations {notes}"
    for element in action:
        if element.tag not in ("description", "message", "defaults", "annotate"):
            yield f"unknown element {element.tag}"


def test_c6_every_verb_of_the_helper_has_its_action_and_nothing_is_given_away() -> None:
    assert list(faults(POLICY.read_text("utf-8"), verbs())) == []


def test_c6_the_question_says_what_will_happen() -> None:
    """No two actions ask the same; for which brand is the end of the command line, which pkexec fills in."""
    top = ElementTree.fromstring(POLICY.read_text("utf-8"))
    for tag in ("message", "description"):
        texts = [e.text for e in top.iter(tag)]
        assert len(set(texts)) == len(texts)
        assert not any("$(" in (text or "").replace("($(command_line))", "").replace("（$(command_line)）", "") for text in texts)


def change(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


SPOILT = {
    "anybody may": change("<allow_any>auth_admin<", "<allow_any>yes<"),
    "the active user may": change("<allow_active>auth_admin<", "<allow_active>yes<"),
    "the user's own password will do": change("<allow_active>auth_admin<", "<allow_active>auth_self<"),
    "asked once, allowed for minutes": change("<allow_active>auth_admin<", "<allow_active>auth_admin_keep<"),
    "who is not there may": change("<allow_inactive>no<", "<allow_inactive>auth_admin<"),
    "no word for who has no session": change("<allow_any>auth_admin</allow_any>", ""),
    "another program": change("/opt/keyfit/keyfit-helper", "/opt/keyfit/keyfit"),
    "any argument": change('<annotate key="org.freedesktop.policykit.exec.argv1">install</annotate>', ""),
    "the wrong verb": change(".argv1\">install<", ".argv1\">uninstall<"),
    "with the user's display": change("</action>", f'<annotate key="{PREFIX}allow_gui">true</annotate></action>'),
    "implies another": change("</action>", '<annotate key="org.freedesktop.policykit.imply">org.other</annotate></action>'),
    "a verb too many": change("</policyconfig>", '<action id="org.keyfit.shell"/></policyconfig>'),
    "an action too few": lambda text: re.sub(r'<action id="org.keyfit.recover">.*?</action>', "", text, flags=re.DOTALL),
    "an action twice": lambda text: re.sub(r'(<action id="org.keyfit.repair">.*?</action>)', r"\1\1", text, flags=re.DOTALL),
    "no Chinese": lambda text: re.sub(r'<message xml:lang="zh_CN">.*?</message>', "", text, count=1),
    "a rule among the actions": change("</policyconfig>", "<rule>yes</rule></policyconfig>"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_c6_a_weaker_policy_is_noticed(spoil: Callable[[str], str]) -> None:
    text = POLICY.read_text("utf-8")
    spoilt = spoil(text)
    assert spoilt != text
    assert list(faults(spoilt, verbs())) != []


def test_c6_a_verb_without_an_action_is_noticed() -> None:
    assert list(faults(POLICY.read_text("utf-8"), verbs() | {"format"})) == ["format: 0 actions"]
