/* A script of memory operations on the command line: prints each result, then the areas and the bytes.
 *
 *     vmscript m:0:2:r m:2:2:rw p:0:1:rw w:0 p:0:1:r v:0:4:5:M
 *
 * Each argument is one operation or several with blanks between; "-" reads them from standard input.  `vmscript --help` lists the
 * operations.  The areas come from /proc/self/maps, so the same command runs natively and under any emulator.
 * Page numbers count from ARENA, far from everything else a program or a kernel puts anywhere. */

#include "lib/sys.h"

#define ARENA 0x200000000UL
#define ARENA_PAGES (1UL << 20)
#define FILE_PAGES 64
#define MAX_OPERATIONS 4096
#define MAX_FIELDS 6

static const char help[] =
    "usage: vmscript OPERATION...      (- reads operations from standard input)\n"
    "\n"
    "  m:i:n:PROT[:FLAGS[:k]]  mmap n pages at page i    PROT: letters of rwx, - for none, G U grows down/up, or a number\n"
    "       FLAGS: S shared  N noreserve  G growsdown  P populate  L locked  K stack  B nonblock  V shared-validate\n"
    "              H a hint only (no MAP_FIXED)  E fixed-noreplace  3 below 2 GiB  F a file, from its page k; or a number\n"
    "  u:i:n                   munmap              p:i:n:PROT    mprotect\n"
    "  w:i[:value]             write a byte        r:i           read a byte          x:i  call it\n"
    "  W:i:n  R:i:n            write, read a byte in each of n pages\n"
    "  v:i:old:new:FLAGS[:j]   mremap              FLAGS: M maymove  F fixed  D dontunmap  - none, or a number\n"
    "  l:i:n[:O]  k:i:n        mlock (O: mlock2 ONFAULT), munlock\n"
    "  L:FLAGS  K              mlockall (C current, F future, O onfault), munlockall\n"
    "  a:i:n:ADVICE            madvise, by name (dontneed, free, populate_write...) or number\n"
    "  y:i:n:FLAGS             msync (A async, S sync, I invalidate)\n"
    "  c:i:n                   mincore             t:n           ftruncate the F file to n pages\n"
    "  b:n  b:~X               brk to n pages (to address X) above its start\n"
    "  q:RES:n                 setrlimit in pages: AS DATA STACK MEMLOCK; +n: more than is used now\n"
    "  f{ ... f}               in a forked child; the parent waits\n"
    "  M  D  Z                 print areas, bytes, areas with what smaps says of them\n"
    "\n"
    "  A page is a number from the arena, A+k (where the last mmap or mremap outside the arena went), H+k (heap start)\n"
    "  or ~X (an address); i~k is k bytes on.  A length is a number of pages, n~k (k bytes more) or ~X (bytes).\n";

static char input[1 << 16];             /* operations from standard input */
static const char *operations[MAX_OPERATIONS];
static int nr_operations;

static char text[1 << 16];              /* what is read from /proc */
static ulong away;                      /* the last result outside the arena */
static ulong heap;                      /* where the heap starts, page aligned */
static int file = -1;                   /* the file behind F mappings */

struct operation {
    const char *source;
    char verb;
    int nr_fields;
    const char *field[MAX_FIELDS];
    int length[MAX_FIELDS];
};

struct name {
    const char *name;
    ulong value;
};

