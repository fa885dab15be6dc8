"""What the trust package costs a command that needs no signed data."""

import subprocess
import sys


def test_nothing_heavy_is_imported_with_the_package() -> None:
    program = ("import sys, keyfit.trust, keyfit.trust.repository\n"
               "print(*sorted({m.partition('.')[0] for m in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"tuf", "securesystemslib", "requests", "urllib3", "cryptography", "truststore", "ssl",
                "http"} & set(done.stdout.split())
