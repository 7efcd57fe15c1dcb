#!/usr/bin/perl -n
$n{(split)[2]}++;
END { print "$_ $n{$_}\n" for sort keys %n }
