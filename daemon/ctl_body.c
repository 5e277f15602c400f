/* Bodies as E2B and executors send them, with fresh ids and now as their time: what `send` tries a
 * set-up with. Keys stand in E2B's order. An event about a sandbox that the caller names carries no
 * run id: the ledger finds its run by time, so that created, paused, resumed and killed sent one
 * after the other make one story.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "json.h"

#include <errno.h>
#include <string.h>

#define SECOND_MS 1000
#define RUN_MS 60000
#define TEMPLATE_ID "rki5dems9wqfm4r03t7g" /* of E2B's documentation */
#define BUILD_ID "b5d1c7de-38c4-4c0d-9d0c-8c7a2e4f1b90"
#define TEAM_ID "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4"
#define METADATA "\"sandbox_metadata\":{\"sent_by\":\"e2b-hookctl\"}"

typedef int (*data_fn)(struct buffer *b, const struct ctl_body *wanted);

/* Seconds, as E2B writes these. */
static const char *seconds_text(int64_t ms, char buf[static CLOCK_TEXT_MAX])
{
	(void)clock_format_ms(ms, buf);
	memcpy(buf + strlen("2026-11-22T10:00:00"), "Z", 2);
	return buf;
}

static int append_plain(struct buffer *b, const struct ctl_body *wanted)
{
	return buffer_append_text(b, METADATA);
}

static int append_timeout(struct buffer *b, const struct ctl_body *wanted)
{
	char end[CLOCK_TEXT_MAX];

	return buffer_appendf(b, METADATA ",\"set_timeout\":\"%s\"",
			      seconds_text(wanted->now_ms + 5 * RUN_MS, end));
}

static int append_report(struct buffer *b, const struct ctl_body *wanted)
{
	char start[CLOCK_TEXT_MAX];

	return buffer_appendf(b,
			      "\"execution\":{\"execution_time\":%d,\"memory_mb\":512,"
			      "\"started_at\":\"%s\",\"vcpu_count\":2}," METADATA,
			      RUN_MS, seconds_text(wanted->now_ms - RUN_MS, start));
}

static int append_kill(struct buffer *b, const struct ctl_body *wanted)
{
	int r = append_report(b, wanted);

	return r < 0 ? r : buffer_append_text(b, ",\"kill_reason\":\"request\"");
}

static int append_execution(struct buffer *b, const struct ctl_body *wanted)
{
	static const char failure[] = "{\"name\":\"ZeroDivisionError\",\"value\":\"division by "
				      "zero\",\"traceback\":\"\"}";
	char id[CTL_UUID_MAX], start[CLOCK_TEXT_MAX], end[CLOCK_TEXT_MAX];
	int r = ctl_make_uuid(id);

	if (r < 0)
		return r;
	return buffer_appendf(
		b,
		"\"code_execution\":{\"execution_id\":\"%s\",\"kind\":\"code\",\"language\":"
		"\"python\",\"started_at\":\"%s\",\"finished_at\":\"%s\",\"duration_ms\":%d,"
		"\"timed_out\":false,\"status\":\"%s\",\"exit_code\":%d,\"error\":%s,"
		"\"vcpu_count\":2,\"memory_mb\":512,\"cost\":null}," METADATA,
		id, clock_format_ms(wanted->now_ms - SECOND_MS, start),
		clock_format_ms(wanted->now_ms, end), SECOND_MS,
		wanted->failed ? "error" : "success", wanted->failed ? 1 : 0,
		wanted->failed ? failure : "null");
}

static const struct body_type {
	const char *name, *type;
	const char *category, *label; /* NULL: left out */
	data_fn data; /* NULL: no event_data */
	bool has_sandbox, names_run;
} types[] = {
	{ "test", "e2b-hookd.test", NULL, NULL, NULL, false, false },
	{ "created", "sandbox.lifecycle.created", "lifecycle", "create", append_plain, true, true },
	{ "resumed", "sandbox.lifecycle.resumed", "lifecycle", "resume", append_plain, true, true },
	{ "updated", "sandbox.lifecycle.updated", "lifecycle", "update", append_timeout, true,
	  true },
	{ "paused", "sandbox.lifecycle.paused", "lifecycle", "pause", append_report, true, true },
	{ "killed", "sandbox.lifecycle.killed", "lifecycle", "kill", append_kill, true, true },
	{ "checkpointed", "sandbox.lifecycle.checkpointed", "", "", append_plain, true, true },
	{ "code_executed", "sandbox.code_executed", "code", "execute", append_execution, true,
	  false },
};

