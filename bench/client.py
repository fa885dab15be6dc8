"""One client's work in a process of its own, for bench/repository.py: prints CPU and wall time of the work as JSON.

    python bench/client.py WHO WORK URL ROOT FOLDER TARGET [SEED]

WHO is `keyfit` or `stock`, which is python-tuf's own Updater with its own fetcher. SEED is a folder of metadata that Keyfit's
build carries. WORK is `lookup` (refresh, and the signed
hash of one target), `manifest` (that and the target itself) or `refresh`. What is imported is imported before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "installer"))
sys.modules["pkcs11"] = None  # type: ignore[assignment]  # of the publisher's tools: no client has it


def keyfit(work: str, url: str, root: bytes, folder: Path, target: str, seed: Path | None = None) -> Callable[[], None]:
    import tuf.ngclient  # noqa: F401

    import keyfit.trust.grants
    import keyfit.trust.metadata
    import keyfit.trust.payloads
    import keyfit.trust.session  # noqa: F401
    from keyfit.trust.repository import TufRepository

    def run() -> None:
        client = TufRepository(urls=[url], trusted_root=root, metadata_dir=folder / "metadata", cache_dir=folder / "files",
                               seed=seed)
        if work == "manifest":
            found: object = client.manifest(target)
        else:
            client.refresh()
            address = client._current
            found = address is not None and (work == "refresh" or address[1].target_info(target))
        if not found:
            raise SystemExit(f"{target} was not found")

    return run


def stock(work: str, url: str, root: bytes, folder: Path, target: str) -> Callable[[], None]:
    from tuf.ngclient import Updater

    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "files").mkdir(exist_ok=True)

    def run() -> None:
        updater = Updater(str(folder / "metadata"), url + "metadata/", str(folder / "files"), url + "targets/", bootstrap=root)
        updater.refresh()
        if work == "refresh":
            return
        info = updater.get_targetinfo(target)
        if info is None:
            raise SystemExit(f"{target} was not found")
        if work == "manifest":
            updater.download_target(info)

    return run


def main() -> None:
    who, work, url, root, folder, target, *seed = sys.argv[1:]
    given = work, url, Path(root).read_bytes(), Path(folder), target
    run = keyfit(*given, *map(Path, seed)) if who == "keyfit" else stock(*given)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    print(json.dumps({"cpu_ms": (time.process_time() - cpu) * 1000, "wall_ms": (time.perf_counter() - wall) * 1000}))


if __name__ == "__main__":
    main()
