/* Compute loops that make no system call: sha256, sieve, copy, integer, random.
 *
 *     bench_compute VARIANT [N]
 *
 * The driver takes the time of the whole process; N repeats the loop, so two runs give the time of a round. */

#include "lib/sys.h"

#define BUFFER (1UL << 20)

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256_block(uint32_t state[8], const byte *block)
{
    uint32_t w[64], s[8];

    for (int i = 0; i < 16; i++)
        w[i] = __builtin_bswap32(((const uint32_t *)block)[i]);
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t t1 = s[7] + s1 + choice + round_constants[i] + w[i];
        uint32_t s0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + s0 + majority;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

/* One MiB of a fixed pattern, whole blocks only: the chaining value, not a padded digest. */
static ulong sha256(ulong rounds)
{
    uint32_t state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    byte *buffer = map_anonymous(BUFFER, PROT_READ | PROT_WRITE);

    for (ulong i = 0; i < BUFFER; i++)
        buffer[i] = i * 7 + (i >> 8);
    while (rounds--)
        for (ulong at = 0; at < BUFFER; at += 64)
            sha256_block(state, buffer + at);
    return (ulong)state[0] << 32 | state[7];
}

static ulong sieve(ulong rounds)
{
    byte *composite = map_anonymous(BUFFER, PROT_READ | PROT_WRITE);
    ulong primes = 0;

    while (rounds--) {
        memset(composite, 0, BUFFER);
        primes = 0;
        for (ulong i = 2; i < BUFFER; i++) {
            if (composite[i])
                continue;
            primes++;
            for (ulong k = i * i; k < BUFFER; k += i)
                composite[k] = 1;
        }
    }
    return primes;
}

static ulong copy(ulong rounds)
{
    byte *from = map_anonymous(BUFFER, PROT_READ | PROT_WRITE), *to = map_anonymous(BUFFER, PROT_READ | PROT_WRITE);
    ulong sum = 0;

    for (ulong i = 0; i < BUFFER; i++)
        from[i] = i * 13;
    for (ulong round = 0; round < rounds; round++) {
        from[round % BUFFER] ^= 1;
        for (int k = 0; k < 8; k++)
            memcpy(to, from, BUFFER);
        sum += to[round % BUFFER];
    }
    return sum;
}

static ulong integer(ulong rounds)
{
    ulong x = 88172645463325252UL, sum = 0;

    for (ulong i = 0; i < rounds * 1000000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += x % 1000;
    }
    return sum;
}

/* Two loads and two stores a step, at random places of 16 MiB. */
static ulong random_access(ulong rounds)
{
    ulong words = 16 * BUFFER / 8, x = 88172645463325252UL;
    volatile ulong *memory = (volatile ulong *)map_anonymous(words * 8, PROT_READ | PROT_WRITE);
    ulong sum = 0;

    for (ulong i = 0; i < rounds * 100000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ulong a = x % words, b = (x >> 32) % words;
        sum += memory[a] + memory[b];
        memory[a] = i;
        memory[b] = sum;
    }
    return sum;
}

static const struct {
    const char *name;
    ulong (*run)(ulong rounds);
} variants[] = {
    { "sha256", sha256 }, { "sieve", sieve }, { "copy", copy }, { "integer", integer }, { "random", random_access },
};

int main(int argc, char **argv)
{
    ulong rounds = number_argument(argc, argv, 2, 1);

    for (unsigned i = 0; argc > 1 && i < sizeof variants / sizeof *variants; i++)
        if (!strcmp(argv[1], variants[i].name)) {
            print("%s %016lx\n", argv[1], variants[i].run(rounds));
            return 0;
        }
    complain("usage: bench_compute sha256|sieve|copy|integer|random [rounds]\n");
    return 2;
}
