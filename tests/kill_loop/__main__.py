"""`python -m tests.kill_loop`: kill, recover, compare; print the tally. Exit code 1 if anything was neither old nor new."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.kill_loop import simulated, tree
from tests.kill_loop.tally import Tally


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_loop", description=__doc__)
    parser.add_argument("--moments", type=int, default=500, help="how many random moments of each machine (default: 500)")
    parser.add_argument("--seed", type=int, default=None, help="to have the same random moments again")
    parser.add_argument("--only", choices=("simulated", "tree"), help="only one of the machines")
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None,
                        help="where the machines lie; in memory by default, because of the many syncs")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    os.environ["HOME"] = "/root"
    for name in ("SUDO_UID", "PKEXEC_UID"):
        os.environ.pop(name, None)
    tally, begun = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keyfit-kill-loop-", dir=options.folder) as folder:
        if options.only != "tree":
            run_simulated(Path(folder) / "simulated", tally, options.moments, random.Random(seed))
        if options.only != "simulated":
            run_tree(Path(folder) / "tree", tally, options.moments, random.Random(seed))
    print(tally.table())
    print(f"{time.monotonic() - begun:.0f} s, seed {seed}")
    for text in tally.failures:
        print(text)
    return 1 if tally.failures else 0


def run_simulated(folder: Path, tally: Tally, moments: int, chance: random.Random) -> None:
    """Every moment of the simulated machine, and random ones."""
    loop = simulated.Loop(folder, tally)
    for verb in simulated.VERBS[:-1]:
        loop.every_moment(verb)
    loop.every_moment_of_recover()
    loop.random_moments(moments, chance)


def run_tree(folder: Path, tally: Tally, moments: int, chance: random.Random) -> None:
    """Beside every commit in a tree, every call of dpkg, and random calls."""
    loop = tree.Loop(folder, tally)
    for verb in tree.VERBS:
        loop.every_boundary(verb)
    for verb in ("install", "upgrade", "uninstall", "recover"):
        loop.every_call_of_dpkg(verb)
    loop.random_moments(moments, chance)


if __name__ == "__main__":
    sys.exit(main())
