"""`python -m tests.vm.bench`: build what the tests need, so that the first of them does not have to wait."""

from __future__ import annotations

import sys
import time

from tests.vm.bench.host import BenchError
from tests.vm.bench.image import build_image
from tests.vm.bench.qemu import Hardware
from tests.vm.bench.states import base_state


def main() -> int:
    """Build the image and the base states; print how long each took."""
    try:
        began = time.monotonic()
        image = build_image()
        print(f"image      {time.monotonic() - began:6.1f} s  {image.root}")
        for hardware in (Hardware(), Hardware(durable=True)):
            began = time.monotonic()
            state = base_state(image, hardware)
            kind = "durable" if hardware.durable else "plain"
            print(f"{kind:10} {time.monotonic() - began:6.1f} s  {state.folder}")
    except BenchError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
