# needs: openssl
openssl dgst -sha256 words
openssl dgst -md5 -r words
openssl sha3-256 words
openssl dgst -sha512 -hmac key words
openssl rsa -in key.pem -check -noout
openssl rsa -in key.pem -pubout -out pub.pem
openssl dgst -sha256 -sign key.pem -out sig words && openssl dgst -sha256 -verify pub.pem -signature sig words
sha256sum sig
openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff -iv 0 -in words 2>/dev/null | sha256sum
openssl enc -chacha20 -K $(printf %064d 1) -iv $(printf %032d 2) -in words | openssl base64 | tail -1
openssl prime 1000003
openssl rand 20 | wc -c
