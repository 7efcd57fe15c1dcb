dd if=words of=out bs=64 count=10 skip=2 2>&1 | head -2
wc -c out
dd if=/dev/zero of=big bs=64k count=16 2>/dev/null
wc -c < big
dd if=words bs=1 count=20 2>/dev/null
dd if=words conv=ucase bs=50 count=1 status=none
