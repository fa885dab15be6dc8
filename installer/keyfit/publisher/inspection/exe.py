"""Windows programs that install something. Only the outer file is seen: what installers pack into themselves has no
common form, so the signature has to stand for it."""

from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.findings import Findings
from keyfit.publisher.inspection.pe import inspect_binary
from keyfit.publisher.inspection.reports import ExeReport
from keyfit.publisher.inspection.source import Source


def inspect(source: Source, trust: Trust) -> ExeReport:
    """Read a program.

    Raises:
        Malformed: it is none.
    """
    findings = Findings()
    binary = inspect_binary(source, "", trust)
    if binary.kernel:
        findings.problem("expected a program that runs, came a driver or native system program")
    findings.note("what the installer packs into itself cannot be looked at; its signature stands for it")
    return ExeReport(binary=binary, problems=findings.problems, notes=findings.notes)
