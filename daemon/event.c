/* The envelope: whose event this is, when it happened, and of what kind.
 *
 * The alias table below is the one place that knows under which names senders put a field. Names
 * are compared as they are, so `TYPE` is nobody's `type`. Types are an open set: what we do not
 * know is kind other and keeps its text; nothing is refused for being new. What event_data says is
 * event_data.c's part.
 */
#include "event.h"

#include "clock.h"
#include "event_data.h"
#include "event_field.h"
#include "signature.h"

#include <string.h>

/* clock_parse_rfc3339 ends with 2261 as well. */
#define TIME_MS_MAX INT64_C(9214646399999)

struct envelope {
	struct span id, type;
	int64_t timestamp_ns, occurred_at_ms;
	const struct json_value *category, *label, *data, *kill_reason, *ttl_days;
};

#define INTO(member) .offset = offsetof(struct envelope, member)
#define INTO_EVENT(member) .offset = offsetof(struct event, member)

static const struct event_field envelope_fields[] = {
	{ { "type" }, EVENT_FIELD_NAME, INTO(type), .max = EVENT_TYPE_MAX },
	{ { "event_category", "eventCategory" }, EVENT_FIELD_ANY, INTO(category) },
	{ { "event_label", "eventLabel" }, EVENT_FIELD_ANY, INTO(label) },
	{ { "timestamp" }, EVENT_FIELD_TIME_NS, INTO(timestamp_ns) },
	{ { "occurred_at_ms", "occurredAtMs" },
	  EVENT_FIELD_INTEGER,
	  INTO(occurred_at_ms),
	  .max = TIME_MS_MAX },
	{ { "id", "event_id", "eventId" }, EVENT_FIELD_ID, INTO(id) },
	{ { "event_data", "eventData" }, EVENT_FIELD_ANY, INTO(data) },
	{ { "kill_reason", "killReason" }, EVENT_FIELD_ANY, INTO(kill_reason) },
	{ { "events_ttl_days", "eventsTtlDays" }, EVENT_FIELD_ANY, INTO(ttl_days) },
};

/* sandbox_id is required too, but not for every kind. */
static const struct event_field event_fields[] = {
	{ { "version" }, EVENT_FIELD_NAME, INTO_EVENT(version), .max = EVENT_WORD_MAX },
	{ { "sandbox_id", "sandboxId" }, EVENT_FIELD_ID, INTO_EVENT(sandbox_id) },
	{ { "sandbox_execution_id", "sandboxExecutionId" }, EVENT_FIELD_ID, INTO_EVENT(run_id) },
	{ { "sandbox_template_id", "sandboxTemplateId" }, EVENT_FIELD_ID, INTO_EVENT(template_id) },
	{ { "sandbox_template_alias", "sandboxTemplateAlias", "template_alias" },
	  EVENT_FIELD_ID,
	  INTO_EVENT(template_alias) },
	{ { "sandbox_build_id", "sandboxBuildId" }, EVENT_FIELD_ID, INTO_EVENT(build_id) },
	{ { "sandbox_team_id", "sandboxTeamId" }, EVENT_FIELD_ID, INTO_EVENT(team_id) },
};

#define TEST_TYPE "e2b-hookd.test"

static const char *const kind_names[EVENT_N_KINDS] = {
	[EVENT_CREATED] = "created", [EVENT_RESUMED] = "resumed",
	[EVENT_UPDATED] = "updated", [EVENT_PAUSED] = "paused",
	[EVENT_KILLED] = "killed",   [EVENT_CHECKPOINTED] = "checkpointed",
	[EVENT_FORKED] = "forked",   [EVENT_CODE_EXECUTED] = "code_executed",
	[EVENT_TEST] = "test",	     [EVENT_OTHER] = "other",
};

/* The type of an event that came with category and label only. */
static const char *const canonical_types[EVENT_N_KINDS] = {
	[EVENT_CREATED] = "sandbox.lifecycle.created",
	[EVENT_RESUMED] = "sandbox.lifecycle.resumed",
	[EVENT_UPDATED] = "sandbox.lifecycle.updated",
	[EVENT_PAUSED] = "sandbox.lifecycle.paused",
	[EVENT_KILLED] = "sandbox.lifecycle.killed",
	[EVENT_CHECKPOINTED] = "sandbox.lifecycle.checkpointed",
	[EVENT_FORKED] = "sandbox.lifecycle.forked",
	[EVENT_CODE_EXECUTED] = "sandbox.code_executed",
};

/* What may stand behind `sandbox.` or `sandbox.lifecycle.`, and beside which category as a label.
 */
