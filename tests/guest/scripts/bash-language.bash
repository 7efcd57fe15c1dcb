declare -A map=([one]=1 [two]=2)
for k in $(printf '%s\n' "${!map[@]}" | sort); do echo $k ${map[$k]}; done
a=(x y "z w")
echo ${#a[@]} "${a[2]}" "${a[@]:1:1}"
s=hello.world
echo ${s%.*} ${s^^} ${s//o/0} ${#s}
[[ abc123 =~ ([a-z]+)([0-9]+) ]] && echo ${BASH_REMATCH[1]} ${BASH_REMATCH[2]}
f() { local x=$1; ((x > 0)) && f $((x - 1)); echo -n "$x "; }
f 5
echo
printf '%q %b %s\n' 'a b' 'x\ty' end
echo {a..e}{1,2}
echo $(( (1 << 40) % 1000003 )) $((16#ff)) $((-7 / 2))
case $s in *.world) echo case;; esac
while getopts ab:c opt -a -b val -c; do echo $opt $OPTARG; done
eval 'echo evaluated'
exec 3<<<"fd three"
cat <&3
diff <(seq 3) <(seq 4)
mapfile -t lines < <(seq 3)
echo ${lines[1]}
( ulimit -n 64; ulimit -n )
type cd
command -v sed
unset x
echo ${x-unset}
set -u
(echo $undefined) 2>&1 | sed 's/.*: undefined/undefined/'
coproc CAT { cat; }
echo hello >&${CAT[1]}
read -u ${CAT[0]} x
echo got $x
