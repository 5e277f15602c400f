#!/bin/bash
# Runs every libFuzzer target for some seconds, as many at a time as there are processors. New inputs go to a folder beside
# the build; the corpus of the tree is only read. What breaks a target is kept there as crash-*, and printed.
#
# Usage: tests/fuzz/run.sh [--at-least N] BUILD_DIR SECONDS [TARGET…]
#        tests/fuzz/run.sh --keep BUILD_DIR [TARGET…]
#   --at-least  the quickest have their seconds again until all together ran so many times; inputs are short
#   --keep      adds to the corpus of the tree what was found and reaches code that nothing there reaches
#
# There are two ways to build the targets (-Dfuzz=true, clang). With sanitizers every bad access is seen, and comparisons are
# traced, which finds words and numbers: for depth. Without them (-Db_sanitize=none) only what is reached is recorded, and
# a target runs several times as often: for the count, of what the targets check themselves and what crashes.
# A line `NOTE …` tells how often they ran; the last line is `N passed, N failed`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
keep='' more=() corpus_max=250 # files a target
at_least=0
case ${1:-} in
--at-least)
	at_least=$2 more=(-max_len=512)
	shift 2
	;;
--keep)
	keep=1
	shift
	;;
esac
build=$(cd "$1" && pwd) || exit 2
shift
seconds=1
[ -n "$keep" ] || {
	seconds=$1
	shift
}
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}

one() {
	local target=$1 name found status folders
	name=${target##*/fuzz_}
	found=$build/found/$name
	mkdir -p "$found"
	folders=("$found")
	[ ! -d "$here/corpus/$name" ] || folders+=("$here/corpus/$name")
	[ ! -f "$here/dict/$name.dict" ] || folders+=("-dict=$here/dict/$name.dict")
	(cd "$found" && "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
		"${more[@]}" -artifact_prefix="$found/" "${folders[@]}") >"$found.log" 2>&1 </dev/null
	status=$?
	if [ $status -eq 0 ] && [ "$(executions "$found.log")" -eq 0 ]; then
		status=1 # it ran nothing
	fi
	[ $status -eq 0 ] || {
		printf '%s\n' "fuzz $name failed:"
		tail -n 60 "$found.log"
	}
	return $status
}

executions() {
	local n
	n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1")
	printf '%s\n' "${n:-0}"
}

# A small set that reaches what all of found reaches, those that reach most first, joins what is there, which stays.
keep() {
	local target=$1 name kept known file
	name=${target##*/fuzz_}
	kept=$build/kept/$name
	rm -rf "$kept"
	mkdir -p "$here/corpus/$name" "$kept"
	"$target" -set_cover_merge=1 -timeout=10 -rss_limit_mb=1024 "$kept" "$here/corpus/$name" "$build/found/$name" \
		>"$build/found/$name.log" 2>&1 </dev/null || return
	known=$(sha1sum "$here/corpus/$name"/* | cut -c -40) # libFuzzer's names for them
	while read -r file; do
		[ "$(find "$here/corpus/$name" -type f | wc -l)" -lt $corpus_max ] || break
		[[ $known == *$file* ]] || cp "$kept/$file" "$here/corpus/$name/"
	done < <(ls -tr "$kept")
	printf '%s: %s files, %s bytes\n' "$name" "$(find "$here/corpus/$name" -type f | wc -l)" \
		"$(cat "$here/corpus/$name"/* | wc -c)"
}

targets=()
if [ $# -gt 0 ]; then
	for name; do targets+=("$build/tests/fuzz/fuzz_$name"); done
else
	for target in "$build"/tests/fuzz/fuzz_*; do
		[ -f "$target" ] && [ -x "$target" ] && targets+=("$target")
	done
fi

passed=0 failed=0 running=0 start=$SECONDS
reap() {
	if wait -n; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	running=$((running - 1))
}
total=0
declare -A counts
run() {
	local target name n
	for target; do
		[ $running -lt "$(nproc)" ] || reap
		if [ -n "$keep" ]; then keep "$target" & else one "$target" & fi
		running=$((running + 1))
	done
	while [ $running -gt 0 ]; do reap; done
	for target; do
		name=${target##*/fuzz_} n=$(executions "$build/found/${target##*/fuzz_}.log")
		total=$((total + n)) counts[$name]=$((${counts[$name]:-0} + n))
	done
}

quickest() {
	local name
	for name in "${!counts[@]}"; do printf '%s %s\n' "${counts[$name]}" "$build/tests/fuzz/fuzz_$name"; done |
		sort -rn | head -n "$(nproc)" | cut -d ' ' -f 2-
}

run "${targets[@]}"
ran=$passed
while [ $failed -eq 0 ] && [ $total -lt "$at_least" ]; do
	mapfile -t again < <(quickest)
	run "${again[@]}"
	passed=$ran # each is one test
done
[ -n "$keep" ] || {
	each=''
	for target in "${targets[@]}"; do
		each+=", ${target##*/fuzz_} ${counts[${target##*/fuzz_}]}"
	done
	printf 'NOTE fuzz: %d executions in %d s:%s\n' $total $((SECONDS - start)) "${each#,}"
}
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
