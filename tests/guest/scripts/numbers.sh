seq 1 3 10
seq -s, 5
factor 1234567 97 18446744073709551557
expr 7 + 3 \* 2
numfmt --to=iec 123456789
printf '%d %x %o %e %s\n' 255 255 255 3.5 text
echo $((2 + 3))
date -u -d '2004-05-22 12:00' +%s
date -u -d @1085227200 '+%F %T %A'
yes | head -3
[ 3 -lt 5 ] && echo less