static const struct name advices[] = {
    { "normal", MADV_NORMAL }, { "random", MADV_RANDOM }, { "sequential", MADV_SEQUENTIAL },
    { "willneed", MADV_WILLNEED }, { "dontneed", MADV_DONTNEED }, { "free", MADV_FREE },
    { "remove", MADV_REMOVE }, { "dontfork", MADV_DONTFORK }, { "dofork", MADV_DOFORK },
    { "mergeable", MADV_MERGEABLE }, { "unmergeable", MADV_UNMERGEABLE }, { "hugepage", MADV_HUGEPAGE },
    { "nohugepage", MADV_NOHUGEPAGE }, { "dontdump", MADV_DONTDUMP }, { "dodump", MADV_DODUMP },
    { "wipeonfork", MADV_WIPEONFORK }, { "keeponfork", MADV_KEEPONFORK }, { "cold", MADV_COLD },
    { "pageout", MADV_PAGEOUT }, { "populate_read", MADV_POPULATE_READ },
    { "populate_write", MADV_POPULATE_WRITE }, { "dontneed_locked", 24 }, { "collapse", 25 }, { 0, 0 },
};

static const struct name resources[] = {
    { "AS", RLIMIT_AS }, { "DATA", RLIMIT_DATA }, { "STACK", RLIMIT_STACK }, { "MEMLOCK", RLIMIT_MEMLOCK }, { 0, 0 },
};

/* One letter per flag. */
static const struct name map_flags[] = {
    { "N", MAP_NORESERVE }, { "G", MAP_GROWSDOWN }, { "P", MAP_POPULATE }, { "L", MAP_LOCKED }, { "K", MAP_STACK },
    { "B", MAP_NONBLOCK }, { "3", MAP_32BIT }, { "S", 0 }, { "V", 0 }, { "H", 0 }, { "E", 0 }, { "F", 0 }, { 0, 0 },
};
static const struct name protections[] = {
    { "r", PROT_READ }, { "w", PROT_WRITE }, { "x", PROT_EXEC }, { "G", PROT_GROWSDOWN }, { "U", PROT_GROWSUP },
    { "-", 0 }, { 0, 0 },
};
static const struct name remap_flags[] = {
    { "M", MREMAP_MAYMOVE }, { "F", MREMAP_FIXED }, { "D", MREMAP_DONTUNMAP }, { "-", 0 }, { 0, 0 },
};
static const struct name lock_flags[] = { { "C", MCL_CURRENT }, { "F", MCL_FUTURE }, { "O", MCL_ONFAULT }, { 0, 0 } };
static const struct name sync_flags[] = {
    { "A", MS_ASYNC }, { "S", MS_SYNC }, { "I", MS_INVALIDATE }, { "-", 0 }, { 0, 0 },
};

static void bad(const struct operation *op, const char *why)
{
    complain("vmscript: %s: %s (--help lists the operations)\n", op->source, why);
    quit(2);
}

/* The whole field as a number, or 0. */
static int numeric(const struct operation *op, int index, ulong *value)
{
    const char *cursor = op->field[index];

    return parse_ulong(&cursor, value) && cursor == op->field[index] + op->length[index];
}

static ulong letters(const struct operation *op, int index, const struct name *table)
{
    ulong flags = 0;

    for (int i = 0; i < op->length[index]; i++) {
        const struct name *entry = table;
        while (entry->name && entry->name[0] != op->field[index][i])
            entry++;
        if (!entry->name)
            bad(op, "unknown flag letter");
        flags |= entry->value;
    }
    return flags;
}

/* Letters or one number.  "3" is a letter of map_flags, so map() looks there first. */
static ulong flags_of(const struct operation *op, int index, const struct name *table)
{
    ulong number;

    return numeric(op, index, &number) ? number : letters(op, index, table);
}

static ulong by_name(const struct operation *op, int index, const struct name *table)
{
    ulong number;

    if (numeric(op, index, &number))
        return number;
    for (; table->name; table++)
        if ((int)strlen(table->name) == op->length[index] && starts_with(op->field[index], table->name))
            return table->value;
    bad(op, "unknown name");
    return 0;
}

static int has_letter(const struct operation *op, int index, char letter)
{
    if (index >= op->nr_fields)
        return 0;
    for (int i = 0; i < op->length[index]; i++)
        if (op->field[index][i] == letter)
            return 1;
    return 0;
}

