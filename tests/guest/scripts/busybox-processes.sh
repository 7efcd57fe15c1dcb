busybox timeout 1 busybox sleep 10
echo $?
busybox env -i A=1 busybox env
busybox true
echo $?
busybox false
echo $?
busybox sh -c 'kill -TERM $$'
echo $?
busybox sh -c 'busybox sleep 10 & kill $!; wait $!; echo $?'
busybox ps >/dev/null
echo $?
busybox no-such-applet
echo $?
