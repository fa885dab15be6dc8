#!/usr/bin/env bash
# Renews requirements.lock: every dependency with its version and hashes, naming no registry. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --extra publisher --extra dev pyproject.toml packaging/build.in \
  -o requirements.lock "$@"