/* [base][pages][~bytes]: bytes from `origin`, or from A, H or 0 when the field says so. */
static ulong quantity(const struct operation *op, int index, ulong origin)
{
    const char *cursor = op->field[index], *end = cursor + op->length[index];
    ulong pages = 0, bytes = 0, base = origin;

    if (*cursor == '~') {
        base = 0;
    } else if (*cursor == 'A' || *cursor == 'H') {
        base = *cursor++ == 'A' ? away : heap;
        if (cursor < end && *cursor == '+') {
            cursor++;
            if (!parse_ulong(&cursor, &pages))
                bad(op, "a number of pages was expected after +");
        }
    } else if (!parse_ulong(&cursor, &pages)) {
        bad(op, "a page number was expected");
    }
    if (cursor < end && *cursor == '~') {
        cursor++;
        if (!parse_ulong(&cursor, &bytes))
            bad(op, "a number of bytes was expected after ~");
    }
    if (cursor != end)
        bad(op, "a page number was expected");
    return base + pages * PAGE_SIZE + bytes;
}

static byte *address_of(const struct operation *op, int index)
{
    return (byte *)quantity(op, index, ARENA);
}

static ulong length_of(const struct operation *op, int index)
{
    return quantity(op, index, 0);
}

static int in_arena(ulong address)
{
    return address >= ARENA && address < ARENA + ARENA_PAGES * PAGE_SIZE;
}

static void show_result(const struct operation *op, long result)
{
    print("%s %s\n", op->source, errno_name(result));
}

/* A call whose value is an address: "@page", "@away" for one outside the arena. */
static void show_address(const struct operation *op, long result)
{
    if (is_error(result)) {
        show_result(op, result);
    } else if (in_arena(result)) {
        print("%s @%lu\n", op->source, ((ulong)result - ARENA) / PAGE_SIZE);
    } else {
        away = result;
        print("%s @away\n", op->source);
    }
}

/* The value of a guarded access, or the signal it raised. */
static void show_access(const struct operation *op, int value, const char *good)
{
    if (value < 0)
        print("%s sig%d code%d\n", op->source, last_fault.signal, last_fault.code);
    else if (good)
        print("%s %s\n", op->source, good);
    else
        print("%s =%d\n", op->source, value);
}

/* A file of FILE_PAGES pages, page k holding k+101 bytes; made at the first use. */
static int file_descriptor(void)
{
    byte page[PAGE_SIZE];

    if (file >= 0)
        return file;
    file = checked("memfd_create", sys_memfd_create("vmscript", 0));
    for (int k = 0; k < FILE_PAGES; k++) {
        memset(page, k + 101, sizeof page);
        checked("pwrite64", sys_pwrite(file, page, sizeof page, k * PAGE_SIZE));
    }
    return file;
}

static void map(const struct operation *op)
{
    ulong flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, number, offset = 0;
    int fd = -1;

    if (op->nr_fields > 3) {
        int one_letter = op->length[3] == 1 && op->field[3][0] == '3';
        if (!one_letter && numeric(op, 3, &number)) {
            flags = number;
        } else {
            flags |= letters(op, 3, map_flags);
            if (has_letter(op, 3, 'S'))
                flags = (flags & ~MAP_TYPE) | MAP_SHARED;
            if (has_letter(op, 3, 'V'))
                flags = (flags & ~MAP_TYPE) | MAP_SHARED_VALIDATE;
            if (has_letter(op, 3, 'H') || has_letter(op, 3, '3'))
                flags &= ~MAP_FIXED;
            if (has_letter(op, 3, 'E'))
                flags = (flags & ~MAP_FIXED) | MAP_FIXED_NOREPLACE;
            if (has_letter(op, 3, 'F')) {
                flags &= ~MAP_ANONYMOUS;
                fd = file_descriptor();
            }
        }
    }
    if (op->nr_fields > 4)
        offset = length_of(op, 4);
    byte *address = address_of(op, 0);
    long result = sys_mmap(address, length_of(op, 1), flags_of(op, 2, protections), flags, fd, offset);
    if (result == (long)address)
        show_result(op, 0);
    else
        show_address(op, result);
}

