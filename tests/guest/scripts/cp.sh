cp -r tree copy && diff -r tree copy && echo same
cp -a tree kept && ls -l --time-style=+%s kept | awk '!/^total/ {if (/^d/) $5 = "-"; print}' # sizes of directories are the file system's
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
