#!/usr/bin/env bash
# Installs what the virtual-machine tests need on the host, a Debian 12. The list is in tests/vm/bench/host.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
missing=$("$python" -c 'from tests.vm.bench.host import missing_packages; print(*missing_packages())')
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "The virtual-machine tests need these packages: $missing" >&2
  echo "On Debian: sudo apt-get install --no-install-recommends $missing" >&2
  exit 1
fi
apt-get update -q
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
