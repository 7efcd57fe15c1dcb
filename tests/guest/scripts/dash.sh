i=0
while [ $i -lt 50 ]; do i=$((i+1)); (exit 3); done
echo $i $?
trap 'echo bye' EXIT
x=$(printf 'a\nb\n' | wc -l)
echo $x
cat <<E
$x lines
E
for f in *; do echo $f; done
kill -TERM $$ & wait
echo never
