#!/bin/bash
# Builds the libmicrohttpd that is installed here from its Debian source, with its own assertions on and with sanitizers, so
# that they see into the library, and the library says when it is used against its rules. The source is fetched once, by a
# package list of its own beside the build: /etc/apt stays as it is, no right is needed. A library that is there is kept.
# Usage: tests/libmicrohttpd.sh DIRECTORY SANITIZERS, e.g. address,undefined. Then DIRECTORY/SANITIZERS/lib/pkgconfig
# finds a static library. Quiet unless it fails.
set -eu -o pipefail
directory=$(mkdir -p "$1" && cd "$1" && pwd) sanitizers=$2
me=$(readlink -f "$0")
version=$(dpkg-query -W -f='${source:Version}' libmicrohttpd-dev)
build=$directory/$sanitizers
stamp="$version $(sha256sum <"$me")"
[ "$(cat "$build/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

log=$(mktemp "${TMPDIR:-/tmp}/hookd-libmicrohttpd.XXXXXX")
trap 'tail -n 30 "$log" >&2; rm -f "$log"' EXIT
exec 3>&1 >"$log" 2>&1 </dev/null

fetch() {
	local apt=(apt-get -q -o "Dir::Etc::SourceList=$directory/sources.list" -o Dir::Etc::SourceParts=-
		-o "Dir::State::Lists=$directory/lists" -o "Dir::Cache=$directory/cache" -o Acquire::Retries=3)

	mkdir -p "$directory/lists/partial" "$directory/cache/archives/partial"
	# From where this system has its packages.
	apt-get indextargets --format 'deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
		grep " $(. /etc/os-release && echo "$VERSION_CODENAME")[a-z-]* main$" | sort -u >"$directory/sources.list"
	"${apt[@]}" update
	(cd "$directory" && "${apt[@]}" source --download-only "libmicrohttpd=$version")
	rm -rf "$directory/lists" "$directory/cache"
}

# An assertion that is wrong in 0.9.75 and was taken out after it: the answer to HEAD passes here with its body counted as
# sent already, which is what the line behind the assertion asks for.
mend() {
	local file=$1/src/microhttpd/connection.c wrong='  mhd_assert (connection->rp_props.send_reply_body);'

	[ "$(sed -n '/^try_ready_normal_body /,/^}/p' "$file" | grep -cFx "$wrong")" -eq 1 ]
	sed -i '/^try_ready_normal_body /,/^}/{/mhd_assert (connection->rp_props.send_reply_body);/d}' "$file"
}

# user-poison makes the unused part of each connection's memory forbidden ground.
case $sanitizers in
*address*) asked=$sanitizers,user-poison flags='' ;;
*) asked='' flags="-fsanitize=$sanitizers" ;;
esac
ls "$directory/libmicrohttpd_$version.dsc" || fetch
rm -rf "$build"
mkdir -p "$build/objects"
dpkg-source -x "$directory/libmicrohttpd_$version.dsc" "$build/source"
mend "$build/source"
cd "$build/objects"
CFLAGS="-g -O1 -fno-omit-frame-pointer $flags" ../source/configure --prefix="$build" --enable-asserts \
	${asked:+--enable-sanitizers=$asked} --disable-shared --enable-static --disable-https --disable-curl \
	--disable-doc --disable-examples
grep -q '^#define _DEBUG 1' MHD_config.h # else the assertions are not there
make -C src/microhttpd -j"$(nproc)" libmicrohttpd.la
make -C src/microhttpd install-libLTLIBRARIES
make -C src/include install
make install-pkgconfigDATA
echo "$stamp" >"$build/stamp"
trap 'rm -f "$log"' EXIT