static void remap(const struct operation *op)
{
    byte *target = op->nr_fields > 4 ? address_of(op, 4) : 0;
    long result = sys_mremap(address_of(op, 0), length_of(op, 1), length_of(op, 2), flags_of(op, 3, remap_flags), target);

    show_address(op, result);
}

static void write_byte(const struct operation *op)
{
    byte *address = address_of(op, 0);
    ulong value = ((ulong)address - ARENA) / PAGE_SIZE % 250 + 1;

    if (op->nr_fields > 1 && !numeric(op, 1, &value))
        bad(op, "a value was expected");
    show_access(op, guarded_store(address, value & 0xff), "ok");
}

static void write_pages(const struct operation *op)
{
    byte *address = address_of(op, 0);
    ulong end = length_of(op, 1);
    int result = 0;

    for (ulong at = 0; at < end && result >= 0; at += PAGE_SIZE)
        result = guarded_store(address + at, ((ulong)address + at - ARENA) / PAGE_SIZE % 250 + 1);
    show_access(op, result, "ok");
}

static void read_pages(const struct operation *op)
{
    byte *address = address_of(op, 0);
    ulong end = length_of(op, 1);
    int sum = 0;

    for (ulong at = 0; at < end; at += PAGE_SIZE) {
        int value = guarded_load(address + at);
        if (value < 0) {
            show_access(op, value, 0);
            return;
        }
        sum += value;
    }
    show_access(op, sum, 0);
}

static void show_mincore(const struct operation *op)
{
    static byte resident[4096];
    ulong length = length_of(op, 1), pages = (length + PAGE_SIZE - 1) / PAGE_SIZE;

    if (pages > sizeof resident)
        bad(op, "too many pages");
    long result = SYSCALL(__NR_mincore, address_of(op, 0), length, resident);
    if (is_error(result)) {
        show_result(op, result);
        return;
    }
    print("%s =", op->source);
    for (ulong i = 0; i < pages; i++)
        print("%d", resident[i] & 1);
    print("\n");
}

static void set_brk(const struct operation *op)
{
    ulong wanted = quantity(op, 0, heap);
    ulong result = sys_brk(wanted);

    if (result == wanted)
        show_result(op, 0);
    else
        print("%s refused\n", op->source);
}

/* What a limit counts now, in pages: VmSize or VmData of /proc/self/status; 0 for the others. */
static ulong pages_used(int resource)
{
    const char *key = resource == RLIMIT_AS ? "VmSize:" : "VmData:";
    int fd = checked("/proc/self/status", sys_open("/proc/self/status", O_RDONLY, 0));
    long n = checked("read", sys_read(fd, text, sizeof text - 1));
    ulong kilobytes = 0;

    sys_close(fd);
    text[n] = 0;
    if (resource != RLIMIT_AS && resource != RLIMIT_DATA)
        return 0;
    for (const char *cursor = text; *cursor; cursor++) {
        if (!starts_with(cursor, key))
            continue;
        for (cursor += strlen(key); *cursor == ' ' || *cursor == '\t';)
            cursor++;
        parse_ulong(&cursor, &kilobytes);
    }
    return kilobytes * 1024 / PAGE_SIZE;
}

static void set_limit(const struct operation *op)
{
    int resource = by_name(op, 0, resources);
    const char *cursor = op->field[1], *end = cursor + op->length[1];
    ulong pages = *cursor == '+' ? pages_used(resource) : 0, number;
    struct rlimit limit;

    if (*cursor == '+')
        cursor++;
    if (!parse_ulong(&cursor, &number) || cursor != end)
        bad(op, "a number of pages was expected");
    checked("getrlimit", SYSCALL(__NR_getrlimit, resource, &limit));
    limit.rlim_cur = (pages + number) * PAGE_SIZE;
    show_result(op, SYSCALL(__NR_setrlimit, resource, &limit));
}

