awk '{n[$3]+=$4} END {for (k in n) print k, n[k]}' words | sort
awk -F'[ ,]' 'NR==1 {print $2; exit}' poem
awk 'BEGIN {
    for (i = 0; i < 5; i++) printf "%d %s\n", i * i, substr("abcdef", i + 1, 2)
    print length("x y"), index("hello", "l"), toupper("up")
    "echo sub" | getline v
    print v
    print 1 / 3
    print 2 ^ 53
}'
awk '/best/,/worst/' poem
awk 'function f(n) {return n < 2 ? n : f(n - 1) + f(n - 2)} BEGIN {print f(14)}'
echo a b c | awk '{$2 = ""; print; gsub(/a/, "z"); print}' OFS=-
