/* Instructions whose results an emulator may get wrong: checksums over pseudo-random operands.
 *
 * Left out, because the engine is known to differ: fprem (its remainders have the precision of a double) and the exception
 * flags of MXCSR (never set). */
#include "probe.h"
#include <emmintrin.h>
#include <math.h>

static uint64_t state = 0x9e3779b97f4a7c15ULL, sum;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void mix(uint64_t value)
{
    sum = (sum ^ value) * 0x100000001b3ULL;
}

static void mix_vector(__m128i v)
{
    mix(_mm_cvtsi128_si64(v));
    mix(_mm_cvtsi128_si64(_mm_unpackhi_epi64(v, v)));
}

static void done(const char *name)
{
    SAY("%s %016lx\n", name, (unsigned long)sum);
    sum = 0;
}

#define ROUNDS 2000
#define ARITHMETIC_FLAGS 0x8d5 /* OF SF ZF AF PF CF */
#define LOGIC_FLAGS 0x8c5      /* AF is undefined after these */

#define WITH_FLAGS(instruction, a, b, mask) \
    do { \
        uint64_t x = a, flags; \
        __asm__ volatile(instruction "; pushfq; popq %1" : "+r"(x), "=r"(flags) : "r"(b) : "cc", "rcx"); \
        mix(x); \
        mix(flags & (mask)); \
    } while (0)

