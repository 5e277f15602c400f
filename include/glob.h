/* Shell-like patterns (`*`, `?`) and comma-separated lists of them with `!` exclusions.
 *
 * A list matches a value if one of its inclusions does and none of its exclusions; a list of only
 * exclusions includes all others. An absent value is matched by the pattern `*` alone (CONTRACT: an
 * absent field matches `*` only); lists made of exclusions only match it too. Matching is linear in
 * the value length times pattern length: no backtracking blow-up. `?` is one byte; nothing can be
 * quoted. A zeroed list matches everything.
 */
#pragma once

#include "base.h"

#define GLOB_LIST_MAX 256 /* patterns in a list */

struct glob_list {
	char **patterns; /* without the `!` */
	bool *excludes;
	size_t n;
	bool has_include;
};

bool glob_match(const char *pattern, struct span value);

/* Parses `a*, !b`, blanks around items dropped. -EINVAL: empty text or item, a blank inside an item
 * (a forgotten comma), `!!`; -E2BIG: over GLOB_LIST_MAX items; -ENOMEM. `list` need not be
 * initialised; it is empty after a failure. */
MUST_CHECK int glob_list_parse(struct glob_list *list, const char *text);
void glob_list_finish(struct glob_list *list);

/* Matches one value; or several names of one thing (template id and alias; type and kind): an
 * inclusion or an exclusion counts if it fits any of the present ones. */
bool glob_list_match(const struct glob_list *list, struct span value);
bool glob_list_match_any(const struct glob_list *list, const struct span *names, size_t n);
