while IFS=, read -r a b c; do echo "$c-$b-$a"; done
echo end
