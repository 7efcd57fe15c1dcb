/* The string functions of libc, which choose their code by what the processor offers, against plain loops. */
#include "probe.h"
#include <ctype.h>

static uint64_t state = 88172645463325252ULL;

static unsigned random_number(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static char *naive_strstr(const char *text, const char *needle)
{
    for (;; text++) {
        size_t i = 0;
        while (needle[i] && text[i] == needle[i])
            i++;
        if (!needle[i])
            return (char *)text;
        if (!*text)
            return NULL;
    }
}

static size_t naive_span(const char *text, const char *set, int inside)
{
    size_t n = 0;
    for (; text[n]; n++) {
        int found = 0;
        for (const char *s = set; *s; s++)
            found |= *s == text[n];
        if (found != inside)
            break;
    }
    return n;
}

int main(void)
{
    unsigned long bad[12] = { 0 };
    /* the text ends with a page: code that reads too far faults */
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + PAGE, PAGE, PROT_NONE);
    for (int round = 0; round < 4000; round++) {
        char needle[24], copy[400];
        int length = random_number(300), needle_length = random_number(20), letters = 1 + random_number(4);
        char *text = pages + PAGE - length - 1;
        for (int i = 0; i < length; i++)
            text[i] = 'a' + random_number(letters);
        text[length] = 0;
        for (int i = 0; i < needle_length; i++)
            needle[i] = 'a' + random_number(letters);
        needle[needle_length] = 0;
        if (length > needle_length && random_number(3) == 0)
            memcpy(needle, text + random_number(length - needle_length), needle_length);

        bad[0] += strlen(text) != (size_t)length;
        bad[1] += strstr(text, needle) != naive_strstr(text, needle);
        bad[2] += strspn(text, needle) != naive_span(text, needle, 1);
        bad[3] += strcspn(text, needle) != naive_span(text, needle, 0);
        char *at = strchr(text, needle[0] ? needle[0] : 'q');
        size_t where = naive_span(text, (char[]){ needle[0] ? needle[0] : 'q', 0 }, 0);
        bad[4] += at != (text[where] ? text + where : NULL);
        strcpy(copy, text);
        bad[5] += strcmp(copy, text) != 0 || memcmp(copy, text, length + 1) != 0;
        if (length) {
            int k = random_number(length);
            copy[k]++;
            bad[6] += strcmp(copy, text) <= 0 || strncmp(copy, text, k) != 0 || memcmp(copy, text, length) <= 0;
            copy[k] = toupper((unsigned char)text[k]);
            bad[7] += strcasecmp(copy, text) != 0;
        }
        memmove(copy + 5, copy, length + 1);
        memmove(copy, copy + 5, length + 1);
        bad[8] += strcasecmp(copy, text) != 0;
        bad[9] += memmem(text, length, needle, needle_length) != (void *)naive_strstr(text, needle);
        bad[10] += memrchr(text, 'a', length) != (void *)strrchr(text, 'a');
        at = strpbrk(text, needle);
        bad[11] += at != (text[naive_span(text, needle, 0)] ? text + naive_span(text, needle, 0) : NULL);
    }
    static const char *const names[] = { "strlen", "strstr", "strspn", "strcspn", "strchr", "strcpy", "strcmp", "strcasecmp", "memmove",
                                         "memmem", "strrchr", "strpbrk" };
    for (int i = 0; i < 12; i++)
        SAY("%s: %lu wrong\n", names[i], bad[i]);
    char number[64];
    double value = 1;
    unsigned long sum = 0;
    for (int i = 0; i < 2000; i++) {
        value = value * 1.37 + i;
        if (value > 1e300)
            value = 1e-300;
        snprintf(number, sizeof number, "%.17g", value);
        sum += strtod(number, NULL) != value;
        snprintf(number, sizeof number, "%a", value);
        sum += strtod(number, NULL) != value;
    }
    SAY("printf and strtod: %lu wrong\n", sum);
    return 0;
}
