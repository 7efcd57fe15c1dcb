busybox ls -lR tree
busybox stat -c '%n %s %a %h %F' tree/*
busybox find tree -type f -name '*e*' | busybox sort
busybox find tree -type l -exec busybox readlink {} ';'
busybox mkfifo p
busybox cat p &
busybox echo through > p
wait
busybox test -p p && echo fifo
busybox cp -r tree copy
busybox mv copy moved
busybox rm -r moved/a
busybox ls moved
