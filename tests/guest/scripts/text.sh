cut -c1-8 poem
tr a-z A-Z < poem
head -c 20 poem
echo
nl poem
fold -w 10 poem | head -3
fmt -w 30 poem
tac poem
paste words words | head -2
expand poem | cat -A
od -An -tx1 poem | head -2
split -l 200 words part.
wc -l part.*
join sub/inner sub/inner
comm -3 sub/inner sub/other
uniq -c sub/inner
csplit -s poem /It/
cat xx01
wc words poem empty
pr -t -2 sub/inner
shuf -i 1-10 --random-source=words | head -3
tsort <<E
a b
b c
E
