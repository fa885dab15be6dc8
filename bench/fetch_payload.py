"""A client that fetches one driver file, in a process of its own, for bench/payload.py.

    python bench/fetch_payload.py URL ROOT FOLDER TARGET          # the signed manifest, and the file that it names
    python bench/fetch_payload.py URL ROOT FOLDER PATH LENGTH     # only the file, by its path below payloads/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "installer"))
sys.modules["pkcs11"] = None  # type: ignore[assignment]  # of the publisher's tools: no client has it

from keyfit.__main__ import _import_msgspec  # noqa: E402

_import_msgspec()  # as every run of the program does first

from keyfit.model.catalog import Payload  # noqa: E402
from keyfit.trust.repository import TufRepository  # noqa: E402

url, root, folder, what, *length = sys.argv[1:]
client = TufRepository(urls=[url], trusted_root=Path(root).read_bytes(), metadata_dir=Path(folder) / "metadata",
                       cache_dir=Path(folder) / "files")
if length:
    _, sha256, name = what.split("/")
    payload: Payload | None = Payload(file=name, sha256=sha256, length_bytes=int(length[0]))
else:
    manifest = client.manifest(what)
    payload = manifest.brands[0].package[0].payload if manifest else None
if payload is None:
    raise SystemExit(f"{what} names no file")
print(client.payload(payload))
