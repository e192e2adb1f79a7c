#!/usr/bin/env bash
# Writes the table of configuration keys into README.md, between its markers.
set -euo pipefail
cd "$(dirname "$0")/.."
UPDATE_README=1 cargo test --quiet --locked --test architecture the_readme
