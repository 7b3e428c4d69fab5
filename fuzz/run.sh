#!/bin/sh
# Builds every fuzz target and runs each for FUZZ_SECONDS, from the seeds, in FUZZ_DIR
# (a temporary folder unless given). Needs neither cargo-fuzz nor a nightly toolchain:
# the flags are those of `cargo fuzz build --sanitizer none`.
#
# usage: FUZZ_SECONDS=20 fuzz/run.sh [TARGET...]
set -eu
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-20}
triple=$(rustc -vV | sed -n 's/^host: //p')
sancov="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
-Cllvm-args=-sanitizer-coverage-stack-depth"

# With --target, build scripts and macros are left without the flags: they don't link.
RUSTFLAGS="--cfg fuzzing $sancov -Ccodegen-units=1" \
	"${CARGO:-cargo}" build --release --bins --target "$triple" --target-dir target

[ $# -gt 0 ] || set -- $(ls fuzz_targets | sed 's/\.rs$//')
work=${FUZZ_DIR:-$(mktemp -d)}
[ -n "${FUZZ_DIR:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p artifacts
failed=
for target in "$@"; do
	corpus=$work/$target
	mkdir -p "$corpus" "artifacts/$target"
	cp "seeds/$target/"* "$corpus/"
	dictionary=
	[ ! -f "dictionaries/$target" ] || dictionary=-dict=dictionaries/$target
	echo "fuzz: $target for $seconds s"
	# shellcheck disable=SC2086
	if "target/$triple/release/$target" "$corpus" $dictionary \
		-artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
		-rss_limit_mb=1024 -timeout=10 -max_len=16384 -print_final_stats=1 \
		>"$work/$target.log" 2>&1; then
		grep -E 'cov: ' "$work/$target.log" | sed -n '1p;$p'
		grep -E 'stat::number_of_executed_units' "$work/$target.log"
	else
		failed="$failed $target"
		tail -n 40 "$work/$target.log"
	fi
done
[ -z "$failed" ] || { echo "fuzz: failed:$failed; the inputs are in fuzz/artifacts/" >&2; exit 1; }
