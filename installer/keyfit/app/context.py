"""What every use case is given: the ports, made by the composition root, the slow ones only when first used."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from keyfit.core.match import MatchIndex
from keyfit.errors import HostError
from keyfit.model.catalog import Catalog
from keyfit.model.host import HostFacts
from keyfit.model.policy import Policy
from keyfit.model.result import OperationResult
from keyfit.ports import Clock, Elevator, EventLog, Host, NullLog, Reporter, Repository, TokenReader, UsbBus

if TYPE_CHECKING:
    from keyfit.engine.journal import Journal  # lazily: `devices` needs no database


Keep = Callable[[Repository, float, OperationResult], None]
"""Keeps the answer to a check for updates that began at a time, for the cheap check."""


class Context:
    """The ports and the shipped catalog.

    Args:
        open_tokens: makes the reader of tokens; called once, when a use case first asks a token.
        open_repository: makes the repository; called once, when a use case first needs signed data.
        open_journal: makes the journal; called once, when a use case first needs the record.
        open_page: opens a page in the user's browser; False if there is no graphical session.
        elevator: starts the elevated helper, where there is one.
        require_safe_program: raises if somebody else than the administrator could have put this program's code where it is;
            called before a process with all rights changes the machine.
        load_policy: reads the administrator's policy; called once, when a use case first needs it.
        begin_check: called when a check for updates begins; what it returns is called with the answer.
        log: of the commands that change something.
    """

    def __init__(self, *, bus: UsbBus, host: Host, open_tokens: Callable[[], TokenReader], load_catalog: Callable[[], Catalog],
                 open_repository: Callable[[], Repository], open_journal: Callable[[], "Journal"],
                 open_page: Callable[[str], bool], clock: Clock, reporter: Reporter,
                 load_policy: Callable[[], Policy] = Policy, elevator: Elevator | None = None,
                 require_safe_program: Callable[[], None] = lambda: None,
                 begin_check: Callable[[], Keep] = lambda: lambda *_: None, log: EventLog | None = None) -> None:
        self.bus = bus
        self.host = host
        self.clock = clock
        self.reporter = reporter
        self.open_page = open_page
        self._load_catalog = load_catalog
        self._open_tokens = open_tokens
        self._open_repository = open_repository
        self._open_journal = open_journal
        self._load_policy = load_policy
        self.elevator = elevator
        self.require_safe_program = require_safe_program
        self.begin_check = begin_check
        self.log = log or NullLog()

    @cached_property
    def catalog(self) -> Catalog:
        """The brands shipped with the program, for naming devices."""
        return self._load_catalog()

    @cached_property
    def index(self) -> MatchIndex:
        """The shipped brands, arranged for matching."""
        return MatchIndex(self.catalog.brands)

    @cached_property
    def facts(self) -> HostFacts:
        """Facts about the machine, read once."""
        return self.host.facts()

    @cached_property
    def tokens(self) -> TokenReader:
        """PC/SC and PKCS#11."""
        return self._open_tokens()

    @cached_property
    def repository(self) -> Repository:
        """The signed repository, refreshed once before its first use."""
        repository = self._open_repository()
        self.reporter.stage("Fetching signed data")
        repository.refresh()
        return repository

    @cached_property
    def journal(self) -> "Journal":
        """The record of what was done."""
        return self._open_journal()

    @cached_property
    def policy(self) -> Policy:
        """What the administrator has decided.

        Raises:
            PolicyError: the policy is not understood, or is not the administrator's.
        """
        return self._load_policy()

    @cached_property
    def installed(self) -> Mapping[str, int]:
        """Brand -> sequence of the signed data that is installed, by the record.

        An ordinary user of a machine where that cannot be read is shown a plan as if nothing were known; it is made anew,
        with the record, before it is carried out.
        """
        try:
            return self.journal.installed()
        except HostError:
            if self.facts.elevated:
                raise
            return {}
