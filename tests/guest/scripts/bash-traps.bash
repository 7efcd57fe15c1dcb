trap 'echo usr1' USR1
kill -USR1 $$
trap 'echo exit $?' EXIT
trap 'echo err' ERR
false
trap - ERR
(trap 'echo sub; exit 9' TERM; kill -TERM $BASHPID; sleep 1)
echo $?
trap '' INT
kill -INT $$
echo survived
trap 'echo chld' CHLD
/bin/true
trap - CHLD
exit 4
