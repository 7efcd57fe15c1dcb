busybox sort -r words | busybox head -n 3
busybox grep -c even words
busybox sed -n 's/^line \([0-9]*\) odd.*/\1/p' words | busybox tail -n 2
busybox awk '{s+=$4} END {print s, NR}' words
busybox cut -d' ' -f2,3 words | busybox uniq -c -f1 | busybox wc
busybox tr -d aeiou < poem
busybox rev poem
busybox diff poem sub/inner
echo $?
busybox cmp poem words
echo $?
busybox seq 30 | busybox xargs -n 7 busybox echo
busybox printf '%05d|%-6s|%x\n' 42 abc 255
echo 'scale=20; 4*a(1); 2^200' | busybox bc -l
busybox expr 6 '*' 7
busybox factor 1234567890
busybox seq -w 8 12
busybox basename /a/b.c .c
busybox date -u -d @0