/* Calls line() for each line of a file in /proc. */
static void for_each_line(const char *path, void (*line)(const char *))
{
    int fd = checked(path, sys_open(path, O_RDONLY, 0));
    long used = 0, n;

    while ((n = sys_read(fd, text + used, sizeof text - 1 - used)) > 0) {
        char *start = text;

        used += n;
        for (char *at = text; at < text + used; at++) {
            if (*at != '\n')
                continue;
            *at = 0;
            line(start);
            start = at + 1;
        }
        used -= start - text;
        memcpy(text, start, used);
    }
    sys_close(fd);
    checked(path, n);
}

struct area {
    ulong start, end;           /* clipped to the arena */
    char permissions[5];
};

static ulong hexadecimal(const char **cursor)
{
    char digits[20] = "0x";
    int n = 2;

    while (n < 19 && ((**cursor >= '0' && **cursor <= '9') || (**cursor >= 'a' && **cursor <= 'f')))
        digits[n++] = *(*cursor)++;
    digits[n] = 0;
    const char *from = digits;
    ulong value = 0;
    parse_ulong(&from, &value);
    return value;
}

/* "start-end perms ..." of maps and smaps; 0 for another line or an area outside the arena. */
static int parse_area(const char *line, struct area *area)
{
    area->start = hexadecimal(&line);
    if (*line++ != '-')
        return 0;
    area->end = hexadecimal(&line);
    if (*line++ != ' ')
        return 0;
    memcpy(area->permissions, line, 4);
    area->permissions[4] = 0;
    if (area->start < ARENA)
        area->start = ARENA;
    if (area->end > ARENA + ARENA_PAGES * PAGE_SIZE)
        area->end = ARENA + ARENA_PAGES * PAGE_SIZE;
    return area->start < area->end;
}

static void show_area(const char *line)
{
    struct area area;

    if (parse_area(line, &area))
        print(" %lu+%lu%s", (area.start - ARENA) / PAGE_SIZE, (area.end - area.start) / PAGE_SIZE, area.permissions);
}

static void show_areas(void)
{
    print("areas");
    for_each_line("/proc/self/maps", show_area);
    print("\n");
}

#define MAX_AREAS 4096
static struct area areas[MAX_AREAS];
static int nr_areas;

static void remember_area(const char *line)
{
    if (nr_areas < MAX_AREAS && parse_area(line, &areas[nr_areas]))
        nr_areas++;
}

/* The first byte of every readable page that is not zero.  Areas are listed first and read afterwards: a read can
 * change them (MAP_GROWSDOWN). */
static void show_data(void)
{
    nr_areas = 0;
    for_each_line("/proc/self/maps", remember_area);
    print("data");
    for (int i = 0; i < nr_areas; i++)
        for (ulong at = areas[i].start; at < areas[i].end; at += PAGE_SIZE) {
            int value = guarded_load((byte *)at);
            if (value > 0)
                print(" %lu=%d", (at - ARENA) / PAGE_SIZE, value);
        }
    print("\n");
}

/* What smaps says of each area, in kB where it says kB, and those flags that depend on the program alone. */
static int smaps_inside;

