"""Security I2: a value that cannot be shown by accident."""

import copy
import json
import logging
import pickle
import traceback

import msgspec
import pytest

from keyfit.core.secret import SHOWN, Secret

CANARY = "canary-5f0d"


class Holder(msgspec.Struct):
    login: Secret


def test_i2_no_way_of_making_text_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(CANARY)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", f"{secret:>40}", "%s %r" % (secret, secret),  # noqa: UP031
             repr([secret]), repr({secret: secret}), repr(Holder(login=secret)), json.dumps({"x": secret}, default=str)]
    logging.getLogger("keyfit-test").warning("%s %r", secret, {"a": secret})

    assert SHOWN in shown[0]
    assert CANARY not in "".join(shown) + caplog.text


@pytest.mark.parametrize("write", [json.dumps, msgspec.json.encode, msgspec.to_builtins, pickle.dumps, copy.deepcopy],
                         ids=["json", "msgspec", "builtins", "pickle", "copy"])
def test_i2_nothing_writes_it(write: object) -> None:
    with pytest.raises(TypeError) as raised:
        write({"login": Secret(CANARY)})  # type: ignore[operator]
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_i2_a_traceback_with_its_variables_does_not_show_it() -> None:
    def fails(login: Secret) -> None:
        raise ValueError(f"refused for {login}")

    try:
        fails(Secret(CANARY))
    except ValueError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    assert "refused for" in told
    assert CANARY not in told


def test_it_can_be_used_and_compared() -> None:
    assert Secret(CANARY).reveal() == CANARY
    assert Secret(CANARY) == Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    assert {Secret(CANARY): 1}[Secret(CANARY)] == 1
    assert not Secret("")
