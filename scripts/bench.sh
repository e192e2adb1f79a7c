#!/usr/bin/env bash
# Runs the benches and prints their tables in Markdown, ready for README.md; the figures are kept in target/bench/.
#
#   scripts/bench.sh                   all of them, about a quarter of an hour on two cores
#   scripts/bench.sh http store        some of them
#   scripts/bench.sh --quick           one short round of each: shows that they work, not how fast anything is
#   scripts/bench.sh http -- --only "read by id" --rounds 9
#
# Nothing else should run on the machine meanwhile: client and server share its cores.
set -euo pipefail
cd "$(dirname "$0")/.."

benches=()
options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; options+=("$@"); break ;;
    --*) options+=("$1") ;;
    *) benches+=("$1") ;;
  esac
  shift
done
if [ ${#benches[@]} -eq 0 ]; then
  for file in benches/*.rs; do benches+=("$(basename "$file" .rs)"); done
fi

# Built before anything is measured, so that no compiler runs beside a bench.
targets=()
for bench in "${benches[@]}"; do targets+=(--bench "$bench"); done
cargo bench --locked --no-run "${targets[@]}"

echo "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(date -u +%Y-%m-%d), $(uname -sr)"
for bench in "${benches[@]}"; do
  cargo bench --quiet --locked --bench "$bench" -- "${options[@]+"${options[@]}"}" 2>target/bench-"$bench".log || {
    tail -n 20 target/bench-"$bench".log >&2
    echo "bench $bench failed; target/bench-$bench.log has the rest" >&2
    exit 1
  }
done
