#!/bin/bash
# Runs every libFuzzer target for some seconds. New inputs go to a folder beside the build; the corpus of the tree is only
# read. What breaks a target is kept there as crash-*, and printed.
# Usage: tests/fuzz/run.sh BUILD_DIR SECONDS [TARGET…]
# The last line is `N passed, N failed`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 seconds=$2
shift 2
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}

one() {
	local target=$1 name found status folders
	name=${target##*/fuzz_}
	found=$build/found/$name
	mkdir -p "$found"
	folders=("$found")
	[ ! -d "$here/corpus/$name" ] || folders+=("$here/corpus/$name")
	(cd "$found" && "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
		-artifact_prefix="$found/" "${folders[@]}") >"$found.log" 2>&1 </dev/null
	status=$?
	if [ $status -eq 0 ] && ! grep -q 'number_of_executed_units: [1-9]' "$found.log"; then
		status=1 # it ran nothing
	fi
	[ $status -eq 0 ] || {
		printf '%s\n' "fuzz $name failed:"
		tail -n 60 "$found.log"
	}
	return $status
}

targets=()
if [ $# -gt 0 ]; then
	for name; do targets+=("$build/tests/fuzz/fuzz_$name"); done
else
	for target in "$build"/tests/fuzz/fuzz_*; do
		[ -f "$target" ] && [ -x "$target" ] && targets+=("$target")
	done
fi

passed=0 failed=0 running=()
reap() {
	if wait "${running[0]}"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	running=("${running[@]:1}")
}
for target in "${targets[@]}"; do
	one "$target" &
	running+=($!)
	[ ${#running[@]} -lt "$(nproc)" ] || reap
done
while [ ${#running[@]} -gt 0 ]; do reap; done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
