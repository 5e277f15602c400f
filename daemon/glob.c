/* Shell-like patterns and comma-separated lists of them.
 *
 * A `?` is one byte, a `*` any number of them; nothing else is special and nothing can be quoted:
 * the ids and types that are matched contain neither. Only the latest `*` is ever taken back, so a
 * hostile value costs pattern length times value length at worst. A blank inside an item is
 * refused: it is nearly always a forgotten comma, and the pattern would silently match nothing.
 */
#include "glob.h"

#include <errno.h>
#include <string.h>

bool glob_match(const char *pattern, struct span value)
{
	if (!value.s)
		return strcmp(pattern, "*") == 0;
	const char *star = NULL; /* behind the latest `*` */
	size_t at = 0, star_at = 0;
	while (at < value.len) {
		if (*pattern == '*') {
			star = ++pattern;
			star_at = at;
		} else if (*pattern != '\0' && (*pattern == '?' || *pattern == value.s[at])) {
			pattern++;
			at++;
		} else if (star) {
			pattern = star;
			at = ++star_at;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trimmed(const char *s, size_t len)
{
	while (len > 0 && is_blank(s[0])) {
		s++;
		len--;
	}
	while (len > 0 && is_blank(s[len - 1]))
		len--;
	return (struct span) { s, len };
}

static int add_item(struct glob_list *list, struct span item)
{
	bool excludes = item.len > 0 && item.s[0] == '!';
	if (excludes)
		item = trimmed(item.s + 1, item.len - 1);
	if (item.len == 0 || item.s[0] == '!')
		return -EINVAL;
	for (size_t i = 0; i < item.len; i++)
		if (is_blank(item.s[i]))
			return -EINVAL;
	char *pattern = strndup(item.s, item.len);
	if (!pattern)
		return -ENOMEM;
	list->patterns[list->n] = pattern;
	list->excludes[list->n] = excludes;
	list->n++;
	list->has_include = list->has_include || !excludes;
	return 0;
}

static size_t count_items(const char *text)
{
	size_t n = 1;
	for (; *text; text++)
		n += *text == ',';
	return n;
}

int glob_list_parse(struct glob_list *list, const char *text)
{
	*list = (struct glob_list) { 0 };
	size_t n = count_items(text);
	if (n > GLOB_LIST_MAX)
		return -E2BIG;
	CLEANUP(glob_list_finish)
	struct glob_list new = {
		.patterns = calloc(n, sizeof(char *)),
		.excludes = calloc(n, sizeof(bool)),
	};
	if (!new.patterns || !new.excludes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		size_t len = strcspn(text, ",");
		int r = add_item(&new, trimmed(text, len));
		if (r < 0)
			return r;
		text += len + 1;
	}
	*list = new;
	new = (struct glob_list) { 0 };
	return 0;
}

void glob_list_finish(struct glob_list *list)
{
	if (!list)
		return;
	for (size_t i = 0; i < list->n; i++)
		free(list->patterns[i]);
	free(list->patterns);
	free(list->excludes);
	*list = (struct glob_list) { 0 };
}

bool glob_list_match(const struct glob_list *list, struct span value)
{
	return glob_list_match_any(list, &value, 1);
}

/* An absent name beside a present one changes nothing: what fits it, `*`, fits all. */
static bool fits_any(const char *pattern, const struct span *names, size_t n)
{
	if (n == 0)
		return glob_match(pattern, SPAN_ABSENT);
	for (size_t i = 0; i < n; i++)
		if (glob_match(pattern, names[i]))
			return true;
	return false;
}

bool glob_list_match_any(const struct glob_list *list, const struct span *names, size_t n)
{
	bool included = !list->has_include;
	for (size_t i = 0; i < list->n; i++) {
		if (included && !list->excludes[i])
			continue;
		if (!fits_any(list->patterns[i], names, n))
			continue;
		if (list->excludes[i])
			return false;
		included = true;
	}
	return included;
}
