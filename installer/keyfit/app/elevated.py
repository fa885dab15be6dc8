"""The caller's side of an elevated change: start the helper, serve it, and pass on what it says.

The helper verifies everything for itself; what is handed to it here is bytes, and a request that names what the user agreed to.
"""

from collections.abc import Callable
from typing import assert_never

from keyfit.app.context import Context
from keyfit.app.select import Selection
from keyfit.app.waiting import wait_for
from keyfit.core.text import clean
from keyfit.engine.helper.frames import Channel, ChannelClosed
from keyfit.engine.helper.messages import (
    CarriedOut,
    Device,
    Done,
    Failed,
    Found,
    Install,
    Missing,
    NeedFile,
    NeedPayload,
    News,
    Proof,
    Request,
    Stage,
    StepNews,
    Trouble,
    WaitFor,
    Went,
)
from keyfit.engine.staging import chunks_of
from keyfit.errors import BugError, ElevationError, KeyfitError, Outcome, UserError, WithdrawnError
from keyfit.model.catalog import Payload
from keyfit.model.plan import Plan, Wait
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice

DISMISSED, REFUSED = 126, 127
"""How pkexec(1) ends if the question for consent was closed, or answered wrongly or not at all."""
MAX_SHOWN = 1_000
"""Longest text of the helper's that is shown."""


def install_request(made: Plan, selection: Selection, *, offline: bool) -> Install:
    """The request for carrying out a plan that the user has agreed to."""
    return Install(brand=made.brand, sequence=made.sequence, plan=made.id, part=made.part, model=made.model,
                   device=_device(selection.device), by_device=selection.by_device, source="kit" if offline else "repository")


def ask_helper(context: Context, request: Request, verb: str, *, selection: Selection | None = None,
               prove: Callable[[], bool] = lambda: True) -> Done:
    """Have the elevated helper do what is asked, and serve it until it is done.

    Args:
        selection: whose token is waited for.
        prove: called when all steps are done; False has them taken back.

    Raises:
        ElevationError: there is no helper here, or the consent was refused.
        UserError: outcome CANCELLED.
        KeyfitError: what the helper said.
    """
    if context.elevator is None:
        raise ElevationError("not-elevated", "Changing the system needs administrator rights.",
                             hint=f"sudo keyfit {' '.join(filter(None, (verb, brand_of(request))))}")
    process = context.elevator.start(verb, brand_of(request))
    channel = Channel(process.incoming, process.outgoing)
    conversation = _Conversation(context, channel, selection, prove)
    try:
        try:
            channel.send(request)
        except ChannelClosed:
            pass  # its exit code says why
        return conversation.run()
    except KeyboardInterrupt:
        channel.stop_sending()
        process.hang_up()
        context.reporter.stage("Cancelled: taking back what was done")
        return conversation.run()
    except ChannelClosed:
        raise _ended(process.wait(), conversation.heard) from None
    finally:
        process.wait()


def brand_of(request: Request) -> str:
    """The brand that a request names, or ""."""
    return getattr(request, "brand", None) or ""


class _Conversation:
    """Serves one helper."""

    def __init__(self, context: Context, channel: Channel, selection: Selection | None, prove: Callable[[], bool]) -> None:
        self._context, self._channel, self._selection, self._prove = context, channel, selection, prove
        self.heard = False

    def run(self) -> Done:
        """Until its last word."""
        while True:
            news: News = self._channel.receive(News, patience_s=float("inf"))
            self.heard = True
            if isinstance(news, Done):
                return news
            if isinstance(news, Failed):
                raise _error(news)
            try:
                self._answer(news)
            except ChannelClosed:
                pass  # it has something to say about that

    def _answer(self, news: NeedFile | NeedPayload | Stage | StepNews | WaitFor | CarriedOut) -> None:
        match news:
            case NeedFile():
                self._file(news.path)
            case NeedPayload():
                self._payload(news.payload)
            case Stage():
                self._context.reporter.stage(clean(news.text, MAX_SHOWN))
            case StepNews():
                self._context.reporter.step(news.step_id, news.state, clean(news.text, MAX_SHOWN))
            case WaitFor():
                self._wait(news)
            case CarriedOut():
                self._channel.send(Proof(keep=self._prove()))
            case _:
                assert_never(news)

    def _file(self, path: str) -> None:
        try:
            data = self._context.repository.relay(path)
        except KeyfitError as error:
            self._channel.send(Trouble(code=error.code, message=error.message, hint=error.hint))
            return
        if data is None:
            self._channel.send(Missing())
            return
        self._channel.send(Found())
        self._channel.send_file((data,))

    def _payload(self, payload: Payload) -> None:
        try:
            self._context.repository.permit(payload)  # whether it may be used is for the helper to say
            path = self._context.repository.payload(
                payload, lambda done, total: self._context.reporter.progress(payload.file, done, total))
        except KeyfitError as error:
            self._channel.send(Trouble(code=error.code, message=error.message, hint=error.hint))
            return
        self._channel.send(Found())
        self._channel.send_file(chunks_of(path))

    def _wait(self, news: WaitFor) -> None:
        if self._selection is None:
            self._channel.send(Went(done=False))
            return
        try:
            wait_for(self._context, self._selection, Wait(kind=news.kind, before=news.before, text=clean(news.text, MAX_SHOWN)))
        except KeyfitError:
            self._channel.send(Went(done=False))
        else:
            self._channel.send(Went(done=True))


def _device(device: UsbDevice | None) -> Device | None:
    if device is None:
        return None
    return Device(id_vendor=device.id_vendor, id_product=device.id_product, bcd_device=device.bcd_device,
                  smart_card=device.has_class(CLASS_SMART_CARD))


def _error(failed: Failed) -> KeyfitError:
    message, hint = clean(failed.message, MAX_SHOWN), clean(failed.hint, MAX_SHOWN)
    if failed.reason:
        return WithdrawnError(failed.code, message, failed.reason, hint=hint)
    return KeyfitError(failed.code, message, hint=hint, outcome=failed.outcome)


def _ended(code: int, heard: bool) -> KeyfitError:
    """Why a helper ended without a last word."""
    if heard:
        return KeyfitError("helper-lost", "The elevated helper ended in the middle of its work.", outcome=Outcome.INTERRUPTED,
                           hint="Finish or take back what it was doing: keyfit recover")
    if code == DISMISSED:
        return ElevationError("elevation-dismissed", "The question for an administrator's consent was closed; nothing was"
                              " changed.", hint="Run the same command again and give the password that is asked for.")
    if code == REFUSED:
        return ElevationError("elevation-refused", "An administrator's consent was not given; nothing was changed.",
                              hint="Ask the administrator of this computer, or run the command as administrator.")
    if code < 0:
        return UserError("cancelled", "Cancelled; nothing was changed.", outcome=Outcome.CANCELLED)
    return BugError("helper-failed", f"The elevated helper ended with {code} before it said anything.",
                    hint="Install Keyfit again.")


