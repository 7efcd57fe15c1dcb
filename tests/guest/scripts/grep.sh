grep -n odd words | tail -2
grep -c '[05]$' words
grep -E '(1|2)3 ' words
grep -v line words
echo $?
grep -ri INNER sub | sort
grep -o '[a-z]*y' poem
grep -P '\d{2}' poem
grep -A1 -B1 best poem
grep -F -f sub/inner sub/inner
grep -q x missing
echo $?
grep -w it poem
zgrep best poem
