/* Reads /proc/self/maps piece by piece: 60,000 areas need no more memory than three. */

#include "areas.h"

struct reader {
    int fd;
    long used, at;
    char text[8192];
};

static int next_char(struct reader *reader)
{
    if (reader->at == reader->used) {
        reader->used = checked("/proc/self/maps", sys_read(reader->fd, reader->text, sizeof reader->text));
        reader->at = 0;
        if (!reader->used)
            return -1;
    }
    return (byte)reader->text[reader->at++];
}

/* Hexadecimal digits up to another character, which is swallowed; -1 at the end of the file. */
static int next_address(struct reader *reader, ulong *value)
{
    int c;

    for (*value = 0; (c = next_char(reader)) >= 0; *value = *value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10))
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return c;
    return -1;
}

ulong for_each_area(ulong start, ulong end, void (*each)(ulong first, ulong pages))
{
    static struct reader reader;
    ulong from, to, count = 0;

    reader.used = reader.at = 0;
    reader.fd = checked("/proc/self/maps", sys_open("/proc/self/maps", O_RDONLY, 0));
    while (next_address(&reader, &from) == '-' && next_address(&reader, &to) == ' ') {
        if (from < end && to > start) {
            count++;
            if (each)
                each((from - start) / PAGE_SIZE, (to - from) / PAGE_SIZE);
        }
        for (int c = 0; c >= 0 && c != '\n';)
            c = next_char(&reader);
    }
    sys_close(reader.fd);
    return count;
}
