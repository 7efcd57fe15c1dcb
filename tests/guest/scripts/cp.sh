cp -r tree copy && diff -r tree copy && echo same
cp -a tree kept && ls -l --time-style=+%s kept
cp tree/a/file new
cat new
cp tree x
cp -s tree/a/file slink
mv copy moved
ls
rm -r moved kept
ls
rm tree/a/file
cat tree/link
echo $?
ln -s loop loop
cat loop
