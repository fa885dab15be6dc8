"""A signing request: a draft in one file that people carry from machine to machine, each adding a signature.

The file holds the new metadata with the signatures so far, which keys may sign what, and a summary for the people who
sign. It is not trusted: what is published is checked again against the repository's own root and delegations.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from keyfit.errors import DataError, UserError
from keyfit.privatefiles import write_private
from keyfit.publisher.draft import Draft, Missing, Sign, count_bins
from keyfit.publisher.keyring import KeyEntry, Keyring
from keyfit.publisher.roles import is_bin

MAX_BYTES = 200_000_000
"""A whole release of 100 000 manifests is about 15 MB."""


class Signable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One role: its metadata, how many signatures it needs and by which keys (names as in the keyring)."""

    metadata: msgspec.Raw
    threshold: int
    keys: tuple[str, ...]


class SigningRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `keys` is name -> key."""

    keyfit: Literal[1]
    id: str
    summary: tuple[str, ...]
    changed_targets: int
    targets: int | None
    keys: dict[str, KeyEntry]
    roles: dict[str, Signable]

    def metadata(self) -> dict[str, Metadata[Any]]:
        """role -> metadata with its signatures.

        Raises:
            DataError: code "request-invalid".
        """
        try:
            return {role: Metadata.from_bytes(bytes(signable.metadata)) for role, signable in self.roles.items()}
        except RepositoryError as error:
            raise DataError("request-invalid", f"The signing request holds what is no metadata: {error}.") from error


def write_request(path: Path, draft: Draft, summary: tuple[str, ...], keyring: Keyring, number: str) -> SigningRequest:
    """Save a draft as a signing request."""
    known = {entry.keyid: entry for entry in keyring.entries()}
    wanted = draft.wanted_keys()
    entries = {keyid: known.get(keyid) or KeyEntry(name=keyid[:12], keyid=keyid, location="", public=key.to_dict())
               for keys in wanted.values() for keyid, key in keys.items()}
    roles = {role: Signable(metadata=msgspec.Raw(draft.repository.serialize(metadata)),
                            threshold=threshold_of(draft, role), keys=tuple(entries[k].name for k in wanted[role]))
             for role, metadata in draft.roles.items()}
    request = SigningRequest(keyfit=1, id=number, summary=summary, changed_targets=draft.changed_targets,
                             targets=draft.targets, roles=roles, keys={e.name: _shown(e) for e in entries.values()})
    save(path, request)
    return request


def save(path: Path, request: SigningRequest) -> None:
    """Write the file, readable by its owner alone."""
    write_private(path, msgspec.json.encode(request))


def read_request(path: Path) -> SigningRequest:
    """Read a signing request.

    Raises:
        UserError: it cannot be read.
        DataError: it is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError("no-such-file", f"The signing request {path} cannot be read: {error.strerror}.") from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        return msgspec.json.decode(data, type=SigningRequest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DataError("request-invalid", f"{path} is no signing request: {error}.",
                        hint="release, rotate, delegate and revoke leave one in DIR/request/request.json.") from error


def add_signatures(request: SigningRequest, sign: Sign) -> tuple[SigningRequest, dict[str, int]]:
    """Sign what the keys of `sign` may sign, away from the repository; also says how many signatures of each role kind
    were added."""
    added: dict[str, int] = {}
    roles = dict(request.roles)
    for role, metadata in request.metadata().items():
        signable = request.roles[role]
        before = len(metadata.signatures)
        for name in signable.keys:
            keyid = request.keys[name].keyid
            if keyid not in metadata.signatures:
                signature = sign(keyid, metadata.signed_bytes)
                if signature is not None:
                    metadata.signatures[keyid] = signature
        if len(metadata.signatures) > before:
            kind = "bins" if is_bin(role) else role
            added[kind] = added.get(kind, 0) + len(metadata.signatures) - before
            roles[role] = msgspec.structs.replace(signable, metadata=msgspec.Raw(metadata.to_bytes()))
    return msgspec.structs.replace(request, roles=roles), added


def request_facts(request: SigningRequest) -> tuple[str, ...]:
    """What the metadata in a request says, whatever its summary does: versions, dates, keys, and how many targets."""
    lines, bins, targets = [], 0, 0
    for role, metadata in request.metadata().items():
        signed = metadata.signed
        if is_bin(role):
            bins, targets = bins + 1, targets + len(signed.targets)
            continue
        line = f"{role}: version {signed.version}, until {signed.expires:%Y-%m-%d}"
        if isinstance(signed, Root):
            line += "; " + ", ".join(f"{name} {each.threshold} of {len(each.keyids)}" for name, each in signed.roles.items())
        elif isinstance(signed, Targets):
            named = [f"{d.name} {d.threshold} of {len(d.keyids)}" for d in (
                (signed.delegations.roles or {}).values() if signed.delegations else ())]
            bins_role = signed.delegations.succinct_roles if signed.delegations else None
            named += [f"bins {bins_role.threshold} of {len(bins_role.keyids)}"] if bins_role else []
            line += f"; {len(signed.targets)} targets" + ("; " + ", ".join(named) if named else "")
        lines.append(line)
    return (*lines, *([f"{bins} bins with {targets} targets"] if bins else []))


def lacking_words(lacking: Iterable[Missing], names: Mapping[str, str]) -> tuple[str, ...]:
    """What is still missing, one line a role, the bins in one.

    Args:
        names: key id -> the key's name.
    """
    lacking = list(lacking)
    bins = count_bins(m.role for m in lacking)
    lines, seen = [], False
    for one in lacking:
        if is_bin(one.role):
            if seen:
                continue
            seen = True
        what = f"{bins} bins" if is_bin(one.role) else one.role + (f" (for the {one.by})" if one.by else "")
        who = ", ".join(sorted(names.get(keyid, keyid[:12]) for keyid in one.keyids))
        lines.append(f"{what}: {one.needed} more signature{'s' if one.needed > 1 else ''}, by {who}")
    return tuple(lines)


def threshold_of(draft: Draft, role: str) -> int:
    """How many signatures a role's delegator asks for."""
    from keyfit.publisher.roles import parent_of

    delegator = draft.now(parent_of(role)) if role != "root" else draft.now("root")
    return int(delegator.get_delegated_role(role).threshold)


def _shown(entry: KeyEntry) -> KeyEntry:
    """Without the place of a key file on this machine."""
    return msgspec.structs.replace(entry, location="") if entry.location.startswith("file:") else entry