static void show_smaps_line(const char *line)
{
    static const struct name counters[] = {
        { "Rss:", 0 }, { "Shared_Clean:", 0 }, { "Shared_Dirty:", 0 }, { "Private_Clean:", 0 }, { "Private_Dirty:", 0 },
        { "Anonymous:", 0 }, { "LazyFree:", 0 }, { "Swap:", 0 }, { "Locked:", 0 }, { 0, 0 },
    };
    static const char flags[][3] = {
        "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "sr", "rr", "dc", "de", "lf", "ac", "nr", "wf", "dd",
        "hg", "nh", "mg",
    };
    struct area area;

    if (parse_area(line, &area)) {
        smaps_inside = 1;
        print("smaps %lu+%lu%s", (area.start - ARENA) / PAGE_SIZE, (area.end - area.start) / PAGE_SIZE, area.permissions);
        return;
    }
    const char *cursor = line;
    hexadecimal(&cursor);
    if (cursor > line && *cursor == '-')
        smaps_inside = 0; /* the head of an area elsewhere */
    if (!smaps_inside)
        return;
    for (const struct name *counter = counters; counter->name; counter++) {
        if (!starts_with(line, counter->name))
            continue;
        ulong value = 0;
        for (cursor = line + strlen(counter->name); *cursor == ' ';)
            cursor++;
        parse_ulong(&cursor, &value);
        if (value)
            print(" %s%lu", counter->name, value);
    }
    if (!starts_with(line, "VmFlags:"))
        return;
    for (cursor = line + 8; *cursor; cursor++)
        for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
            if (cursor[-1] == ' ' && cursor[0] == flags[i][0] && cursor[1] == flags[i][1])
                print(" %s", flags[i]);
    print("\n");
}

static void show_smaps(void)
{
    smaps_inside = 0;
    for_each_line("/proc/self/smaps", show_smaps_line);
}

/* How many fields each verb needs and takes. */
static const struct {
    char verb;
    byte least, most;
} verbs[] = {
    { 'm', 3, 5 }, { 'u', 2, 2 }, { 'p', 3, 3 }, { 'w', 1, 2 }, { 'r', 1, 1 }, { 'x', 1, 1 }, { 'W', 2, 2 },
    { 'R', 2, 2 }, { 'v', 4, 5 }, { 'l', 2, 3 }, { 'k', 2, 2 }, { 'L', 1, 1 }, { 'K', 0, 0 }, { 'a', 3, 3 },
    { 'y', 3, 3 }, { 'c', 2, 2 }, { 't', 1, 1 }, { 'b', 1, 1 }, { 'q', 2, 2 }, { 'M', 0, 0 }, { 'D', 0, 0 },
    { 'Z', 0, 0 },
};

static void parse(const char *source, struct operation *op)
{
    const char *cursor = source + 1;

    *op = (struct operation){ .source = source, .verb = source[0] };
    while (*cursor == ':') {
        if (op->nr_fields == MAX_FIELDS)
            bad(op, "too many fields");
        op->field[op->nr_fields] = ++cursor;
        while (*cursor && *cursor != ':')
            cursor++;
        op->length[op->nr_fields] = cursor - op->field[op->nr_fields];
        op->nr_fields++;
    }
    if (*cursor)
        bad(op, "unknown operation");
    for (unsigned i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (verbs[i].verb != op->verb)
            continue;
        if (op->nr_fields < verbs[i].least || op->nr_fields > verbs[i].most)
            bad(op, "wrong number of fields");
        return;
    }
    bad(op, "unknown operation");
}

