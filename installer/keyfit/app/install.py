"""Plan, install, apply: one path for all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from keyfit.app import certificate as certificates
from keyfit.app import verify as verification
from keyfit.app.context import Context
from keyfit.app.elevated import ask_helper, install_request
from keyfit.app.select import Selection, brand_label, select
from keyfit.app.waiting import wait_for
from keyfit.core.plan import draft, finish, plan_id
from keyfit.engine import steps, transaction
from keyfit.engine.staging import Staging, chunks_of
from keyfit.errors import (
    DataError,
    ElevationError,
    KeyfitError,
    NoTokenError,
    Outcome,
    PolicyError,
    UnsupportedError,
    UserError,
)
from keyfit.model.catalog import Payload
from keyfit.model.plan import Blocked, Part, Plan, Wait
from keyfit.model.result import Message, OperationResult, Verdict

MAX_PLAN_BYTES = 1_000_000
"""Plans are a few kilobytes; anything larger is not one."""
ANSWER_TIMEOUT_S = 20.0
"""How long a token gets to answer after its driver was installed: pcscd restarts and powers the card in about 2 s
(measured in a virtual machine: 1.5 to 2 s), slow cards need several more."""
BLOCK_ERRORS: dict[str, type[KeyfitError]] = {
    "conflict": PolicyError,
    "no-package-tool": UnsupportedError,
    "no-driver-for-system": NoTokenError,
    "brand-without-driver": NoTokenError,
}


def plan(context: Context, name: str | None, *, part: Part = "all") -> OperationResult:
    """The `plan` command: what `install` would do."""
    selection = select(context, name, unattended=name is not None)
    made = make_plan(context, selection, part)
    return OperationResult(command="plan", outcome=Outcome.DONE, data={"plan": as_data(made)},
                           messages=_about(context, selection, made))


def install(context: Context, name: str | None, *, silent: bool = False, dry_run: bool = False,
            hand_off: bool = True, language: str = "en", part: Part = "all") -> OperationResult:
    """The `install` command: detect, plan, ask once, change, verify, hand off.

    With the part "system" there is nothing to verify yet.

    Raises:
        KeyfitError: nothing was changed, or what was changed has been taken back.
    """
    if silent and name is None:
        raise UserError("silent-needs-brand", "A silent install asks nothing, so it has to be told the brand.",
                        hint="keyfit install BRAND --silent")
    if not dry_run:
        _recover_first(context)
    selection = select(context, name, unattended=silent)
    made = make_plan(context, selection, part)
    refuse_blocked(made.blocked)
    if dry_run:
        return OperationResult(command="install", outcome=Outcome.DONE, data={"plan": as_data(made), "dry_run": True},
                               messages=_about(context, selection, made))
    return _perform(context, selection, made, command="install", silent=silent,
                    hand_off=hand_off and not silent, language=language)


def apply(context: Context, saved: Path, *, silent: bool = False, hand_off: bool = True,
          language: str = "en") -> OperationResult:
    """The `apply` command: carry out a saved plan if it is still exactly what would be planned now.

    The file only says what to compare with: what is carried out is the plan made anew from signed data.

    Raises:
        DataError: the file is no plan of this version, or was changed after it was saved.
        PolicyError: it no longer fits this machine, this token or the signed data.
    """
    wanted = load_plan(saved)
    _recover_first(context)
    facts = context.facts
    if wanted.host.machine != facts.machine:
        raise PolicyError("plan-of-another-machine", "This plan was made on another machine or for another tree.",
                          hint=f"Make a plan here: keyfit plan {wanted.brand} --out FILE")
    selection = select(context, wanted.brand, unattended=not wanted.device)
    made = make_plan(context, selection, wanted.part)
    if made.id != wanted.id:
        raise PolicyError("plan-outdated", f"This plan no longer fits: {_difference(wanted, made)}.",
                          hint=f"Look at the new one: keyfit plan {wanted.brand}")
    refuse_blocked(made.blocked)
    return _perform(context, selection, made, command="apply", silent=silent, hand_off=hand_off, language=language)


def load_plan(path: Path) -> Plan:
    """Read a saved plan.

    Raises:
        DataError: unreadable, too large, malformed, or its id does not match its content.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise DataError("plan-unreadable", f"The plan {path} cannot be read: {error.strerror}.",
                        hint="Save one with: keyfit plan --out FILE") from error
    try:
        if len(data) > MAX_PLAN_BYTES:
            raise ValueError("it is too large")
        saved = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DataError("plan-invalid", f"{path} is no plan of this version of Keyfit: {error}.",
                        hint="Save one with: keyfit plan --out FILE") from error
    if plan_id(saved) != saved.id:
        raise DataError("plan-changed", f"{path} was changed after it was saved: its id does not match its content.",
                        hint="Save it again with: keyfit plan --out FILE", outcome=Outcome.FORBIDDEN)
    return saved


