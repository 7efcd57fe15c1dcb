# needs: gcc
gcc -c hello.c && gcc hello.o -o hello && ./hello a b
echo $?
gcc -O2 -static hello.c -o static && ./static
echo $?
echo 'int main(void) { return x; }' > broken.c
gcc broken.c
echo $?
nm hello.o | sed 's/^[0-9a-f ]*//'
