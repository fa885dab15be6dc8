"""Pictures of the site for people to look at: `python -m tests.site.shots ADDRESS FOLDER`."""

import sys
import tempfile
from pathlib import Path

from .browser import started

PAGES = ("index", "brands", "pictures", "numbers", "changes", "check", "brand/icbc-feitian", "brand/acs-cryptomate",
         "brand/token2", "id/072f-b200", "id/096e-080a")


def main(address: str, folder: Path) -> None:
    """Each page in each language, light and dark, on a desktop and on a small telephone."""
    with tempfile.TemporaryDirectory() as temporary, started(Path(temporary)) as browser:
        for name in ("", *(f"{language}/{page}.html" for language in ("zh", "en") for page in PAGES)):
            for width in (1100, 320):
                for dark in (False, True):
                    browser.screen(width, dark=dark)
                    browser.go(address + name)
                    label = name.removesuffix(".html").replace("/", "-") or "landing"
                    browser.picture(folder / f"{label}-{width}-{'dark' if dark else 'light'}.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
