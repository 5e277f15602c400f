/* Which known name somebody meant who wrote another. Pure. */
#pragma once

#include "base.h"

/* Edits (insert, delete, change, swap of neighbours) between two names, letter case ignored;
 * SIZE_MAX if one is longer than any of ours could be (64). */
size_t nearest_distance(const char *a, const char *b);

/* How far `given` is from the known `known`: the least of several is what was meant. SIZE_MAX: too
 * far to be meant. A beginning of four letters or more (`secret`) or something tacked on
 * (`retention_days`) is near. */
size_t nearest_nearness(const char *given, const char *known);
