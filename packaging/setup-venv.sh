#!/usr/bin/env bash
# Makes .venv with exactly the versions of requirements.lock (checked by hash). Needs Python >= 3.11; on Debian and
# Ubuntu the package python3-venv is installed if it is missing and we may.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Keyfit needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo 'not there')." >&2
  echo "Install it, or name another one: make PYTHON=/path/to/python3.12 ..." >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
  else
    echo "This Python cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
    exit 1
  fi
fi

[ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  rm -rf .venv
  "$python" -m venv .venv
}
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet install)
"${pip[@]}" --require-hashes --only-binary :all: -r requirements.lock
"${pip[@]}" --no-deps --no-build-isolation --no-index -e .
