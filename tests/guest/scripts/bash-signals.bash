(kill -SEGV $BASHPID)
echo $?
(kill -9 $BASHPID)
echo $?
sh -c 'kill -ABRT $$'
echo $?
# bash says "Terminated" when it hears of it, which may be before or in wait
{ sleep 5 & kill $!; wait $!; } 2>/dev/null
echo $?
timeout 0.1 sleep 5
echo $?
(ulimit -c 0; sh -c 'kill -QUIT $$')
echo $?
