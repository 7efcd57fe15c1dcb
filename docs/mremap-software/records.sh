#!/bin/sh
# A dump for mdb_load: a few values of up to 900 KB, which need a large buffer, and 1500 small ones.
awk 'BEGIN {
    print "VERSION=3\nformat=print\ntype=btree\nmapsize=33554432\nHEADER=END"
    for (i = 1; i <= 3; i++)
        printf " large-%d\n %0*d\n", i, i * 300000, i
    for (i = 1000; i < 2500; i++)
        printf " small-%d\n value %d %0100d\n", i, i, i
    print "DATA=END"
}'
