# needs: gawk mawk
gawk 'BEGIN {
    n = split("c a b", x)
    asort(x)
    for (i = 1; i <= n; i++) print x[i]
    print strftime("%Y", 0, 1)
    print gensub(/(b+)/, "<\\1>", "g", "abbbc")
}'
mawk 'BEGIN {print substr("hello", 2)}'
