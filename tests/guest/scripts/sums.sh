sha256sum words poem > sums
cat sums
sha256sum -c sums
md5sum empty
sha512sum words | cut -c1-40
b2sum poem
cksum words
sum poem
base64 -w 30 poem | head -2
base32 empty
base64 words | base64 -d | cmp - words
