sed -n '2,4p' words
sed 's/\(quick\) \(brown\)/\2 \1/; /^$/d' poem
sed '$!N;s/\n/ + /' poem
sed -e '/best/a\' -e added poem
sed -i.bak 's/the/THE/g' poem && diff poem.bak poem
echo 1234567 | sed -E ':a;s/^([0-9]+)([0-9]{3})/\1,\2/;ta'
sed = sub/inner
sed y/abc/xyz/ poem | head -1
