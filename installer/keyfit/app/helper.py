"""The elevated helper's side: one request, verified against signed data of its own, carried out, and that is all.

It believes nothing of what it is told. Which brand, model and version are meant it looks up in data that its own trusted root
has signed; the plan it makes itself, on this machine as it is now, and goes on only if that is the very plan that the user was
shown (security A3, C3, J1).
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, assert_never

from msgspec.structs import replace

from keyfit.app import maintain
from keyfit.app.context import Context
from keyfit.app.install import carry_out_here, make_plan, outdated, refuse_blocked
from keyfit.app.select import Selection, select_named
from keyfit.engine import transaction
from keyfit.engine.helper.frames import BadFrame, Channel, ChannelClosed
from keyfit.engine.helper.messages import (
    CarriedOut,
    Device,
    Done,
    Failed,
    FileAnswer,
    Found,
    Install,
    Missing,
    NeedFile,
    NeedPayload,
    Proof,
    Recover,
    Repair,
    Request,
    Stage,
    StepNews,
    Trouble,
    Uninstall,
    Verb,
    WaitFor,
    Went,
)
from keyfit.engine.staging import Staging
from keyfit.errors import BugError, KeyfitError, NetworkError, Outcome, UserError, WithdrawnError
from keyfit.model.catalog import Payload, brand_target, device_target
from keyfit.model.plan import Wait
from keyfit.model.result import Message, OperationResult
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice, UsbInterface
from keyfit.ports import RunLog

MAX_FILE_BYTES = 5_000_000
"""As `trust.repository` relays at most."""
PROOF_PATIENCE_S = 1_200.0
"""How long the caller may take to see whether the token answers: longer than it waits for a person to plug it in."""
HANDS_PATIENCE_S = 900.0
REQUEST_PATIENCE_S = 60.0


def receive_request(channel: Channel, verb: Verb, brand: str) -> Request:
    """The request, which has to be what the helper was started for: that is what the administrator was shown.

    Raises:
        BadFrame: it is not.
        ChannelClosed: there is none.
    """
    kinds: dict[Verb, type[Install | Uninstall | Repair | Recover]] = {
        "install": Install, "uninstall": Uninstall, "repair": Repair, "recover": Recover}
    request: Request = channel.receive(kinds[verb], patience_s=REQUEST_PATIENCE_S)
    named = request.brand if not isinstance(request, Recover) else ""
    if (named or "") != brand:
        raise BadFrame("the request is for another brand than the one that was agreed to")
    return request


def serve(request: Request, context: Context, channel: Channel, log: RunLog) -> None:
    """Do what is asked, say how it ended, and note it in `log`."""
    try:
        done = _carried_out(request, context, channel)
    except KeyfitError as error:
        log.event("error", "run-ended", outcome=error.outcome.value, errors=[f"{error.code}: {error.message}"])
        say_failed(channel, error)
        return
    except KeyboardInterrupt:
        log.event("error", "run-ended", outcome=Outcome.CANCELLED.value)
        say_failed(channel, UserError("cancelled", "Cancelled.", outcome=Outcome.CANCELLED))
        return
    log.event("info", "run-ended", outcome=done.outcome.value)
    if log.problem:
        told = Message(level="warning", code="no-log", text=log.problem, hint="The change itself is not affected.")
        done = replace(done, messages=(*done.messages, told))
    with suppress(ChannelClosed):  # nobody is left to be told
        channel.send(done)


def say_failed(channel: Channel, error: KeyfitError) -> None:
    """The last word of a helper that could not do it."""
    reason = error.reason if isinstance(error, WithdrawnError) else {}
    with suppress(ChannelClosed):
        channel.send(Failed(outcome=error.outcome, code=error.code, message=error.message, hint=error.hint, reason=reason))


def _carried_out(request: Request, context: Context, channel: Channel) -> Done:
    match request:
        case Install():
            return _install(request, context, channel)
        case Uninstall():
            return _done(maintain.uninstall_here(context, request.brand))
        case Repair():
            with Staging(context.journal.state_dir) as staging:
                return _done(maintain.repair_here(context, request.brand, _fetch(context, channel, staging)))
        case Recover():
            return _done(maintain.recover_here(context))
        case _:
            assert_never(request)


def _done(result: OperationResult) -> Done:
    return Done(outcome=result.outcome, messages=result.messages, kept=tuple(result.data.get("kept", ())),
                changed=tuple(result.data.get("repaired", result.data.get("recovered", ()))))


def _install(request: Install, context: Context, channel: Channel) -> Done:
    if context.journal.open_transactions():
        context.reporter.stage("Taking back an interrupted change")
        transaction.recover(host=context.host, journal=context.journal, reporter=context.reporter)
    selection = _selection(request, context)
    made = make_plan(context, selection, request.part)
    if made.id != request.plan or made.sequence != request.sequence:
        raise outdated(request.brand)
    refuse_blocked(made.blocked)
    with Staging(context.journal.state_dir) as staging:
        outcome = carry_out_here(context, made, fetch=_fetch(context, channel, staging),
                                 wait=lambda wait: _wait(channel, wait), prove=lambda: _prove(channel))
    return Done(outcome=outcome)


def _selection(request: Install, context: Context) -> Selection:
    device, facts = _device(request.device), context.facts
    if request.by_device and device is not None:
        target = device_target(device.id_vendor, device.id_product, facts.system, facts.architecture)
    else:
        target = brand_target(request.brand, facts.system, facts.architecture)
    return select_named(context, target, request.brand, request.model, device)


def _device(told: Device | None) -> UsbDevice | None:
    if told is None:
        return None
    interfaces = (UsbInterface(b_interface_number=0, b_interface_class=CLASS_SMART_CARD, b_interface_sub_class=0,
                               b_interface_protocol=0),) if told.smart_card else ()
    return UsbDevice(id_vendor=told.id_vendor, id_product=told.id_product, bcd_device=told.bcd_device, interfaces=interfaces)


def ask_for_file(channel: Channel) -> Callable[[str], bytes | None]:
    """For `trust.relay.RelayTransport`: files of the repository, from the caller."""
    def ask(path: str) -> bytes | None:
        channel.send(NeedFile(path=path))
        if not _comes(channel, path):
            return None
        data = bytearray()
        for chunk in channel.file():
            data += chunk
            if len(data) > MAX_FILE_BYTES:
                raise BadFrame(f"more than {MAX_FILE_BYTES} bytes came for {path}")
        return bytes(data)
    return ask


def _fetch(context: Context, channel: Channel, staging: Staging) -> Callable[[Payload], Path]:
    """Payloads, once each: from the caller into the staging directory."""
    def fetch(payload: Payload) -> Path:
        held = staging.holds(payload)
        if held is not None:
            return held
        context.repository.check_not_withdrawn(payload)
        channel.send(NeedPayload(payload=payload))
        if not _comes(channel, payload.file):
            raise NetworkError("repository-file-missing", f"There is no {payload.file}.", hint="Ask the publisher.")
        return staging.take(payload, channel.file())
    return fetch


def _comes(channel: Channel, name: str) -> bool:
    answer: FileAnswer = channel.receive(FileAnswer)
    match answer:
        case Found():
            return True
        case Missing():
            return False
        case Trouble():
            raise NetworkError(answer.code, answer.message, hint=answer.hint)
        case _:
            assert_never(answer)


def _wait(channel: Channel, wait: Wait) -> None:
    channel.send(WaitFor(kind=wait.kind, text=wait.text, before=wait.before))
    went: Went = channel.receive(Went, patience_s=HANDS_PATIENCE_S)
    if not went.done:
        raise UserError("waited-too-long", f"{wait.text} This was not done.", outcome=Outcome.CANCELLED,
                        hint="Run the same command again when the token is at hand.")


def _prove(channel: Channel) -> bool:
    """What the caller saw. If it is gone, what was done stays: nobody has said that it does not work."""
    try:
        channel.send(CarriedOut())
        proof: Proof = channel.receive(Proof, patience_s=PROOF_PATIENCE_S)
    except (ChannelClosed, BadFrame):
        return True
    return proof.keep


class ChannelReporter:
    """Tells the caller. When nobody listens any more, the work is taken back at the next step."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gone = False

    def stage(self, text: str) -> None:
        """See `ports.Reporter`."""
        self._tell(Stage(text=text))

    def step(self, step_id: str, state: Literal["start", "done", "skip", "undo", "failed"], text: str) -> None:
        """See `ports.Reporter`.

        Raises:
            KeyboardInterrupt: a step begins, and the caller is gone.
        """
        self._tell(StepNews(step_id=step_id, state=state, text=text))
        if state == "start" and (self._gone or self._channel.is_closed()):
            raise KeyboardInterrupt

    def progress(self, what: str, done: int, total: int) -> None:
        """The caller sees for itself how far it is."""

    def wait(self, kind: str, text: str) -> None:
        """Said with the question itself."""

    def confirm(self, text: str) -> bool:
        """Nobody is asked here: the user was, and so was an administrator."""
        raise BugError("helper-asked", "The elevated helper has nobody to ask.")

    def _tell(self, news: Stage | StepNews) -> None:
        try:
            self._channel.send(news)
        except ChannelClosed:
            self._gone = True
