sort -k4n -k1 words | head -4
sort -u -t' ' -k3,3 words
seq 20000 | sort -r | sort -n | tail -1
sort -c words
echo $?
sort --parallel=2 -S 1M words | cksum
