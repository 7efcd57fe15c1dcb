/* Pages filled with a pattern that says which page they are and how often they were written. */
#ifndef USERLAND_PATTERN_H
#define USERLAND_PATTERN_H

#include "sys.h"

#define MIB (1UL << 20)
#define PAGES_PER_MIB (MIB / PAGE_SIZE)

/* Fills `pages` pages; page k gets the pattern of (key, first + k). */
void fill_pages(void *memory, ulong first, ulong pages, ulong key);

/* How many of the pages do not hold that pattern; the first bad one is reported on standard error. */
ulong wrong_pages(const void *memory, ulong first, ulong pages, ulong key);

/* Waits for a child and returns its exit status; a child that died of a signal ends the program. */
int wait_for(int child);

/* The result in one line, and the exit status for main. */
int verdict(const char *what, ulong wrong);

#endif
