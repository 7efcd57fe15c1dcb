/* The runtime of the freestanding guest programs: strings, formatted output, error names. */

#include "sys.h"

void *memcpy(void *to, const void *from, size_t n)
{
    byte *out = to;
    const byte *in = from;

    for (; n >= 8; n -= 8, out += 8, in += 8)
        *(uint64_t *)out = *(const uint64_t *)in;
    while (n--)
        *out++ = *in++;
    return to;
}

void *memset(void *to, int value, size_t n)
{
    byte *out = to;

    for (; n >= 8; n -= 8, out += 8)
        *(uint64_t *)out = (byte)value * 0x0101010101010101UL;
    while (n--)
        *out++ = (byte)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const byte *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

size_t strlen(const char *text)
{
    size_t n = 0;

    while (text[n])
        n++;
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (byte)*a - (byte)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    while (n && *a && *a == *b)
        a++, b++, n--;
    return n ? (byte)*a - (byte)*b : 0;
}

int starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

/* Reads a decimal or 0x number at *cursor and moves the cursor behind it; 0 when there is none. */
int parse_ulong(const char **cursor, ulong *value)
{
    const char *text = *cursor;
    ulong base = 10, number = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    const char *first = text;
    for (;; text++) {
        ulong digit;

        if (*text >= '0' && *text <= '9')
            digit = *text - '0';
        else if (*text >= 'a' && *text <= 'f')
            digit = *text - 'a' + 10;
        else if (*text >= 'A' && *text <= 'F')
            digit = *text - 'A' + 10;
        else
            break;
        if (digit >= base)
            break;
        number = number * base + digit;
    }
    if (text == first)
        return 0;
    *cursor = text;
    *value = number;
    return 1;
}

/* argv[index] as a number, or the default when it is not there; anything else ends the program with status 2. */
ulong number_argument(int argc, char **argv, int index, ulong otherwise)
{
    if (index >= argc)
        return otherwise;
    const char *text = argv[index];
    ulong value;
    if (!parse_ulong(&text, &value) || *text) {
        complain("%s: '%s' is not a number\n", argv[0], argv[index]);
        quit(2);
    }
    return value;
}

struct sink {
    int fd;
    unsigned used;
    char text[2048];
};

static struct sink standard_output = { .fd = 1 };

static void drain(struct sink *sink)
{
    unsigned done = 0;

    while (done < sink->used) {
        long n = sys_write(sink->fd, sink->text + done, sink->used - done);
        if (n == -EINTR)
            continue;
        if (n <= 0)
            break; /* nobody reads: a demonstration has no better answer */
        done += n;
    }
    sink->used = 0;
}

static void put(struct sink *sink, const char *text, size_t n)
{
    while (n) {
        if (sink->used == sizeof sink->text)
            drain(sink);
        size_t room = sizeof sink->text - sink->used;
        size_t part = n < room ? n : room;
        memcpy(sink->text + sink->used, text, part);
        sink->used += part;
        text += part;
        n -= part;
    }
}

static void put_padding(struct sink *sink, char pad, long n)
{
    while (n-- > 0)
        put(sink, &pad, 1);
}

static void put_number(struct sink *sink, ulong value, unsigned base, char sign, long width, char pad)
{
    char digits[24];
    int at = sizeof digits;

    do
        digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    long length = (long)sizeof digits - at + (sign != 0);
    if (pad == ' ')
        put_padding(sink, pad, width - length);
    if (sign)
        put(sink, &sign, 1);
    if (pad == '0')
        put_padding(sink, pad, width - length);
    put(sink, digits + at, sizeof digits - at);
}

/* %s %c %% and, with an optional width ("%08lx") and l: %d %u %x; "%-12s" pads on the right. */
static void format_into(struct sink *sink, const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(sink, format, 1);
            continue;
        }
        char pad = ' ';
        int left = 0, is_long = 0;
        ulong width = 0;

        format++;
        if (*format == '-')
            left = 1, format++;
        if (*format == '0')
            pad = '0', format++;
        while (*format >= '0' && *format <= '9')
            width = width * 10 + (*format++ - '0');
        while (*format == 'l' || *format == 'z')
            is_long = 1, format++;
        switch (*format) {
        case 's': {
            const char *text = va_arg(arguments, const char *);
            size_t length = strlen(text);
            if (!left)
                put_padding(sink, ' ', (long)width - (long)length);
            put(sink, text, length);
            if (left)
                put_padding(sink, ' ', (long)width - (long)length);
            break;
        }
        case 'c': {
            char one = va_arg(arguments, int);
            put(sink, &one, 1);
            break;
        }
        case 'd': {
            long value = is_long ? va_arg(arguments, long) : va_arg(arguments, int);
            put_number(sink, value < 0 ? -(ulong)value : (ulong)value, 10, value < 0 ? '-' : 0, width, pad);
            break;
        }
        case 'u':
        case 'x': {
            ulong value = is_long ? va_arg(arguments, ulong) : va_arg(arguments, unsigned);
            put_number(sink, value, *format == 'x' ? 16 : 10, 0, width, pad);
            break;
        }
        default:
            put(sink, format, 1);
        }
    }
}

