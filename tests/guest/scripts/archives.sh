# needs: bzip2 xz
tar czf - tree | tar tzf - | sort
tar cf t.tar tree
tar tvf t.tar --numeric-owner | sort -k6 | awk '{print $1, $3, $6, $7, $8}'
mkdir x
tar xf t.tar -C x
diff -r tree x/tree && echo same
tar cJf t.xz tree && tar tJf t.xz | wc -l
gzip -9 -c t.tar | gunzip | cmp - t.tar
bzip2 -c t.tar | bunzip2 | cmp - t.tar && xz -c t.tar | unxz | cmp - t.tar && echo all
