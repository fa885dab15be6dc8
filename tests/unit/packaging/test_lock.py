"""What is installed beside Keyfit's own code is exactly what was reviewed."""

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def locked() -> dict[str, str]:
    """Name -> its whole entry in requirements.lock."""
    text = (CHECKOUT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {re.split(r"[\[=; ]", entry)[0].lower().replace("_", "-"): entry for entry in entries}


def test_k2_everything_is_locked_to_one_version_with_its_hashes() -> None:
    """K2: and nothing that the project asks for is left out of the lock."""
    entries = locked()
    assert len(entries) > 20
    for name, entry in entries.items():
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==[^ ]+ ", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name
        assert not re.search(r"--hash=(?!sha256:)|://", entry), name

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    assert {re.split(r"[\[<>=; ]", each)[0].lower().replace("_", "-") for each in wanted} <= set(entries)


def test_k2_hashes_are_required_and_nothing_is_built_on_the_way() -> None:
    """K2: no package is run in order to be installed, and Keyfit itself brings nothing along."""
    script = (CHECKOUT / "packaging" / "setup-venv.sh").read_text("utf-8")
    assert [line for line in script.splitlines() if '"${pip[@]}"' in line] == [
        '"${pip[@]}" --require-hashes --only-binary :all: -r requirements.lock',
        '"${pip[@]}" --no-deps --no-build-isolation --no-index -e .']
    assert script.count("-m pip ") == 1