enum label_use { LABEL_NONE, LABEL_LIFECYCLE, LABEL_CODE };
static const struct verb {
	const char *name;
	enum event_kind kind;
	bool in_type;
	enum label_use label;
} verbs[] = {
	{ "created", EVENT_CREATED, true, LABEL_LIFECYCLE },
	{ "resumed", EVENT_RESUMED, true, LABEL_LIFECYCLE },
	{ "updated", EVENT_UPDATED, true, LABEL_LIFECYCLE },
	{ "paused", EVENT_PAUSED, true, LABEL_LIFECYCLE },
	{ "killed", EVENT_KILLED, true, LABEL_LIFECYCLE },
	{ "deleted", EVENT_KILLED, true, LABEL_LIFECYCLE },
	{ "terminated", EVENT_KILLED, true, LABEL_LIFECYCLE },
	{ "checkpointed", EVENT_CHECKPOINTED, true, LABEL_LIFECYCLE },
	{ "forked", EVENT_FORKED, true, LABEL_LIFECYCLE },
	{ "code_executed", EVENT_CODE_EXECUTED, true, LABEL_NONE },
	{ "create", EVENT_CREATED, false, LABEL_LIFECYCLE },
	{ "resume", EVENT_RESUMED, false, LABEL_LIFECYCLE },
	{ "update", EVENT_UPDATED, false, LABEL_LIFECYCLE },
	{ "pause", EVENT_PAUSED, false, LABEL_LIFECYCLE },
	{ "kill", EVENT_KILLED, false, LABEL_LIFECYCLE },
	{ "delete", EVENT_KILLED, false, LABEL_LIFECYCLE },
	{ "terminate", EVENT_KILLED, false, LABEL_LIFECYCLE },
	{ "checkpoint", EVENT_CHECKPOINTED, false, LABEL_LIFECYCLE },
	{ "fork", EVENT_FORKED, false, LABEL_LIFECYCLE },
	{ "execute", EVENT_CODE_EXECUTED, false, LABEL_CODE },
	{ "executed", EVENT_CODE_EXECUTED, false, LABEL_CODE },
};

static struct span span_of(const char *text)
{
	return (struct span) { text, strlen(text) };
}

/* Takes the prefix away if it is there. */
static bool strip_prefix(struct span *s, struct span prefix)
{
	if (s->len < prefix.len || memcmp(s->s, prefix.s, prefix.len) != 0)
		return false;
	s->s += prefix.len;
	s->len -= prefix.len;
	return true;
}

static enum event_kind kind_of_type(struct span type)
{
	if (span_is(type, SPAN_LITERAL(TEST_TYPE)))
		return EVENT_TEST;
	if (!strip_prefix(&type, SPAN_LITERAL("sandbox.")))
		return EVENT_OTHER;
	(void)strip_prefix(&type, SPAN_LITERAL("lifecycle."));
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (verbs[i].in_type && span_is(type, span_of(verbs[i].name)))
			return verbs[i].kind;
	return EVENT_OTHER;
}

const char *event_known_name(size_t n, char buf[static EVENT_NAME_MAX])
{
	static const char *const prefixes[] = { "sandbox.", "sandbox.lifecycle." };
	if (n < EVENT_N_KINDS)
		return kind_names[n];
	n -= EVENT_N_KINDS;
	if (n == 0)
		return TEST_TYPE;
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		for (size_t k = 0; verbs[i].in_type && k < ARRAY_SIZE(prefixes); k++)
			if (--n == 0) {
				(void)snprintf(buf, EVENT_NAME_MAX, "%s%s", prefixes[k],
					       verbs[i].name);
				return buf;
			}
	return NULL;
}

static bool kind_of_label(struct span category, struct span label, enum event_kind *ret)
{
	enum label_use use = LABEL_NONE;
	if (span_is(category, SPAN_LITERAL("lifecycle")))
		use = LABEL_LIFECYCLE;
	else if (span_is(category, SPAN_LITERAL("code")))
		use = LABEL_CODE;
	for (size_t i = 0; use != LABEL_NONE && i < ARRAY_SIZE(verbs); i++) {
		if (verbs[i].label == use && span_is(label, span_of(verbs[i].name))) {
			*ret = verbs[i].kind;
			return true;
		}
	}
	return false;
}

static int read_label(const struct json_value *v, const char *name, struct span *ret, char *detail)
{
	if (v && json_type(v) != JSON_STRING)
		return event_field_problem(EVENT_WRONG_TYPE, "", name, "must be a string", detail);
	*ret = v ? json_string(v) : SPAN_ABSENT;
	return 0;
}

static int read_kind(struct event *event, const struct envelope *e, char *detail)
{
	event->type = e->type;
	if (e->type.s) {
		event->kind = kind_of_type(e->type);
		return 0;
	}
	struct span category = SPAN_ABSENT, label = SPAN_ABSENT;
	int r = read_label(e->category, "event_category", &category, detail);
	if (r == 0)
		r = read_label(e->label, "event_label", &label, detail);
	if (r != 0)
		return r;
	if (!kind_of_label(category, label, &event->kind))
		return event_field_problem(EVENT_MISSING_FIELD, "", "type",
					   "missing, and no known category and label", detail);
	event->type = span_of(canonical_types[event->kind]);
	return 0;
}

