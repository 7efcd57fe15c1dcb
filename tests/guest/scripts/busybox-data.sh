busybox sha256sum words
busybox md5sum words
busybox sha1sum poem
busybox sha512sum poem
busybox gzip -c words > w.gz && busybox gunzip -c w.gz | busybox cmp - words && echo same
busybox bzip2 -c poem | busybox bunzip2
busybox dd if=words of=copy bs=100 count=7 2>&1 | busybox head -n 2
busybox wc -c copy
busybox dd if=/dev/zero bs=4k count=3 2>/dev/null | busybox od -c | busybox tail -n 3
busybox tar cf - tree | busybox tar tvf - | busybox sort -k6
busybox tar czf t.gz tree && mkdir out && busybox tar xzf t.gz -C out && busybox diff -r tree out/tree && echo same
