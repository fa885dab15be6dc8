"""keyfit plan."""

from pathlib import Path
from typing import Any

import click
import msgspec

from keyfit.app import install as use_case
from keyfit.errors import StorageError
from keyfit.model.plan import Part
from keyfit.model.result import OperationResult
from keyfit.ui.cli import Session
from keyfit.ui.options import common, merge, part_option, source_option
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter


@click.command(epilog="Example: keyfit plan --out plan.json")
@click.argument("brand", required=False)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Save the plan here.")
@part_option
@source_option
@common
@click.pass_obj
def command(session: Session, /, brand: str | None, out: Path | None, part: Part | None, **given: Any) -> int:
    """Exactly what `install` would change and why, without changing anything."""
    merge(session.options, given)
    context = session.compose(session.options, SilentReporter(False))
    result = use_case.plan(context, brand, part=part or "all")
    if out is not None:
        save(out, result.data["plan"])
    return emit(result, session.options, lambda r: render(r.data["plan"]))


def save(path: Path, plan: dict[str, Any]) -> None:
    """Write the plan so that `apply` takes it."""
    saved = {**plan, "steps": [{k: v for k, v in s.items() if k != "kind"} for s in plan["steps"]]}
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n")
    except OSError as error:
        raise StorageError("cannot-write", f"The plan cannot be written to {path}: {error.strerror}.",
                           hint="Name another file with --out.") from error


def render(plan: dict[str, Any]) -> str:
    """The plan as text."""
    token = ", ".join(name for name in (plan["brand_name"], plan["model"]) if name)
    lines = [f"{token}, by {plan['vendor']}",
             f"plan {plan['id'][:16]}, from {plan['target']} number {plan['sequence']}"]
    for number, step in enumerate(plan["steps"], 1):
        lines += [f"  {number}. {step['action']}", f"       why:  {step['reason']}", f"       undo: {step['undo']}"]
        if step["size_bytes"]:
            lines.append(f"       download: {step['size_bytes'] / 1000:.0f} kB")
    lines += [f"  you: {wait['text']}" for wait in plan["waits"]]
    lines += [f"  as it is: {text}" for text in plan["satisfied"]]
    if plan["handoff"]:
        lines.append(f"  then: {plan['handoff']['page']}")
    if not plan["steps"]:
        lines.append("  nothing to change")
    return "\n".join(lines)


def render_result(result: OperationResult) -> str:
    """The plan of a dry run, or the chain after an install."""
    if result.data.get("dry_run"):
        return render(result.data["plan"])
    verdict = result.data.get("verdict")
    return chain(verdict) if verdict else ""


def chain(verdict: dict[str, Any]) -> str:
    """The links, one line each."""
    marks = {"ok": "ok", "broken": "BROKEN", "not-checked": "-", "not-needed": "not needed"}
    return "\n".join(f"  {link['id']:<17} {marks[link['state']]:<11} {link['text']}" for link in verdict["links"])
