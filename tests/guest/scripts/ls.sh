ls -l --time-style=+%s tree tree/a
ls -laR tree | wc -l
ls -1 --color=never -F tree
ls -li tree/hard tree/a/file | awk '{i[$1]++} END {for (k in i) print i[k]}'
ls missing
echo $?
