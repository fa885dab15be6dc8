#!/usr/bin/env bash
# What PyInstaller needs besides Python packages: Python's own shared library, which Debian and Ubuntu keep in a package
# of its own, and objdump.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

needed=()
command -v objdump >/dev/null || needed+=(binutils)
"$python" -c 'from PyInstaller.depend.bindepend import get_python_library_path; get_python_library_path() or exit(1)' \
  2>/dev/null || needed+=("$("$python" -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')")

[ "${#needed[@]}" = 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${needed[@]}"
else
  echo "To build the program, install: ${needed[*]}" >&2
  exit 1
fi
