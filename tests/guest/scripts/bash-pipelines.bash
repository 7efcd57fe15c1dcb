seq 100 | grep 7 | sort -rn | head -3
false | true
echo ${PIPESTATUS[*]}
set -o pipefail
false | true
echo $?
! true
echo $?
echo a | while read x; do echo "<$x>"; done
{ echo 1; echo 2 >&2; } 2>&1 | cat
yes | head -2000 | tail -1
seq 5 | tee >(cat > teed) | wc -l
for i in 1 2 3; do echo $i; done | { read a; read b; echo $b $a; }