int main(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = next(), b = next();
        if (i % 5 == 0)
            a >>= next() % 64;
        if (i % 7 == 0)
            b = -(b >> next() % 64);
        WITH_FLAGS("add %2, %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("sub %2, %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("stc; adc %2, %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("stc; sbb %2, %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("cmp %2, %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("addb %b2, %b0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("subw %w2, %w0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("addl %k2, %k0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("and %2, %0", a, b, LOGIC_FLAGS);
        WITH_FLAGS("xor %2, %0", a, b, LOGIC_FLAGS);
        WITH_FLAGS("neg %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("inc %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("dec %0", a, b, ARITHMETIC_FLAGS);
        WITH_FLAGS("bswap %0", a, b, 0);
        WITH_FLAGS("xadd %0, %0", a, b, 0);
    }
    done("arithmetic");

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = next(), b = next();
        WITH_FLAGS("movb %b2, %%cl; shl %%cl, %0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; shr %%cl, %0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; sar %%cl, %0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; rol %%cl, %0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; ror %%cl, %0", a, b, 0);
        WITH_FLAGS("clc; movb %b2, %%cl; rcl %%cl, %0", a, b, 0);
        WITH_FLAGS("stc; movb %b2, %%cl; rcr %%cl, %0", a, b, 0);
        WITH_FLAGS("stc; movb %b2, %%cl; rclb %%cl, %b0", a, b, 0);
        WITH_FLAGS("stc; movb %b2, %%cl; rcrw %%cl, %w0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; shld %%cl, %2, %0", a, b, 0);
        WITH_FLAGS("movb %b2, %%cl; shrd %%cl, %2, %0", a, b, 0);
        WITH_FLAGS("shl $1, %0", a, b, LOGIC_FLAGS);
        WITH_FLAGS("sar $3, %0", a, b, 0x0c5);
        WITH_FLAGS("bt %2, %0", a, b, 1);
        WITH_FLAGS("bts %2, %0", a, b, 1);
        WITH_FLAGS("btr %2, %0", a, b, 1);
        WITH_FLAGS("btc %2, %0", a, b, 1);
        if (b) {
            WITH_FLAGS("bsf %2, %0", a, b, 0x40);
            WITH_FLAGS("bsr %2, %0", a, b, 0x40);
        }
    }
    done("shifts and bits");

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = next(), b = next() >> next() % 60 | 1, c = next() % b;
        uint64_t low, high;
        __asm__("mulq %3" : "=a"(low), "=d"(high) : "0"(a), "r"(b) : "cc");
        mix(low), mix(high);
        __asm__("imulq %3" : "=a"(low), "=d"(high) : "0"(a), "r"(b) : "cc");
        mix(low), mix(high);
        __asm__("divq %4" : "=a"(low), "=d"(high) : "0"(a), "1"(c), "r"(b) : "cc");
        mix(low), mix(high);
        int64_t s = (int64_t)a >> 3, d = (int64_t)b >> 5 | 1;
        mix(s / d), mix(s % d);
        mix((int32_t)a / ((int32_t)b | 1));
        mix((unsigned __int128)a * c >> 77);
    }
    done("multiply and divide");

    static unsigned char from[512], to[512];
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 512; k++)
            from[k] = next() % 3;
        uint64_t n = next() % 200;
        void *s = from + next() % 50, *d = to + next() % 50;
        uint64_t count = n;
        __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(count)::"memory");
        mix(count), mix((unsigned char *)s - from);
        s = from + 400, d = to + 450, count = n;
        __asm__ volatile("std; rep movsb; cld" : "+S"(s), "+D"(d), "+c"(count)::"memory");
        s = from, d = to, count = 200;
        unsigned char below;
        __asm__ volatile("repe cmpsb; setb %3" : "+S"(s), "+D"(d), "+c"(count), "=r"(below)::"memory", "cc");
        mix(count), mix(below);
        d = from, count = 300;
        __asm__ volatile("repne scasb" : "+D"(d), "+c"(count) : "a"(2) : "memory", "cc");
        mix(count);
        d = to + 100, count = n / 8;
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(count) : "a"(state) : "memory");
        for (int k = 0; k < 512; k++)
            mix(to[k]);
    }
    done("string instructions");

    for (int i = 0; i < ROUNDS; i++) {
        __m128i a = _mm_set_epi64x(next(), next()), b = _mm_set_epi64x(next(), next()), c = _mm_cvtsi32_si128(next() % 70);
        mix_vector(_mm_add_epi8(a, b)), mix_vector(_mm_adds_epi16(a, b)), mix_vector(_mm_adds_epu8(a, b));
        mix_vector(_mm_subs_epu16(a, b)), mix_vector(_mm_sub_epi64(a, b)), mix_vector(_mm_mullo_epi16(a, b));
        mix_vector(_mm_mulhi_epi16(a, b)), mix_vector(_mm_mulhi_epu16(a, b)), mix_vector(_mm_mul_epu32(a, b));
        mix_vector(_mm_madd_epi16(a, b)), mix_vector(_mm_sad_epu8(a, b)), mix_vector(_mm_avg_epu8(a, b));
        mix_vector(_mm_min_epi16(a, b)), mix_vector(_mm_max_epu8(a, b)), mix_vector(_mm_cmpeq_epi8(a, b));
        mix_vector(_mm_cmpgt_epi32(a, b)), mix_vector(_mm_packs_epi32(a, b)), mix_vector(_mm_packus_epi16(a, b));
        mix_vector(_mm_unpacklo_epi8(a, b)), mix_vector(_mm_unpackhi_epi16(a, b)), mix_vector(_mm_shuffle_epi32(a, 0x1b));
        mix_vector(_mm_shufflehi_epi16(a, 0x2d)), mix_vector(_mm_shufflelo_epi16(a, 0xd2)), mix_vector(_mm_sll_epi16(a, c));
        mix_vector(_mm_sra_epi32(a, c)), mix_vector(_mm_srl_epi64(a, c)), mix_vector(_mm_slli_si128(a, 5)), mix_vector(_mm_srli_si128(a, 11));
        mix_vector(_mm_andnot_si128(a, b)), mix(_mm_movemask_epi8(a)), mix(_mm_extract_epi16(a, 3)), mix_vector(_mm_insert_epi16(a, i, 6));
    }
    done("vectors of integers");

    for (int i = 0; i < ROUNDS; i++) {
        double x = (double)(int64_t)next() / (1 << next() % 30), y = (double)(int64_t)next() / 1e9;
        float f = (float)x, g = (float)y;
        union {
            double d;
            uint64_t u;
            float f[2];
        } u;
#define MIX(expression) (u.d = (expression), mix(u.u))
#define MIXF(expression) (u.u = 0, u.f[0] = (expression), mix(u.u))
        MIX(x + y), MIX(x - y), MIX(x * y), MIX(x / y), MIX(sqrt(fabs(x))), MIX(x < y ? x : y), MIX(x > y ? x : y);
        MIXF(f + g), MIXF(f * g), MIXF(f / g), MIXF(sqrtf(fabsf(f))), MIX((double)f), MIXF((float)y);
        mix((int64_t)y), mix((int32_t)(y / 1e3)), mix((uint64_t)fabs(y)), mix(llrint(y)), MIX((double)(int32_t)next()), MIX((double)next());
        mix(isunordered(x, y)), mix(x < y), mix(x >= y), mix(x == y);
        __m128d p = _mm_set_pd(x, y), q = _mm_set_pd(y, x);
        mix_vector(_mm_castpd_si128(_mm_add_pd(p, q))), mix_vector(_mm_castpd_si128(_mm_mul_pd(p, q)));
        mix_vector(_mm_castpd_si128(_mm_div_pd(p, q))), mix_vector(_mm_castpd_si128(_mm_cmplt_pd(p, q)));
        mix_vector(_mm_castpd_si128(_mm_max_pd(p, q))), mix_vector(_mm_cvttpd_epi32(_mm_div_pd(p, _mm_set1_pd(1e12))));
        mix_vector(_mm_castps_si128(_mm_cvtpd_ps(p))), mix_vector(_mm_castpd_si128(_mm_cvtepi32_pd(_mm_set1_epi32((int)next()))));
        mix(_mm_movemask_pd(p));
    }
    done("floating point");

    for (int i = 0; i < ROUNDS; i++) {
        long double x = (long double)(int64_t)next() / ((next() % 1000) + 1), y = (long double)(int64_t)next() / ((next() % 77777) + 1);
        struct {
            uint64_t mantissa;
            uint16_t exponent;
        } out;
#define MIXL(expression) \
    do { \
        long double value = (expression); \
        memcpy(&out, &value, 10); \
        mix(out.mantissa), mix(out.exponent); \
    } while (0)
        MIXL(x + y);
        MIXL(x * y);
        MIXL(x / y);
        MIXL(-x);
        long double root, rounded, scaled;
        __asm__("fsqrt" : "=t"(root) : "0"(x < 0 ? -x : x));
        __asm__("frndint" : "=t"(rounded) : "0"(y));
        __asm__("fscale" : "=t"(scaled) : "0"(x), "u"((long double)(i % 50 - 25)));
        MIXL(root);
        MIXL(rounded);
        MIXL(scaled);
        mix((int64_t)y);
        double narrow = (double)x;
        MIXL(narrow);
        mix(x < y), mix(x == y);
    }
    done("x87");

    _Alignas(16) unsigned __int128 wide = 5;
    uint64_t *halves = (uint64_t *)&wide;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t low = i % 3 ? halves[0] : next(), high = halves[1], b = next(), c = next();
        unsigned char equal;
        __asm__ volatile("lock cmpxchg16b %0; sete %3" : "+m"(wide), "+a"(low), "+d"(high), "=r"(equal) : "b"(b), "c"(c) : "cc");
        mix(low), mix(high), mix(equal), mix(halves[0]), mix(halves[1]);
        uint64_t word = halves[0], old = i % 2 ? word : c;
        mix(__sync_val_compare_and_swap(&word, old, b));
        mix(word);
        mix(__sync_fetch_and_add(&word, c)), mix(__sync_lock_test_and_set(&word, b)), mix(word);
        __asm__ volatile("lock btsq %1, %0" : "+m"(word) : "r"(b & 63) : "cc");
        mix(word);
    }
    done("atomics");

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = next(), b = next(), x = a, y;
        __asm__("cmp %2, %1; cmovl %2, %0" : "+r"(x) : "r"(a), "r"(b) : "cc");
        mix(x);
        __asm__("xor %%eax, %%eax; cmp %1, %2; setbe %%al; mov %%rax, %0" : "=r"(y) : "r"(a), "r"(b) : "rax", "cc");
        mix(y);
        __asm__("mov %1, %%rax; cqo; mov %%rdx, %0" : "=r"(y) : "r"(a) : "rax", "rdx");
        mix(y);
        __asm__("movsbq %b1, %0" : "=r"(y) : "q"(a));
        mix(y);
        __asm__("movzwl %w1, %k0" : "=r"(y) : "r"(a));
        mix(y);
        __asm__("mov %1, %0; movb $7, %b0" : "=q"(y) : "r"(a));
        mix(y);
        __asm__("mov %1, %%rax; movb $9, %%ah; mov %%rax, %0" : "=r"(y) : "r"(a) : "rax");
        mix(y);
        __asm__("mov %1, %0; movl %k2, %k0" : "=&r"(y) : "r"(a), "r"(b));
        mix(y);
        __asm__("mov %1, %%rax; xlatb; movzbl %%al, %%eax; mov %%rax, %0" : "=r"(y) : "r"(a & 0xff), "b"(from) : "rax");
        mix(y);
        __asm__("push %1; popw %w0; add $6, %%rsp" : "=r"(y) : "r"(a), "0"(b) : "memory", "cc");
        mix(y);
        __asm__("mov %1, %%rax; sahf; lahf; mov %%rax, %0" : "=r"(y) : "r"(a) : "rax", "cc");
        mix(y);
    }
    done("moves and conditions");
    return 0;
}
