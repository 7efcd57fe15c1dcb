# A string that grows to 3 MB: perl string.pl
use strict;
use warnings;

my ($text, $sum) = ('', 0);
for my $n (1 .. 30) {
    $text .= chr(64 + $n % 26) x 100_000;
    $sum += ord(substr $text, 100_000 * int($n / 2), 1);
}
print length $text, " $sum ", unpack('%32C*', $text), "\n";