static struct body_type find_type(const char *name)
{
	if (!name)
		return types[0];
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(name, types[i].name) == 0 || strcmp(name, types[i].type) == 0)
			return types[i];
	return (struct body_type) {
		.type = name, .data = append_plain, .has_sandbox = true, .names_run = true
	};
}

static int append_member(struct buffer *b, const char *key, const char *value)
{
	int r = buffer_appendf(b, ",\"%s\":", key);

	return r < 0 ? r : json_append_string(b, (struct span) { value, strlen(value) });
}

/* `i` and 20 of [a-z0-9], as E2B makes them. */
static int make_sandbox_id(char buf[static 22])
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	uint8_t bytes[20];
	int r = signature_random(bytes, sizeof(bytes));

	if (r < 0)
		return r;
	buf[0] = 'i';
	for (size_t i = 0; i < sizeof(bytes); i++)
		buf[i + 1] = digits[bytes[i] % 36];
	buf[21] = '\0';
	return 0;
}

static int append_head(struct buffer *b, const struct body_type *type, int64_t now_ms)
{
	char id[CTL_UUID_MAX], at[CLOCK_TEXT_MAX];
	int r = ctl_make_uuid(id);

	if (r == 0)
		r = buffer_appendf(b, "{\"id\":\"%s\",\"version\":\"v2\"", id);
	if (r == 0)
		r = append_member(b, "type", type->type);
	if (r == 0)
		r = append_member(b, "timestamp", clock_format_ms(now_ms, at));
	if (r == 0 && type->category)
		r = append_member(b, "event_category", type->category);
	if (r == 0 && type->label)
		r = append_member(b, "event_label", type->label);
	return r;
}

static int append_data(struct buffer *b, const struct body_type *type,
		       const struct ctl_body *wanted)
{
	int r = buffer_append_text(b, ",\"event_data\":{");

	if (r == 0)
		r = type->data(b, wanted);
	return r < 0 ? r : buffer_append_text(b, "}");
}

static int append_sandbox(struct buffer *b, const struct body_type *type,
			  const struct ctl_body *wanted)
{
	char sandbox_id[22], run_id[CTL_UUID_MAX];
	int r = make_sandbox_id(sandbox_id);

	if (r == 0)
		r = append_member(b, "sandbox_id",
				  wanted->sandbox_id ? wanted->sandbox_id : sandbox_id);
	if (r == 0 && type->names_run && !wanted->sandbox_id) {
		r = ctl_make_uuid(run_id);
		if (r == 0)
			r = append_member(b, "sandbox_execution_id", run_id);
	}
	if (r == 0)
		r = append_member(b, "sandbox_template_id",
				  wanted->template_id ? wanted->template_id : TEMPLATE_ID);
	if (r == 0)
		r = append_member(b, "sandbox_build_id", BUILD_ID);
	return r < 0 ? r : append_member(b, "sandbox_team_id", TEAM_ID);
}

int ctl_body_append(struct buffer *b, const struct ctl_body *wanted)
{
	const struct body_type type = find_type(wanted->type);
	int r = append_head(b, &type, wanted->now_ms);

	if (r == 0 && type.data)
		r = append_data(b, &type, wanted);
	if (r == 0 && type.has_sandbox) {
		r = append_sandbox(b, &type, wanted);
	} else if (r == 0) {
		if (wanted->sandbox_id)
			r = append_member(b, "sandbox_id", wanted->sandbox_id);
		if (r == 0 && wanted->template_id)
			r = append_member(b, "sandbox_template_id", wanted->template_id);
	}
	return r < 0 ? r : buffer_append_text(b, "}");
}
