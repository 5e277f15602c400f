# What run and test share: say, die, install what is missing, build. Sourced by bash scripts.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Builds go below this folder; another one keeps two checkouts of a tree apart.
builds=${HOOKD_BUILD_ROOT:-$root}

packages_to_build='gcc libc6-dev meson ninja-build pkg-config python3 libmicrohttpd-dev libssl-dev libcjson-dev
	libsqlite3-dev libcurl4-openssl-dev ca-certificates'
packages_to_test="$packages_to_build libcmocka-dev binutils clang libclang-rt-14-dev sqlite3 curl openssl faketime strace python3-jsonschema"
packages_for_coverage='gcovr'
packages_for_analysis='clang-tidy clang-tools'
# Servers that tests run as children of their own; those that the packages bring are neither started nor enabled.
servers_to_test='nginx caddy prometheus prometheus-alertmanager'
packages_to_test="$packages_to_test $servers_to_test
	systemd systemd-container scdoc mandoc bash-completion debhelper dpkg-dev lintian e2fsprogs git"
packages_for_valgrind='valgrind libc6-dbg'

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Names of the given packages that are not installed.
missing_packages() {
	local name state
	declare -A states
	while read -r name state; do
		states[${name%%:*}]=$state
	done < <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
	for name; do
		[ "${states[$name]:-}" = installed ] || printf '%s ' "$name"
	done
}

# install_missing PACKAGE…: asks nothing and needs no network when everything is there.
install_missing() {
	local missing log unit privileged=() elevated=()
	command -v dpkg-query >/dev/null || {
		say "Not a Debian system: please see to it that these are there: $*" >&2
		return
	}
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || die "missing packages, and neither root nor sudo: apt-get install $missing"
		privileged=(sudo)
		[ -t 0 ] || privileged=(sudo -n) # nobody there to type a password
		privileged+=(env)
	else
		privileged=(env)
	fi
	elevated=("${privileged[@]}")
	privileged+=(DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
	say "Installing $missing"
	log=$(mktemp "${TMPDIR:-/tmp}/hookd-install.XXXXXX") || die 'no temporary folder'
	# shellcheck disable=SC2086 # one word a package
	{
		"${privileged[@]}" update &&
			"${privileged[@]}" install -y --no-install-recommends $missing
	} </dev/null >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		rm -f "$log"
		die "could not install: $missing"
	}
	rm -f "$log"
	for unit in $servers_to_test; do
		[[ " $missing" != *" $unit "* ]] || "${elevated[@]}" systemctl --quiet disable "$unit" 2>/dev/null || true
	done
}

# build NAME COMPILER [MESON OPTION…]: builds what changed, with files that are new. Quiet unless it fails.
# $targets, if set, says what: a list for ninja.
build() {
	local directory=$builds/$1 compiler=$2 log
	shift 2
	log=$(mktemp "${TMPDIR:-/tmp}/hookd-build.XXXXXX") || return 1
	if ! {
		{ [ -f "$directory/build.ninja" ] && meson setup --reconfigure "$directory" "$root" "$@"; } ||
			{ rm -rf "$directory" && CC=$compiler meson setup "$directory" "$root" "$@"; }
	} >"$log" 2>&1 </dev/null || ! ninja -C "$directory" ${targets:-} >"$log" 2>&1 </dev/null; then
		grep -v '^\[[0-9/]*\]' "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}
