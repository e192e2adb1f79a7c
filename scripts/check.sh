#!/usr/bin/env bash
# What to run before a commit: format, lints, the fast tests.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
cargo test --locked --lib
cargo test --locked --test architecture --test cli --test http
