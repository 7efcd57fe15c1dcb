echo one > f
echo two >> f
cat f
exec 5<>f
read -u 5 x
echo $x
echo THREE >&5
cat f
[ -s f ] && [ ! -d f ] && echo tests
echo *
mkdir -p d/e
cd d/e && pwd | sed 's:.*/d:d:'
cd - > /dev/null
set -C
echo x > f
echo $?
no-such-command
echo $?
./words
echo $?
/tmp
echo $?
./missing
echo $?
