"""What is said between the caller and the elevated helper: a closed set of typed messages (security C3).

The helper is asked for a verb with names and numbers that it looks up in its own signed data. No message to it holds a path, an
address, a command, an environment or a switch.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from keyfit.errors import Outcome
from keyfit.model.catalog import Payload
from keyfit.model.plan import Part, WaitKind
from keyfit.model.result import Message

Verb = Literal["install", "uninstall", "repair", "recover"]
VERBS: tuple[Verb, ...] = ("install", "uninstall", "repair", "recover")
"""Each has an action of its own with polkit."""

BrandName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,47}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Byte2 = Annotated[int, Meta(ge=0, le=0xFFFF)]
ShortText = Annotated[str, Meta(max_length=200)]
RepositoryFile = Annotated[str, Meta(pattern=r"^(metadata|targets)/(?!.*(\.\.|//))[a-z0-9][A-Za-z0-9._/-]{0,200}\Z")]


class Device(Struct, frozen=True, kw_only=True):
    """The token that the plan was made for. Numbers from its descriptor; they only choose among what the brand's signed data
    names.

    Attributes:
        smart_card: it has an interface of the smart-card class.
    """

    id_vendor: Byte2
    id_product: Byte2
    bcd_device: Byte2
    smart_card: bool


class Install(Struct, frozen=True, kw_only=True, tag="install"):
    """Make the plan anew from signed data, and carry it out if it is the one that was shown.

    Attributes:
        sequence: the version of the brand's data.
        plan: the id of the plan that the user agreed to.
        model: name of the model in the brand's data, or "".
        by_device: the signed data was found by the device's ids, not by the brand's name.
        source: which of its trusted roots has signed it: the repository's, or the one of offline kits.
    """

    brand: BrandName
    sequence: Annotated[int, Meta(ge=1, le=2**31)]
    plan: Sha256
    part: Part
    model: ShortText
    device: Device | None
    by_device: bool
    source: Literal["repository", "kit"]


class Uninstall(Struct, frozen=True, kw_only=True, tag="uninstall"):
    """Take back all that is on record for a brand."""

    brand: BrandName


class Repair(Struct, frozen=True, kw_only=True, tag="repair"):
    """Do again what is on record and gone, of one brand or of all."""

    brand: BrandName | None
    source: Literal["repository", "kit"]


class Recover(Struct, frozen=True, kw_only=True, tag="recover"):
    """Finish or take back what was interrupted."""


Request = Install | Uninstall | Repair | Recover
"""The first message; its kind has to be the verb that the helper was started for."""


class Found(Struct, frozen=True, kw_only=True, tag="found"):
    """The file that was asked for follows."""


class Missing(Struct, frozen=True, kw_only=True, tag="missing"):
    """There is no such file in the repository."""


class Trouble(Struct, frozen=True, kw_only=True, tag="trouble"):
    """It could not be fetched."""

    code: ShortText
    message: Annotated[str, Meta(max_length=2_000)]
    hint: Annotated[str, Meta(max_length=2_000)]


FileAnswer = Found | Missing | Trouble


class Went(Struct, frozen=True, kw_only=True, tag="went"):
    """The user has done what was waited for, or has not and never will."""

    done: bool


class Proof(Struct, frozen=True, kw_only=True, tag="proof"):
    """Whether what was carried out stays: False if the token did not answer."""

    keep: bool


class NeedFile(Struct, frozen=True, kw_only=True, tag="need-file"):
    """The helper asks for a file of the repository; it believes nothing of it but what its own root has signed."""

    path: RepositoryFile


class NeedPayload(Struct, frozen=True, kw_only=True, tag="need-payload"):
    """The helper asks for the bytes of a package or archive that it has verified data of."""

    payload: Payload


class Stage(Struct, frozen=True, kw_only=True, tag="stage"):
    """As `ports.Reporter.stage`."""

    text: str


class StepNews(Struct, frozen=True, kw_only=True, tag="step"):
    """As `ports.Reporter.step`."""

    step_id: str
    state: Literal["start", "done", "skip", "undo", "failed"]
    text: str


class WaitFor(Struct, frozen=True, kw_only=True, tag="wait"):
    """The user's hands are needed; answered by `Went`."""

    kind: WaitKind
    text: str
    before: str


class CarriedOut(Struct, frozen=True, kw_only=True, tag="carried-out"):
    """All steps are done; answered by `Proof`."""


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """The helper's last word: it ended well, as `model.result.OperationResult`.

    Attributes:
        kept: what was left alone because somebody else changed or needs it, one line each.
        changed: ids of steps that were done again, or notes of what `recover` did.
    """

    outcome: Outcome
    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    """The helper's last word: an error, as `errors.KeyfitError`.

    Attributes:
        reason: the publisher's own text by language, of a withdrawal.
    """

    outcome: Outcome
    code: str
    message: str
    hint: str
    reason: dict[str, str] = {}


News = NeedFile | NeedPayload | Stage | StepNews | WaitFor | CarriedOut | Done | Failed
"""Everything that the helper may say."""
