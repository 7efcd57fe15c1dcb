# needs: bc file make
bc <<E
scale=30
sqrt(2)
2^100
define f(x) {
    if (x < 2) return (1)
    return (x * f(x - 1))
}
f(30)
E
file -b poem sub
echo 'all: ; @echo made $@' | make -f -
