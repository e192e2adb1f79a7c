#!/usr/bin/env bash
# Fuzzes what strangers may send: filters and cursors, both targets of tests/fuzz beside each other.
#
#   scripts/fuzz.sh            600 seconds each
#   scripts/fuzz.sh 60         60 seconds each
#
# Needs `cargo install cargo-fuzz --locked` and a C++ compiler; no nightly. What was found interesting is kept in
# target/fuzz/corpus/ and is where the next run begins; an input that fails is kept in target/fuzz/artifacts/, its trace
# in target/fuzz/<target>.log.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
case "$seconds" in
  '' | *[!0-9]* | 0) echo "usage: scripts/fuzz.sh [SECONDS]" >&2; exit 2 ;;
esac
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 2; }

# libFuzzer's instrumentation is an unstable option of the compiler.
export RUSTC_BOOTSTRAP=1
targets=(filter cursor)
# Panics and failed assertions are looked for; there is no unsafe code for the address sanitizer to watch.
where=(--fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none)
for target in "${targets[@]}"; do
  cargo fuzz build "${where[@]}" "$target"
done

running=()
for target in "${targets[@]}"; do
  mkdir -p "target/fuzz/corpus/$target" "target/fuzz/artifacts/$target"
  cargo fuzz run "${where[@]}" "$target" "target/fuzz/corpus/$target" -- "-max_total_time=$seconds" \
    "-artifact_prefix=target/fuzz/artifacts/$target/" -print_final_stats=1 >"target/fuzz/$target.log" 2>&1 &
  running+=($!)
done

failed=0
for at in "${!targets[@]}"; do
  target=${targets[$at]}
  outcome="no failure"
  wait "${running[$at]}" || { outcome="FAILED, see target/fuzz/$target.log"; failed=1; }
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "target/fuzz/$target.log")
  echo "$target: $seconds s, ${runs:-no} executions, $outcome"
done
exit "$failed"
