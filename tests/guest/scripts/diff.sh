# needs: patch
ls sub/* | xargs -n1 cat
seq 5 | xargs -P2 -I{} echo n{} | sort
diff -u poem sub/inner | tail -n +3
sed 's/fox/cat/' poem > new
diff poem new > d
patch -s poem d && cmp poem new && echo patched
diff -y --width=40 sub/inner sub/other
diff3 -m sub/inner sub/other sub/inner
