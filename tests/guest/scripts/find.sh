find tree | sort
find tree -type f -size +0 -exec wc -c {} + | sort
find tree -name 'd*' -o -type l | sort
find tree -newer tree/a -print
find . -maxdepth 1 -empty
find tree -perm -u=x -type f
find tree -links 2 -type f | sort
find tree -depth -type d | sort
find tree -printf '%P %s %y\n' | grep -v ' d$' | sort
find tree -delete
ls
find missing
echo $?
