"""`keyfit-publish status`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR

if TYPE_CHECKING:
    from keyfit.publisher.release import Workplace

RENEWED_BY = {"timestamp": "refresh", "snapshot": "refresh", "bins": "release", "drivers": "release", "targets": "release",
              "app": "release", "brand": "release", "root": "rotate DIR root"}
"""Kind of role -> the command that signs it anew."""


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@common
def command(folder: Path) -> OperationResult:
    """Say what expires when, whose keys are here, and who must sign what is waiting.

    Example: keyfit-publish status /srv/keyfit
    """
    from keyfit.publisher.output import done
    from keyfit.publisher.release import Workplace
    from keyfit.publisher.roles import MEDIA, ONLINE

    places = {"online": Workplace(folder, layout=ONLINE), "media": Workplace(folder, layout=MEDIA)}
    places["online"].require()
    data: dict[str, Any] = {}
    lines: list[str] = []
    warnings: list[Message] = []
    for name, work in places.items():
        work.settle()
        roles = _roles(work) if work.repository.exists() else []
        waiting = _waiting(work)
        data[name] = {"roles": roles, "waiting": waiting}
        lines += [f"{'Served repository' if name == 'online' else 'Offline kits'}:", *map(_row, roles), *map(_wait_row, waiting)]
        warnings += [w for role in roles for w in _warnings(role)]
    data["rollouts"] = [s.brand for s in places["online"].state.current().values() if s.staged is not None]
    if data["rollouts"]:
        lines.append("Only a share of the machines gets the newest: " + ", ".join(data["rollouts"]))
    return done("status", data, *lines, warnings=tuple(warnings))


def _roles(work: "Workplace") -> list[dict[str, Any]]:
    from keyfit.publisher.roles import brand_role, parent_of

    repository = work.repository
    names = ["root", "targets", *(["app"] if repository.layout.has_app else []),
             *map(brand_role, repository.delegated_brands()), "drivers", "snapshot", "timestamp"]
    rows = [_about(work, name, repository.load(name).signed, repository.load(parent_of(name)).signed) for name in names]
    bins = sorted((repository.load(name).signed for name in repository.bin_names()), key=lambda s: s.expires)
    row = _about(work, "bins", bins[0], repository.load("drivers").signed, a_bin=next(iter(repository.bin_names())))
    return [*rows, row]


def _about(work: "Workplace", name: str, signed: Any, delegator: Any, a_bin: str = "") -> dict[str, Any]:
    from keyfit.publisher.roles import kind_of

    role = delegator.get_delegated_role(a_bin or name)
    entries = {entry.keyid: entry for entry in work.keyring.entries()}
    life = work.repository.layout.life_days[kind_of(name)]
    left = (signed.expires - datetime.now(UTC)).total_seconds() / 86_400
    return {"role": name, "owner": work.layout.owners.get(name, name), "version": signed.version,
            "expires": signed.expires.isoformat(), "days_left": round(left, 1),
            "ageing": left < life / 2, "needed": role.threshold, "renew_with": RENEWED_BY[kind_of(name)],
            "keys": [{"name": entries[k].name if k in entries else k[:12],
                      "here": k in entries and work.keyring.has(k)} for k in role.keyids]}


def _waiting(work: "Workplace") -> list[dict[str, Any]]:
    request = work.pending()
    if request is None:
        return []
    names = {entry.keyid: name for name, entry in request.keys.items()}
    lacking = work.resume(request).missing()
    return [{"request": str(work.request_file), "role": m.role, "needed": m.needed,
             "keys": [names.get(k, k[:12]) for k in m.keyids]} for m in lacking if not _later_bin(m.role, lacking)]


def _later_bin(role: str, lacking: Any) -> bool:
    """Bins are told of once."""
    from keyfit.publisher.roles import is_bin

    return is_bin(role) and role != next(m.role for m in lacking if is_bin(m.role))


def _row(role: dict[str, Any]) -> str:
    here = sum(key["here"] for key in role["keys"])
    return (f"  {role['role']:<12} version {role['version']:<5} until {role['expires'][:10]} ({role['days_left']:g} days)"
            f"  {role['needed']} of {len(role['keys'])} keys, {here} here")


def _wait_row(row: dict[str, Any]) -> str:
    return f"  waits: {row['role']} needs {row['needed']} more, by {', '.join(row['keys'])} ({row['request']})"


def _warnings(role: dict[str, Any]) -> list[Message]:
    """What to look at. That one person alone may sign what lasts is a risk (security K1)."""
    if role["needed"] < 2 and role["role"] in ("root", "targets", "app", "drivers"):
        weak = [Message(level="warning", code="weak-threshold", text=f"One key alone may sign {role['role']}.",
                        hint=f"keyfit-publish rotate DIR {role['owner']} --make 2 --needed 2")]
        return weak + _age_warnings(role)
    return _age_warnings(role)


def _age_warnings(role: dict[str, Any]) -> list[Message]:
    if role["days_left"] <= 0:
        return [Message(level="warning", code="expired", text=f"{role['role']} has expired: clients refuse it.",
                        hint=f"keyfit-publish {role['renew_with']}")]
    if role["ageing"] and role["role"] != "timestamp":
        return [Message(level="warning", code="ageing", text=f"{role['role']} has {role['days_left']:g} days left.",
                        hint=f"keyfit-publish {role['renew_with']}")]
    return []
