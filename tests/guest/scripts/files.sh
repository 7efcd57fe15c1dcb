touch -d '2004-05-22 UTC' t
stat -c '%n %s %Y %a %F' t
mkdir -p a/b/c
rmdir a/b/c
ln -s t l
readlink l
readlink -f l | sed 's:.*/::'
realpath --relative-to=. a/b
chmod 640 t
stat -c %a t
truncate -s 1000 t
wc -c t
mktemp -u xXXX | wc -c
tee x y < t | wc -c
cmp x y
du -b x
install -m 700 x z
stat -c %a z
test -L l
echo $?
basename /a/b/c.d .d
dirname /a/b
mkfifo f
stat -c %F f
unlink f
sync x
link x w
stat -c %h x
rm -f nothing
rm nothing
echo $?
