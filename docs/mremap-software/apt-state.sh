#!/bin/sh
# Makes a small state of apt's own: DIR/state with one list of 1200 made-up packages, an empty cache, and DIR/apt.conf,
# which lets the cache map begin small, so that it has to grow:  sh apt-state.sh DIR; APT_CONFIG=DIR/apt.conf apt-cache gencaches
set -eu
mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial" "$1/etc/apt.conf.d" "$1/etc/preferences.d"
cd "$1"
: >state/status
echo 'deb [trusted=yes] file:/srv/repo ./' >etc/sources.list
awk 'BEGIN {
    for (i = 1; i <= 1200; i++)
        printf "Package: made-up-%d\nVersion: 1.%d\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\n" \
            "Installed-Size: %d\nDepends: made-up-%d, made-up-%d (>= 1.%d)\nProvides: virtual-%d\n" \
            "Filename: ./made-up-%d.deb\nSize: %d\nSHA256: %064x\nDescription: package %d\n\n",
            i, i, i, i % 97 + 1, i % 31 + 1, i % 31, i % 50, i, i, i, i
}' >state/lists/_srv_repo_._Packages
cat >apt.conf <<EOF
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$PWD/etc/apt.conf.d";
Dir::Etc "$PWD/etc";
Dir::State "$PWD/state";
Dir::State::status "$PWD/state/status";
Dir::Cache "$PWD/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Cache-Start "65536";
APT::Cache-Grow "65536";
EOF
