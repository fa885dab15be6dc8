"""Waiting for the user's hands: unplug, plug in, eject. The work goes on by itself."""

from keyfit.app.context import Context
from keyfit.app.select import Selection
from keyfit.errors import Outcome, UserError
from keyfit.model.plan import Wait
from keyfit.model.usb import CLASS_SMART_CARD

PATIENCE_S = 600.0
"""How long a person gets to find the token; after that the change is taken back."""
LOOK_AGAIN_S = 0.5
"""Upper bound between two looks at the bus, should an event be lost: keeps the promise to go on within a second."""


def wait_for(context: Context, selection: Selection, wait: Wait) -> None:
    """Block until it was done.

    Raises:
        UserError: outcome CANCELLED, it was not done within `PATIENCE_S`.
    """
    if _done(context, selection, wait):
        return
    context.reporter.wait(wait.kind, wait.text)
    end = context.clock.now() + PATIENCE_S
    while not _done(context, selection, wait):
        if context.clock.now() > end:
            raise UserError("waited-too-long", f"{wait.text} This was not done within {PATIENCE_S / 60:.0f} minutes.",
                            hint="Run the same command again when the token is at hand.", outcome=Outcome.CANCELLED)
        context.bus.wait_for_change(LOOK_AGAIN_S)


def _done(context: Context, selection: Selection, wait: Wait) -> bool:
    wanted = selection.device
    here = []
    for device in context.bus.devices():
        same = wanted is not None and (device.id_vendor, device.id_product) == (wanted.id_vendor, wanted.id_product)
        decision = context.index.decide(device)
        if same or (decision.brand is not None and decision.brand.brand == selection.brand.brand):
            here.append(device)
    if wait.kind == "unplug":
        return not here
    if wait.kind == "plug-in":
        return bool(here)
    return any(d.has_class(CLASS_SMART_CARD) for d in here)
