uname -s -m
id -u
id -un
whoami
env -i A=1 B=2 env
nice -n 5 nice
timeout 0.1 sleep 3
echo $?
sleep 0.01
pwd -P | sed 's:.*/::'
printenv HOME
tty
stdbuf -oL echo buffered
arch
true
false
echo $?
kill -l 9
getconf PAGE_SIZE
