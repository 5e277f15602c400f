/* The way of a body: strict reader, then event. What is accepted must be sound all through: strings
 * of valid UTF-8 without NUL, a text that reads back as the same value, ids by the rule, details
 * that are printable. That a sound text is refused for want of memory can only be a mismatch
 * between the scanner and the tree builder.
 */
#include "fuzz_input.h"

#include "buffer.h"
#include "event.h"
#include "json.h"

#include <string.h>

static void check_strings(const struct json_value *v)
{
	check(json_is_utf8(json_key(v), strlen(json_key(v))));
	if (json_type(v) == JSON_STRING)
		check(json_is_utf8(json_string(v).s, json_string(v).len));
	for (const struct json_value *m = json_first(v); m; m = json_next(m))
		check_strings(m);
}

/* What we write, we read; and writing that gives the same text. */
static void check_round_trip(const struct json_value *root)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT((size_t)64 << 20);
	CLEANUP(buffer_finish) struct buffer again = BUFFER_INIT((size_t)64 << 20);
	struct json_doc *doc = NULL;
	check(json_append_value(&text, root) == 0);
	check(json_parse(text.data, text.len, &doc) == 0);
	check(json_append_value(&again, json_root(doc)) == 0);
	check(text.len == again.len && memcmp(text.data, again.data, text.len) == 0);
	json_doc_free(doc);
}

static void check_id(struct span id)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._:#/@+-";
	check(!id.s || (id.len >= 1 && id.len <= EVENT_ID_MAX && strspn(id.s, allowed) == id.len));
}

static void check_event(const struct event *e)
{
	check_id((struct span) { e->id, strlen(e->id) });
	check_id(e->sandbox_id);
	check_id(e->run_id);
	check_id(e->template_id);
	check_id(e->template_alias);
	check_id(e->build_id);
	check_id(e->team_id);
	check_id(e->source_sandbox_id);
	check(e->type.s && e->type.len > 0 && e->type.len <= EVENT_TYPE_MAX);
	check(e->time_unix_ns >= 0 && e->kind < EVENT_N_KINDS);
	check(e->sandbox_id.s || e->kind == EVENT_OTHER || e->kind == EVENT_TEST);
	check(json_is_utf8(e->metadata.s, e->metadata.len));
	check(json_is_utf8(e->kill_reason.s, e->kill_reason.len));
	check(e->kill_reason.len <= EVENT_WORD_MAX);
	if (e->report.present)
		check(event_kind_ends_run(e->kind) && e->report.duration_ms >= 0);
	if (e->kind != EVENT_CODE_EXECUTED)
		return;
	check_id(e->execution.execution_id);
	check(e->execution.duration_ms >= 0 && e->execution.attempt >= 1);
	check(e->execution.failed == (e->execution.status != EVENT_SUCCESS));
	check(json_is_utf8(e->execution.error_value.s, e->execution.error_value.len));
}

static void check_detail(const char *detail)
{
	check(detail[0] != '\0');
	for (const char *c = detail; *c; c++)
		check(*c >= 0x20 && *c < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_doc *doc = NULL;
	int r = json_parse((const char *)data, size, &doc);
	check(r >= 0 && r <= JSON_DUPLICATE_KEY);
	if (r != 0)
		return 0;
	check_strings(json_root(doc));
	check_round_trip(json_root(doc));
	struct event event;
	char detail[EVENT_DETAIL_MAX];
	r = event_read(&event, json_root(doc), (struct span) { (const char *)data, size }, detail);
	check(r >= 0 && r <= EVENT_CONFLICT);
	if (r == 0)
		check_event(&event);
	else
		check_detail(detail);
	event_finish(&event);
	json_doc_free(doc);
	return 0;
}