static void perform(const struct operation *op)
{
    switch (op->verb) {
    case 'm':
        map(op);
        break;
    case 'u':
        show_result(op, sys_munmap(address_of(op, 0), length_of(op, 1)));
        break;
    case 'p':
        show_result(op, sys_mprotect(address_of(op, 0), length_of(op, 1), flags_of(op, 2, protections)));
        break;
    case 'w':
        write_byte(op);
        break;
    case 'r':
        show_access(op, guarded_load(address_of(op, 0)), 0);
        break;
    case 'x':
        show_access(op, guarded_call(address_of(op, 0)), "ok");
        break;
    case 'W':
        write_pages(op);
        break;
    case 'R':
        read_pages(op);
        break;
    case 'v':
        remap(op);
        break;
    case 'l':
        if (op->nr_fields > 2)
            show_result(op, SYSCALL(__NR_mlock2, address_of(op, 0), length_of(op, 1), has_letter(op, 2, 'O')));
        else
            show_result(op, SYSCALL(__NR_mlock, address_of(op, 0), length_of(op, 1)));
        break;
    case 'k':
        show_result(op, SYSCALL(__NR_munlock, address_of(op, 0), length_of(op, 1)));
        break;
    case 'L':
        show_result(op, SYSCALL(__NR_mlockall, flags_of(op, 0, lock_flags)));
        break;
    case 'K':
        show_result(op, SYSCALL(__NR_munlockall));
        break;
    case 'a':
        show_result(op, sys_madvise(address_of(op, 0), length_of(op, 1), by_name(op, 2, advices)));
        break;
    case 'y':
        show_result(op, SYSCALL(__NR_msync, address_of(op, 0), length_of(op, 1), flags_of(op, 2, sync_flags)));
        break;
    case 'c':
        show_mincore(op);
        break;
    case 't':
        show_result(op, sys_ftruncate(file_descriptor(), length_of(op, 0)));
        break;
    case 'b':
        set_brk(op);
        break;
    case 'q':
        set_limit(op);
        break;
    case 'M':
        show_areas();
        break;
    case 'D':
        show_data();
        break;
    case 'Z':
        show_smaps();
        break;
    }
}

/* The index of the f} that closes the f{ at `open`; check_all has seen that there is one. */
static int closing(int open)
{
    int depth = 0, i = open;

    do {
        if (!strcmp(operations[i], "f{"))
            depth++;
        else if (!strcmp(operations[i], "f}"))
            depth--;
        i++;
    } while (depth);
    return i - 1;
}

static void run(int first, int end)
{
    for (int i = first; i < end; i++) {
        struct operation op;

        if (strcmp(operations[i], "f{")) {
            parse(operations[i], &op);
            perform(&op);
            continue;
        }
        int last = closing(i), status;
        int child = fork_flushed();
        if (child < 0) {
            print("f{ %s\n", errno_name(child));
        } else if (!child) {
            run(i + 1, last);
            quit(0);
        } else {
            checked("wait4", sys_wait4(child, &status, 0));
            print("child ");
            print_wait_status(status);
            print("\n");
        }
        i = last;
    }
}

/* Cuts at blanks; everything is looked at before anything is done. */
static void add_operations(char *words)
{
    while (*words) {
        while (*words == ' ' || *words == '\n' || *words == '\t')
            *words++ = 0;
        if (!*words)
            break;
        if (nr_operations == MAX_OPERATIONS) {
            complain("vmscript: more than %d operations\n", MAX_OPERATIONS);
            quit(2);
        }
        operations[nr_operations++] = words;
        while (*words && *words != ' ' && *words != '\n' && *words != '\t')
            words++;
    }
}

static void check_all(void)
{
    int depth = 0;

    for (int i = 0; i < nr_operations; i++) {
        struct operation op;

        if (!strcmp(operations[i], "f{")) {
            depth++;
        } else if (!strcmp(operations[i], "f}")) {
            if (!depth--) {
                complain("vmscript: f} without f{\n");
                quit(2);
            }
        } else {
            parse(operations[i], &op);
        }
    }
    if (depth) {
        complain("vmscript: f{ without f}\n");
        quit(2);
    }
}

static void read_standard_input(void)
{
    ulong used = 0;
    long n;

    while ((n = checked("standard input", sys_read(0, input + used, sizeof input - 1 - used))) > 0)
        used += n;
    add_operations(input);
}

int main(int argc, char **argv)
{
    if (argc < 2 || !strcmp(argv[1], "--help")) {
        print("%s", help);
        return argc < 2 ? 2 : 0;
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-"))
            read_standard_input();
        else
            add_operations(argv[i]);
    }
    check_all();
    guard_install();
    heap = (sys_brk(0) + PAGE_SIZE - 1) & -PAGE_SIZE;
    run(0, nr_operations);
    show_areas();
    show_data();
    return 0;
}