void print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    format_into(&standard_output, format, arguments);
    va_end(arguments);
}

void complain(const char *format, ...)
{
    struct sink sink = { .fd = 2 };
    va_list arguments;

    flush();
    va_start(arguments, format);
    format_into(&sink, format, arguments);
    va_end(arguments);
    drain(&sink);
}

void flush(void)
{
    drain(&standard_output);
}

void quit(int status)
{
    flush();
    sys_exit_group(status);
    __builtin_unreachable();
}

void die(const char *what, long result)
{
    complain("%s: %s\n", what, errno_name(result));
    quit(1);
}

long checked(const char *what, long result)
{
    if (is_error(result))
        die(what, result);
    return result;
}

long catch_signal(int signal, signal_handler *handler, ulong flags)
{
    struct sigaction action = { 0 };

    action.sa_handler = (__sighandler_t)(ulong)handler;
    action.sa_flags = flags | SA_SIGINFO | SA_RESTORER;
    action.sa_restorer = signal_restorer;
    return SYSCALL(__NR_rt_sigaction, signal, &action, 0, sizeof action.sa_mask);
}

#define NAME(error) [error] = #error
static const char *const error_names[] = {
    NAME(EPERM), NAME(ENOENT), NAME(ESRCH), NAME(EINTR), NAME(EIO), NAME(ENXIO), NAME(E2BIG), NAME(ENOEXEC),
    NAME(EBADF), NAME(ECHILD), NAME(EAGAIN), NAME(ENOMEM), NAME(EACCES), NAME(EFAULT), NAME(ENOTBLK), NAME(EBUSY),
    NAME(EEXIST), NAME(EXDEV), NAME(ENODEV), NAME(ENOTDIR), NAME(EISDIR), NAME(EINVAL), NAME(ENFILE), NAME(EMFILE),
    NAME(ENOTTY), NAME(ETXTBSY), NAME(EFBIG), NAME(ENOSPC), NAME(ESPIPE), NAME(EROFS), NAME(EMLINK), NAME(EPIPE),
    NAME(EDOM), NAME(ERANGE), NAME(EDEADLK), NAME(ENAMETOOLONG), NAME(ENOLCK), NAME(ENOSYS), NAME(ENOTEMPTY),
    NAME(ELOOP), NAME(EOVERFLOW), NAME(EOPNOTSUPP), NAME(ETIMEDOUT), NAME(EHWPOISON),
};

const char *errno_name(long result)
{
    ulong number = -(ulong)result;

    if (!is_error(result))
        return "ok";
    if (number < sizeof error_names / sizeof *error_names && error_names[number])
        return error_names[number];
    return "E?";
}

void print_wait_status(int status)
{
    if ((status & 0x7f) == 0)
        print("exit %d", status >> 8 & 0xff);
    else
        print("signal %d%s", status & 0x7f, status & 0x80 ? " (core)" : "");
}
