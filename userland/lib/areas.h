/* The areas of a range of addresses, from /proc/self/maps. */
#ifndef USERLAND_AREAS_H
#define USERLAND_AREAS_H

#include "sys.h"

/* Calls each(first page, pages) for every area inside [start, end), pages counted from start; returns how many. */
ulong for_each_area(ulong start, ulong end, void (*each)(ulong first, ulong pages));

#endif