def make_plan(context: Context, selection: Selection, part: Part = "all") -> Plan:
    """The plan for a selection on this machine as it is now."""
    installed = context.host.package_versions()
    wanted = draft(selection.brand, selection.model, selection.device, context.facts, target=selection.target,
                   installed=installed, part=part, offline=context.repository.offline, notes=selection.notes)
    satisfied = {s.id for s in wanted.steps if steps.detect(s.change, context.host).satisfied}
    return finish(wanted, satisfied)


def as_data(made: Plan) -> dict[str, Any]:
    """The plan for the JSON interface: the saved form, with each step's kind beside it."""
    data: dict[str, Any] = msgspec.to_builtins(made)
    for step, described in zip(made.steps, data["steps"], strict=True):
        described["kind"] = step.kind
    return data


class _Proof:
    """Whether what was carried out works, found out once all steps are done."""

    def __init__(self, context: Context, selection: Selection, made: Plan, *, silent: bool) -> None:
        self._context, self._selection, self._made, self._silent = context, selection, made, silent
        self.verdict: Verdict | None = None

    def __call__(self) -> bool:
        """False if it has to be taken back."""
        self.verdict = _verify(self._context, self._selection, self._made, silent=self._silent)
        broken = self.verdict.first_broken if self.verdict is not None else None
        return broken is None or broken.id == "bus" or broken.id.startswith("browser")


def _perform(context: Context, selection: Selection, made: Plan, *, command: str, silent: bool, hand_off: bool,
             language: str) -> OperationResult:
    messages = [*selection.messages, *context.repository.notes()]
    if made.steps and not context.facts.elevated and (silent or context.elevator is None):
        raise ElevationError("not-elevated", "Installing a driver changes the system and needs administrator rights.",
                             hint=f"sudo keyfit {command} {made.brand}")
    if made.steps and not context.reporter.confirm(question(made)):
        raise UserError("cancelled", "Cancelled; nothing was changed.", outcome=Outcome.CANCELLED)
    if not made.steps:
        what = " of the system" if made.part == "system" else ""
        messages.append(Message(level="info", code="nothing-to-do", text=f"Everything that {brand_label(selection.brand)}"
                                f" needs{what} is already in place."))
    proof = _Proof(context, selection, made, silent=silent)
    carried_out = _carry_out(context, selection, made, proof, silent=silent)
    messages += carried_out.messages
    if carried_out.outcome is Outcome.RESTART_REQUIRED:
        messages.append(Message(level="warning", code="restart-required", text="All is in place and takes effect when this"
                                " computer has been started again.", hint=f"After that: keyfit verify {made.brand}"))
        return OperationResult(command=command, outcome=Outcome.RESTART_REQUIRED, messages=tuple(messages),
                               data={"plan": as_data(made), "verdict": None})
    if made.part == "system":
        messages.append(Message(level="info", code="system-prepared", text="The system is ready for the driver.",
                                hint=f"sudo keyfit install {made.brand} --part driver"))
        return OperationResult(command=command, outcome=Outcome.DONE, messages=tuple(messages),
                               data={"plan": as_data(made), "verdict": None})
    verdict = proof.verdict
    data: dict[str, Any] = {"plan": as_data(made), "verdict": verification.as_data(verdict) if verdict else None}
    outcome = _judge(made, verdict, messages, kept=carried_out.kept)
    if outcome is Outcome.DONE and verdict is not None:
        messages += _hand_off(context, selection, made, data, open_page=hand_off, language=language)
    return OperationResult(command=command, outcome=outcome, data=data, messages=tuple(messages))


