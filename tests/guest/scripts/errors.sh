yes | head -n 2
seq 100000 | head -n 1
echo $?
cat words | head -c 5
cat missing - < poem | tail -1
cat < words > /dev/full
echo $?
echo x > /dev/full
echo $?
