#include "screen.h"

#include <string.h>

/* One pass over the headers collects what matters, then one list of rules judges it. Strictness is
 * the point: a sender that needs any of this is not one that we know, and a refused delivery is
 * repeated, while a smuggled one is believed.
 */

#define LENGTH_DIGITS_MAX 10

struct seen {
	size_t n_host, n_length, n_coding;
	size_t n_once[SCREEN_ONCE_MAX];
	struct span length, coding;
	bool expects_continue, closes;
};

static int lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

bool screen_name_is(struct span name, const char *lower_case)
{
	size_t i = 0;

	if (!name.s)
		return false;
	for (; i < name.len && lower_case[i]; i++) {
		if (lower(name.s[i]) != lower_case[i])
			return false;
	}
	return i == name.len && !lower_case[i];
}

/* RFC 9110, 5.6.2: token. */
static bool is_token(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		int c = lower(s.s[i]);

		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			continue;
		if (c == 0 || !strchr("!#$%&'*+-.^_`|~", c))
			return false;
	}
	return s.len > 0;
}

static bool is_clean_value(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.s[i];

		if ((c < ' ' && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

/* Does a comma-separated list hold the token? */
static bool list_holds(struct span list, const char *token)
{
	size_t start = 0;

	for (size_t i = 0; i <= list.len; i++) {
		struct span item;

		if (i < list.len && list.s[i] != ',')
			continue;
		item = (struct span) { list.s + start, i - start };
		while (item.len && (item.s[0] == ' ' || item.s[0] == '\t')) {
			item.s++;
			item.len--;
		}
		while (item.len && (item.s[item.len - 1] == ' ' || item.s[item.len - 1] == '\t'))
			item.len--;
		if (screen_name_is(item, token))
			return true;
		start = i + 1;
	}
	return false;
}

static int look_at(struct seen *seen, const struct screen_request *request,
		   const struct screen_header *h)
{
	if (!is_token(h->name))
		return SCREEN_BAD_NAME;
	if (!is_clean_value(h->value))
		return SCREEN_BAD_VALUE;
	if (screen_name_is(h->name, "host"))
		seen->n_host++;
	if (screen_name_is(h->name, "content-length")) {
		seen->n_length++;
		seen->length = h->value;
	}
	if (screen_name_is(h->name, "transfer-encoding")) {
		seen->n_coding++;
		seen->coding = h->value;
	}
	if (screen_name_is(h->name, "expect") && screen_name_is(h->value, "100-continue"))
		seen->expects_continue = true;
	if (screen_name_is(h->name, "connection") && list_holds(h->value, "close"))
		seen->closes = true;
	for (size_t i = 0; i < SCREEN_ONCE_MAX && request->once[i]; i++) {
		if (screen_name_is(h->name, request->once[i]) && ++seen->n_once[i] > 1)
			return SCREEN_REPEATED;
	}
	return 0;
}

bool screen_target(const char *target)
{
	for (; *target; target++) {
		if (*target <= ' ' || *target == 0x7f)
			return false;
	}
	return true;
}

static bool read_length(struct span s, int64_t *ret)
{
	int64_t value = 0;

	if (s.len == 0 || s.len > LENGTH_DIGITS_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.s[i] < '0' || s.s[i] > '9')
			return false;
		value = value * 10 + (s.s[i] - '0');
	}
	*ret = value;
	return true;
}

static int judge_framing(const struct seen *seen, const char *method, bool http_1_1,
			 struct screen_framing *ret)
{
	if (seen->n_length && seen->n_coding)
		return SCREEN_LENGTH_AND_CODING;
	if (seen->n_length > 1 || (seen->n_length && !read_length(seen->length, &ret->length)))
		return SCREEN_BAD_LENGTH;
	if (seen->n_coding &&
	    (seen->n_coding > 1 || !http_1_1 || !screen_name_is(seen->coding, "chunked")))
		return SCREEN_BAD_CODING;
	ret->chunked = seen->n_coding > 0;
	if (ret->chunked)
		ret->length = -1;
	ret->has_body = ret->length != 0;
	if (ret->has_body && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
		return SCREEN_UNEXPECTED_BODY;
	if (!seen->n_length && !seen->n_coding &&
	    (strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
	     strcmp(method, "PATCH") == 0))
		return SCREEN_NO_LENGTH;
	return ret->expects_continue && !ret->has_body ? SCREEN_BAD_EXPECT : 0;
}

int screen_headers(const struct screen_request *request, struct screen_framing *ret)
{
	struct seen seen = { 0 };
	bool http_1_1 = request->version && strcmp(request->version, "HTTP/1.1") == 0;

	*ret = (struct screen_framing) { 0 };
	if (!http_1_1 && (!request->version || strcmp(request->version, "HTTP/1.0") != 0))
		return SCREEN_BAD_VERSION;
	if (request->n_headers > SCREEN_HEADERS_MAX)
		return SCREEN_TOO_MANY_HEADERS;
	for (size_t i = 0; i < request->n_headers; i++) {
		int r = look_at(&seen, request, &request->headers[i]);

		if (r != 0)
			return r;
	}
	if (seen.n_host != 1)
		return SCREEN_BAD_HOST;
	ret->expects_continue = http_1_1 && seen.expects_continue;
	ret->closes = seen.closes;
	return judge_framing(&seen, request->method, http_1_1, ret);
}

const char *screen_outcome_name(enum screen_outcome outcome)
{
	static const char *const names[SCREEN_N_OUTCOMES] = {
		[SCREEN_BAD_VERSION] = "bad_version",
		[SCREEN_TOO_MANY_HEADERS] = "too_many_headers",
		[SCREEN_BAD_NAME] = "bad_name",
		[SCREEN_BAD_VALUE] = "bad_value",
		[SCREEN_BAD_HOST] = "bad_host",
		[SCREEN_BAD_LENGTH] = "bad_length",
		[SCREEN_BAD_CODING] = "bad_coding",
		[SCREEN_LENGTH_AND_CODING] = "length_and_coding",
		[SCREEN_NO_LENGTH] = "no_length",
		[SCREEN_UNEXPECTED_BODY] = "unexpected_body",
		[SCREEN_REPEATED] = "repeated",
		[SCREEN_BAD_TARGET] = "bad_target",
		[SCREEN_BAD_EXPECT] = "bad_expect",
	};

	return names[outcome] ? names[outcome] : "";
}