def question(made: Plan) -> str:
    """The plan in words, for the one question that is asked."""
    token = ", ".join(name for name in (made.brand_name, made.model) if name)
    lines = [f"To make {token} work, Keyfit will:"]
    for step in made.steps:
        lines += [f"  - {step.action}", f"      why: {step.reason}", f"      undo: {step.undo}"]
    lines += [f"  You will be asked: {wait.text}" for wait in made.waits]
    lines.append("Nothing else is changed.")
    return "\n".join(lines)


class _CarriedOut(Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        kept: False if it was taken back because it does not work.
        messages: what the helper has to say.
    """

    kept: bool = True
    outcome: Outcome = Outcome.DONE
    messages: tuple[Message, ...] = ()


def _carry_out(context: Context, selection: Selection, made: Plan, proof: _Proof, *, silent: bool) -> _CarriedOut:
    """Carry it out, here or by the elevated helper."""
    if made.part == "system":
        prove: Callable[[], bool] = lambda: True  # noqa: E731 - there is nothing to try yet
    else:
        prove = proof
    if not made.steps and not (context.facts.elevated and not context.journal.records(made.brand)):
        prove()
        return _CarriedOut()
    kept = True

    def tried() -> bool:
        nonlocal kept
        kept = prove() or not made.steps
        return kept

    if context.facts.elevated:
        # without steps it is put on record all the same, so that taking another brand back spares it
        context.require_safe_program()
        if make_plan(context, selection, made.part).id != made.id:
            raise outdated(made.brand)
        with Staging(context.journal.state_dir) as staging:
            outcome = carry_out_here(context, made, fetch=fetch_here(context, staging), prove=tried,
                                     wait=lambda w: _wait(context, selection, w, silent=silent))
        return _CarriedOut(kept=kept, outcome=outcome)
    for payload in filter(None, (steps.payload_of(step.change) for step in made.steps)):
        _fetch(context, payload)  # before anybody is asked for a password
    request = install_request(made, selection, offline=context.repository.offline)
    done = ask_helper(context, request, "install", selection=selection, prove=tried)
    return _CarriedOut(kept=kept, outcome=done.outcome, messages=done.messages)


def carry_out_here(context: Context, made: Plan, *, fetch: Callable[[Payload], Path], wait: Callable[[Wait], None],
                   prove: Callable[[], bool]) -> Outcome:
    """The elevated part of an install, the same in the helper and in a process that has the rights already: all steps or none,
    and none if it does not prove itself.

    Args:
        fetch: gives the staged file of a payload.
        prove: called when all steps are done; not if they take effect only when the machine has been started again.

    Returns:
        DONE, also if it was taken back; or RESTART_REQUIRED.
    """
    result = transaction.carry_out(made, host=context.host, journal=context.journal, fetch=fetch, reporter=context.reporter,
                                   wait=wait)
    if result.outcome is Outcome.DONE and not prove():
        transaction.uninstall(made.brand, host=context.host, journal=context.journal, reporter=context.reporter,
                              latest_only=True)
    return result.outcome


def outdated(brand: str) -> PolicyError:
    """The error for a plan that was agreed to and is not what signed data and the machine give now."""
    return PolicyError("plan-outdated", "The plan that was shown is not the one that signed data and this machine give now, so"
                       " nothing was changed.", hint=f"Look at the new one: keyfit plan {brand}")


def fetch_here(context: Context, staging: Staging) -> Callable[[Payload], Path]:
    """Payloads from the repository into the staging directory, hashed once more on the way; the staged file of each."""
    return lambda payload: staging.holds(payload) or staging.take(payload, chunks_of(_fetch(context, payload)))


def _fetch(context: Context, payload: Payload) -> Path:
    return context.repository.payload(
        payload, lambda done, total: context.reporter.progress(payload.file, done, total))


def _wait(context: Context, selection: Selection, wait: Wait, *, silent: bool) -> None:
    if not silent:
        wait_for(context, selection, wait)


def _verify(context: Context, selection: Selection, made: Plan, *, silent: bool) -> Verdict | None:
    """Prove that it works; None if there is no token to prove it with."""
    last = [w for w in made.waits if w.before == "verify"]
    if selection.device is None and not last:
        return None
    if silent and (last or selection.device is None):
        return None
    for wait in last:
        wait_for(context, selection, wait)
    context.reporter.stage("Checking that the token answers")
    end = context.clock.now() + ANSWER_TIMEOUT_S
    while True:
        device = current_device(context, selection)
        verdict = verification.examine(context, selection.brand, selection.model, device)
        broken = verdict.first_broken
        if verdict.works or broken is None or broken.id not in ("reader", "token") or context.clock.now() > end:
            return verdict
        context.bus.wait_for_change(0.5)


def current_device(context: Context, selection: Selection) -> Any:
    """The device of the selected brand that is on the bus now, or None."""
    for device in context.bus.devices():
        if selection.device is not None and (device.id_vendor, device.id_product) == (
                selection.device.id_vendor, selection.device.id_product):
            return device
        decision = context.index.decide(device)
        if decision.brand is not None and decision.brand.brand == selection.brand.brand:
            return device
    return None


def _judge(made: Plan, verdict: Verdict | None, messages: list[Message], *, kept: bool) -> Outcome:
    """Success is that the token answered. What does not answer has been taken back; what was pulled out has not."""
    if verdict is None:
        messages.append(Message(level="info", code="not-proven", text="The driver is in place; no token was plugged in"
                                " to prove that it works.", hint=f"Plug it in and run: keyfit verify {made.brand}"))
        return Outcome.DONE
    messages += verification.messages_of(verdict)
    broken = verdict.first_broken
    if verdict.works or broken is None:
        return Outcome.DONE
    if broken.id == "bus":
        messages.append(Message(level="warning", code="token-gone", text="The token was unplugged before it could be"
                                " checked. Its driver is in place.",
                                hint=f"Plug it in and run: keyfit verify {made.brand}"))
        return Outcome.NO_TOKEN
    if not kept:
        messages.append(Message(level="error", code="taken-back", text="The token did not answer, so everything was put"
                                " back as it was."))
    return Outcome.FAILED_UNCHANGED


def _hand_off(context: Context, selection: Selection, made: Plan, data: dict[str, Any], *, open_page: bool,
              language: str) -> list[Message]:
    reports = certificates.load_modules(context, selection.brand)
    data["certificate"] = certificates.describe(context, selection.brand, reports, made.handoff, language)
    if made.handoff is None or not open_page:
        return []
    return [certificates.open_hand_off(context, made.handoff, language)]


def refuse_blocked(blocked: tuple[Blocked, ...]) -> None:
    """Raise what stands in the way of a plan, if anything does."""
    if blocked:
        first = blocked[0]
        texts = " ".join(b.text + "." for b in blocked)
        raise BLOCK_ERRORS.get(first.code, UnsupportedError)(first.code, texts, hint=first.hint)


def _recover_first(context: Context) -> None:
    if context.facts.elevated and context.journal.open_transactions():
        context.reporter.stage("Taking back an interrupted change")
        transaction.recover(host=context.host, journal=context.journal, reporter=context.reporter)


def _about(context: Context, selection: Selection, made: Plan) -> tuple[Message, ...]:
    messages = [*selection.messages, *context.repository.notes()]
    messages += [Message(level="warning", code=b.code, text=b.text, hint=b.hint) for b in made.blocked]
    if not made.steps and not made.blocked:
        messages.append(Message(level="info", code="nothing-to-do", text="Nothing has to be changed."))
    return tuple(messages)


def _difference(wanted: Plan, made: Plan) -> str:
    for name, what in (("sequence", "the signed data is newer"), ("device", "another device is plugged in"),
                       ("host", "the system has changed"), ("steps", "what has to be done has changed"),
                       ("waits", "the token was plugged in or unplugged since")):
        if getattr(wanted, name) != getattr(made, name):
            return what
    return "the signed data has changed"