static int read_time(struct event *event, const struct envelope *e, char *detail)
{
	bool has_timestamp = e->timestamp_ns != EVENT_ABSENT;
	if (e->occurred_at_ms == EVENT_ABSENT) {
		event->time_unix_ns = has_timestamp ? e->timestamp_ns : 0;
		return has_timestamp ? 0
				     : event_field_problem(EVENT_MISSING_FIELD, "", "timestamp",
							   "missing", detail);
	}
	int64_t occurred_ns = e->occurred_at_ms * CLOCK_NS_PER_MS;
	event->time_unix_ns = has_timestamp ? e->timestamp_ns : occurred_ns;
	int64_t apart_ns = event->time_unix_ns - occurred_ns;
	if (apart_ns >= CLOCK_NS_PER_S || apart_ns <= -CLOCK_NS_PER_S)
		return event_field_problem(EVENT_CONFLICT, "", "timestamp",
					   "occurred_at_ms says something else", detail);
	return 0;
}

static int set_id(struct event *event, struct span sent, struct span body)
{
	if (sent.s) {
		memcpy(event->id, sent.s, sent.len); /* at most EVENT_ID_MAX, as every id */
		event->id[sent.len] = '\0';
		return 0;
	}
	uint8_t digest[32];
	int r = signature_sha256(body.s, body.len, digest);
	char *at = event->id;
	at += snprintf(at, sizeof(event->id), "body:");
	for (size_t i = 0; i < 16 && r == 0; i++)
		at += snprintf(at, 3, "%02x", digest[i]);
	return r;
}

static int read_envelope(struct event *event, struct event_object o, struct envelope *e,
			 char *detail)
{
	int r = event_field_read_all(o, envelope_fields, ARRAY_SIZE(envelope_fields), e, detail);
	if (r == 0)
		r = read_kind(event, e, detail);
	if (r == 0)
		r = read_time(event, e, detail);
	if (r == 0)
		r = event_field_read_all(o, event_fields, ARRAY_SIZE(event_fields), event, detail);
	if (r != 0)
		return r;
	bool needs_sandbox = event->kind != EVENT_OTHER && event->kind != EVENT_TEST;
	if (needs_sandbox && !event->sandbox_id.s)
		return event_field_problem(EVENT_MISSING_FIELD, "", "sandbox_id", "missing",
					   detail);
	return 0;
}

int event_read(struct event *ret, const struct json_value *root, struct span body,
	       char detail[static EVENT_DETAIL_MAX])
{
	struct envelope e;
	*ret = (struct event) {
		.kind = EVENT_OTHER,
		.set_timeout_unix_ms = EVENT_ABSENT,
		.startup_ms = EVENT_ABSENT,
		.report = { false, EVENT_ABSENT, EVENT_ABSENT, EVENT_ABSENT, EVENT_ABSENT },
		.execution = { .started_unix_ms = EVENT_ABSENT,
			       .finished_unix_ms = EVENT_ABSENT,
			       .duration_ms = EVENT_ABSENT,
			       .exit_code = EVENT_ABSENT,
			       .attempt = 1,
			       .final = true,
			       .vcpu_count = EVENT_ABSENT,
			       .memory_mb = EVENT_ABSENT,
			       .cost_nanousd = EVENT_ABSENT },
	};
	detail[0] = '\0';
	int r = read_envelope(ret, (struct event_object) { root, "" }, &e, detail);
	if (r != 0)
		return r;
	r = set_id(ret, e.id, body);
	return r < 0 ? r : event_data_read(ret, e.data, e.kill_reason, detail);
}

void event_finish(struct event *event)
{
	if (!event)
		return;
	free(event->metadata_text);
	event->metadata_text = NULL;
	event->metadata = SPAN_ABSENT;
	json_doc_free(event->data_doc);
	event->data_doc = NULL;
}

const char *event_problem_name(enum event_problem problem)
{
	switch (problem) {
	case EVENT_MISSING_FIELD:
		return "missing_field";
	case EVENT_WRONG_TYPE:
		return "wrong_type";
	case EVENT_BAD_ID:
		return "bad_id";
	case EVENT_BAD_TIME:
		return "bad_time";
	case EVENT_BAD_NUMBER:
		return "bad_number";
	case EVENT_CONFLICT:
		return "conflict";
	}
	return "unknown";
}

int64_t event_second(const struct event *event)
{
	int64_t ns = event->time_unix_ns;
	return ns / CLOCK_NS_PER_S - (ns % CLOCK_NS_PER_S < 0);
}

const char *event_kind_name(enum event_kind kind)
{
	return kind_names[kind];
}

bool event_kind_from_name(struct span name, enum event_kind *ret)
{
	for (size_t i = 0; i < EVENT_N_KINDS; i++) {
		if (span_is(name, span_of(kind_names[i]))) {
			*ret = (enum event_kind)i;
			return true;
		}
	}
	return false;
}

const char *event_status_name(enum event_status status)
{
	switch (status) {
	case EVENT_SUCCESS:
		return "success";
	case EVENT_ERROR:
		return "error";
	case EVENT_TIMEOUT:
		return "timeout";
	case EVENT_STATUS_KILLED:
		return "killed";
	}
	return "unknown";
}

bool event_kind_starts_run(enum event_kind kind)
{
	return kind == EVENT_CREATED || kind == EVENT_RESUMED || kind == EVENT_FORKED;
}

bool event_kind_ends_run(enum event_kind kind)
{
	return kind == EVENT_PAUSED || kind == EVENT_KILLED;
}
