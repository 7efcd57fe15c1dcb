#!/bin/sh
# Build kernel/vdso64.so from vdso.S (GNU as and ld).  The result is kept in the tree, so that nobody needs a toolchain.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../kernel/vdso64.so}
object=$(mktemp)
trap 'rm -f "$object"' EXIT
as --64 -o "$object" "$here/vdso.S"
ld -shared -Bsymbolic -soname linux-vdso.so.1 --hash-style=both --build-id=none --eh-frame-hdr -z noseparate-code \
	-z max-page-size=4096 -T "$here/vdso.lds" -o "$out" "$object"
strip -S "$out"
echo "$out: $(wc -c <"$out") bytes"
