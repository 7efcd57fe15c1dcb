set -m
sleep 0.05 &
sleep 10 &
jobs
kill %2
wait %1
echo $?
wait %2
echo $?
(exit 7) & wait $!
echo $?
wait
jobs
