tail -f poem & sleep 0.1
echo appended >> poem
sleep 1.2
kill $!
wait $!
echo $?
timeout -s INT 0.3 tail -f empty
echo $?
tail -n 2 words
tail -c 5 words
tail -n +499 words
