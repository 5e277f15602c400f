/* What a body says: every sender's way of putting it ends in the same event, and what cannot be
 * believed is refused under the name of the rule it breaks.
 */
#include "event.h"
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define BODY_MAX ((size_t)2 << 20)

/* A body and what became of it; release with done(). */
struct reading {
	int outcome; /* of json_parse if doc is NULL */
	struct json_doc *doc;
	struct event event;
	char detail[EVENT_DETAIL_MAX];
};

static struct reading read_bytes(const char *body, size_t len)
{
	struct reading r = { 0 };
	CLEANUP_FREE char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, body, len);
	r.outcome = json_parse(copy, len, &r.doc);
	if (r.outcome == 0)
		r.outcome = event_read(&r.event, json_root(r.doc), (struct span) { copy, len },
				       r.detail);
	return r; /* the event moves here, and must not mind */
}

static void done(struct reading *r)
{
	event_finish(&r->event);
	json_doc_free(r->doc);
}
#define AUTO_READING CLEANUP(done) struct reading

static struct reading read_body(const char *body)
{
	struct reading r = read_bytes(body, strlen(body));
	if (!r.doc)
		fail_msg("not JSON: %s", body);
	return r;
}

/* BASE opens a sound envelope of a type, OF takes it to its end with an event_data. */
#define BASE(type) "{\"id\":\"e1\",\"type\":\"" type "\",\"timestamp\":\"2026-11-20T10:00:00Z\","
#define OF(type, data) BASE(type) "\"sandbox_id\":\"s1\",\"event_data\":" data "}"
#define CREATED(rest) BASE("sandbox.lifecycle.created") "\"sandbox_id\":\"s1\"" rest "}"
#define CODE(fields)                                                                               \
	OF("sandbox.code_executed",                                                                \
	   "{\"code_execution\":{\"execution_id\":\"x1\",\"duration_ms\":5" fields "}}")

static struct reading accepted(const char *body)
{
	struct reading r = read_body(body);
	if (r.outcome != 0)
		fail_msg("%s (%s) for: %s", event_problem_name((enum event_problem)r.outcome),
			 r.detail, body);
	assert_string_equal(r.detail, "");
	return r;
}

static void assert_span(struct span s, const char *expected)
{
	if (!expected) {
		assert_null(s.s);
		return;
	}
	assert_non_null(s.s);
	assert_int_equal(s.len, strlen(expected));
	assert_memory_equal(s.s, expected, s.len);
}

struct refusal {
	const char *body;
	int outcome;
	const char *detail_begins;
};

static void assert_refusals(const struct refusal *refusals, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		AUTO_READING r = read_body(refusals[i].body);
		size_t len = strlen(refusals[i].detail_begins);
		if (r.outcome != refusals[i].outcome ||
		    strncmp(r.detail, refusals[i].detail_begins, len) != 0)
			fail_msg("%d `%s` for: %s", r.outcome, r.detail, refusals[i].body);
	}
}

static char *file_of_deliveries(const char *name, size_t *ret_len)
{
	char path[4096];
	const char *root = getenv("HOOKD_SOURCE_ROOT");
	(void)snprintf(path, sizeof(path), "%s/tests/deliveries/%s", root ? root : ".", name);
	CLEANUP_FILE FILE *f = fopen(path, "rb");
	char *data = calloc(1, BODY_MAX);
	assert_non_null(data);
	if (!f)
		fail_msg("cannot open %s", path);
	*ret_len = fread(data, 1, BODY_MAX - 1, f);
	return data;
}

static struct reading read_delivery(const char *name)
{
	size_t len = 0;
	CLEANUP_FREE char *body = file_of_deliveries(name, &len);
	return read_bytes(body, len);
}

/* -1: never an event; 1: an event; 0: the body is not what it is about. */
static int expectation(struct span expect)
{
	static const struct {
		const char *expect;
		int expected;
	} expectations[] = {
		{ "accept", 1 },
		{ "accept_optional", 1 },
		{ "accept_ignoring_extra", 1 },
		{ "accept_safely", 1 },
		{ "accept_if_age_check_off", 1 },
		{ "accept_duplicate", 1 },
		{ "accept_unknown", 1 },
		{ "accept_safely_or_reject_body", 1 },
		{ "reject_stale_or_duplicate", 1 },
		{ "reject_signature_or_accept", 1 },
		{ "reject_or_accept", 1 },
		{ "reject_body", -1 },
		{ "accept_without_numbers_or_reject_body", -1 },
		{ "reject_signature", 0 },
		{ "reject_size", 0 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(expectations); i++)
		if (expect.len == strlen(expectations[i].expect) &&
		    memcmp(expect.s, expectations[i].expect, expect.len) == 0)
			return expectations[i].expected;
	fail_msg("the manifest expects something new: %s", expect.s);
	return 0;
}

static void check_manifest_line(const char *line, size_t len)
{
	struct json_doc *doc = NULL;
	assert_int_equal(json_parse(line, len, &doc), 0);
	const char *file = json_string(json_member(json_root(doc), "file")).s;
	int expected = expectation(json_string(json_member(json_root(doc), "expect")));
	AUTO_READING r = read_delivery(file);
	if ((expected > 0 && r.outcome != 0) || (expected < 0 && r.outcome <= 0) || r.outcome < 0)
		fail_msg("%s: %d %s", file, r.outcome, r.detail);
	json_doc_free(doc);
}

static void reads_every_delivery_as_the_manifest_says(void **state)
{
	size_t len = 0, n = 0;
	CLEANUP_FREE char *manifest = file_of_deliveries("manifest.jsonl", &len);
	for (char *line = manifest, *end; (end = strchr(line, '\n')); line = end + 1, n++)
		check_manifest_line(line, (size_t)(end - line));
	assert_true(n > 70);
}

static void reads_a_created_event_whole(void **state)
{
	AUTO_READING r = read_delivery("24-v2-unicode-metadata.json");
	assert_int_equal(r.outcome, 0);
	const struct event *e = &r.event;
	assert_string_equal(e->id, "4a432f6b-7e2a-4aba-8c57-2c550eb538de");
	assert_int_equal(e->time_unix_ns, INT64_C(1795177800000123000));
	assert_int_equal(e->kind, EVENT_CREATED);
	assert_span(e->type, "sandbox.lifecycle.created");
	assert_span(e->version, "v2");
	assert_span(e->sandbox_id, "i2jr4i90eeszsjqdfbcwx");
	assert_span(e->run_id, "fa85ff49-1baf-4a1f-9094-2937cf4a6cf6");
	assert_span(e->template_id, "k3v9x2m7q1w8e5r4t6y0");
	assert_span(e->template_alias, NULL);
	assert_span(e->build_id, "b5d1c7de-38c4-4c0d-9d0c-8c7a2e4f1b90");
	assert_span(e->team_id, "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4");
	assert_span(e->kill_reason, NULL);
	assert_int_equal(e->startup_ms, EVENT_ABSENT);
	assert_int_equal(e->set_timeout_unix_ms, EVENT_ABSENT);
	assert_false(e->report.present);
	assert_non_null(strstr(e->metadata.s, "\"html\":\"<b>&amp;</b>\""));
	assert_non_null(strstr(e->metadata.s, "\"\":\"empty key\""));
	assert_int_equal(strlen(e->metadata.s), e->metadata.len);
}

static void reads_the_report_of_an_end(void **state)
{
	AUTO_READING killed = read_delivery("11-v2-killed-request.json");
	assert_int_equal(killed.outcome, 0);
	assert_int_equal(killed.event.startup_ms, EVENT_ABSENT);
	assert_int_equal(killed.event.set_timeout_unix_ms, EVENT_ABSENT);
	assert_true(killed.event.report.present);
	assert_int_equal(killed.event.report.vcpu_count, 2);
	assert_int_equal(killed.event.report.memory_mb, 512);
	assert_span(killed.event.kill_reason, "request");
	AUTO_READING seconds = read_delivery("22-v2-killed-execution-time-float-seconds.json");
	assert_true(seconds.event.report.present);
	assert_int_equal(seconds.event.report.duration_ms, 61250);
	assert_int_equal(seconds.event.report.started_unix_ms, INT64_C(1771531138000));
	AUTO_READING old = read_delivery("21-v2-killed-before-2026-no-execution.json");
	assert_int_equal(old.event.kind, EVENT_KILLED);
	assert_false(old.event.report.present);
	assert_span(old.event.kill_reason, NULL);
}

static void reads_compatible_senders(void **state)
{
	AUTO_READING rayito = read_delivery("42-compat-rayito-killed.json");
	assert_int_equal(rayito.event.kind, EVENT_KILLED);
	assert_string_equal(rayito.event.id, "71f4d28d6f4b43e8ba39dcb7c25a94bf");
	assert_int_equal(rayito.event.time_unix_ns, INT64_C(1795187000000000000));
	assert_span(rayito.event.kill_reason, "request");
	AUTO_READING unsaid =
		accepted(BASE("sandbox.killed") "\"sandbox_id\":\"s\",\"kill_reason\":\"\","
						"\"event_data\":{\"kill_reason\":\"timeout\"}}");
	assert_span(unsaid.event.kill_reason, "timeout");
	assert_span(rayito.event.run_id, "microvm-x#0");
	assert_span(rayito.event.template_id,
		    "arn:aws:lambda:eu-west-1:000000000000:microvm-image:base");
	assert_span(rayito.event.version, NULL);
	AUTO_READING forked = read_delivery("41-compat-agentenv-forked.json");
	assert_int_equal(forked.event.kind, EVENT_FORKED);
	assert_span(forked.event.source_sandbox_id, "ooi8ijkq81kj");
	assert_span(forked.event.run_id, NULL);
	assert_span(forked.event.build_id, NULL);
	assert_span(forked.event.team_id, NULL);
	assert_span(forked.event.metadata, "{\"k\":\"v\"}");
	AUTO_READING empty = read_delivery("40-compat-agentenv-created.json");
	assert_span(empty.event.metadata, NULL);
}

static void reads_the_first_version_by_category_and_label(void **state)
{
	AUTO_READING r = read_delivery("35-v1-legacy-camel-category-label.json");
	assert_int_equal(r.outcome, 0);
	assert_int_equal(r.event.kind, EVENT_CREATED);
	assert_span(r.event.type, "sandbox.lifecycle.created");
	assert_string_equal(r.event.id, "body:a6d9d49496382cabe41caf61c1df65f9");
	assert_span(r.event.sandbox_id, "iw6hr4ug7uwvhwprfbghp");
	assert_span(r.event.run_id, "7f722729-caf1-4a78-a732-682b6153da2b");
	assert_span(r.event.template_id, "k3v9x2m7q1w8e5r4t6y0");
	assert_span(r.event.metadata, "{\"agent\":\"billing-summary\",\"env\":\"staging\","
				      "\"user_id\":\"4711\"}");
}

static void reads_unknown_types_as_other(void **state)
{
	AUTO_READING r = read_delivery("25-v2-unknown-future-type.json");
	assert_int_equal(r.event.kind, EVENT_OTHER);
	assert_span(r.event.type, "sandbox.lifecycle.migrated");
	AUTO_READING v3 = read_delivery("26-v3-unknown-version.json");
	assert_int_equal(v3.event.kind, EVENT_CREATED);
	assert_span(v3.event.version, "v3");
}

static void ignores_keys_that_differ_in_case(void **state)
{
	AUTO_READING r = read_delivery("hostile/a17-case-folded-keys.json");
	assert_int_equal(r.outcome, 0);
	assert_int_equal(r.event.kind, EVENT_CREATED);
	assert_span(r.event.sandbox_id, "i7pycdybk266oxtz8q85s");
}

static void names_the_rules_that_hostile_deliveries_break(void **state)
{
	AUTO_READING numbers = read_delivery("hostile/a25-huge-numbers.json");
	assert_int_equal(numbers.outcome, EVENT_BAD_NUMBER);
	AUTO_READING deep = read_delivery("hostile/a13-deep-nesting-arrays.json");
	assert_int_equal(deep.outcome, JSON_TOO_DEEP);
	AUTO_READING twice = read_delivery("hostile/a15-duplicate-keys.json");
	assert_int_equal(twice.outcome, JSON_DUPLICATE_KEY);
	AUTO_READING two = read_delivery("hostile/a02-length-extension-second-object.json");
	assert_int_equal(two.outcome, JSON_NOT_ONE_OBJECT);
}

static void maps_types_to_kinds(void **state)
{
	static const struct {
		const char *type;
		enum event_kind kind;
	} types[] = {
		{ "sandbox.lifecycle.created", EVENT_CREATED },
		{ "sandbox.created", EVENT_CREATED },
		{ "sandbox.lifecycle.resumed", EVENT_RESUMED },
		{ "sandbox.updated", EVENT_UPDATED },
		{ "sandbox.paused", EVENT_PAUSED },
		{ "sandbox.killed", EVENT_KILLED },
		{ "sandbox.deleted", EVENT_KILLED },
		{ "sandbox.lifecycle.deleted", EVENT_KILLED },
		{ "sandbox.lifecycle.terminated", EVENT_KILLED },
		{ "sandbox.lifecycle.checkpointed", EVENT_CHECKPOINTED },
		{ "sandbox.lifecycle.forked", EVENT_FORKED },
		{ "e2b-hookd.test", EVENT_TEST },
		{ "e2b-hookd.test2", EVENT_OTHER },
		{ "sandbox.custom", EVENT_OTHER },
		{ "sandbox.create", EVENT_OTHER },
		{ "sandbox.executed", EVENT_OTHER },
		{ "sandbox.Created", EVENT_OTHER },
		{ "sandbox.test", EVENT_OTHER },
		{ "sandbox.other", EVENT_OTHER },
		{ "sandbox.", EVENT_OTHER },
		{ "sandbox.lifecycle.", EVENT_OTHER },
		{ "sandbox.lifecycle.lifecycle.created", EVENT_OTHER },
		{ "created", EVENT_OTHER },
		{ "xsandbox.created", EVENT_OTHER },
		{ "sandbox.created.x", EVENT_OTHER },
	};
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		char body[300];
		(void)snprintf(body, sizeof(body),
			       "{\"type\":\"%s\",\"timestamp\":\"2026-11-20T10:00:00Z\","
			       "\"sandbox_id\":\"s\"}",
			       types[i].type);
		AUTO_READING r = accepted(body);
		assert_int_equal(r.event.kind, types[i].kind);
		assert_span(r.event.type, types[i].type);
	}
}

static void maps_categories_and_labels_to_kinds(void **state)
{
	static const struct {
		const char *category, *label, *type;
	} labels[] = {
		{ "lifecycle", "create", "sandbox.lifecycle.created" },
		{ "lifecycle", "created", "sandbox.lifecycle.created" },
		{ "lifecycle", "kill", "sandbox.lifecycle.killed" },
		{ "lifecycle", "killed", "sandbox.lifecycle.killed" },
		{ "lifecycle", "delete", "sandbox.lifecycle.killed" },
		{ "lifecycle", "deleted", "sandbox.lifecycle.killed" },
		{ "lifecycle", "update", "sandbox.lifecycle.updated" },
		{ "lifecycle", "pause", "sandbox.lifecycle.paused" },
		{ "lifecycle", "paused", "sandbox.lifecycle.paused" },
		{ "lifecycle", "resume", "sandbox.lifecycle.resumed" },
		{ "lifecycle", "fork", "sandbox.lifecycle.forked" },
		{ "lifecycle", "checkpoint", "sandbox.lifecycle.checkpointed" },
		{ "lifecycle", "execute", NULL },
		{ "lifecycle", "code_executed", NULL },
		{ "lifecycle", "", NULL },
		{ "", "", NULL },
		{ "", "create", NULL },
		{ "code", "create", NULL },
		{ "Lifecycle", "create", NULL },
	};
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		char body[300];
		(void)snprintf(body, sizeof(body),
			       "{\"event_category\":\"%s\",\"eventLabel\":\"%s\",\"type\":\"\","
			       "\"timestamp\":\"2026-11-20T10:00:00Z\",\"sandbox_id\":\"s\"}",
			       labels[i].category, labels[i].label);
		AUTO_READING r = read_body(body);
		assert_int_equal(r.outcome, labels[i].type ? 0 : EVENT_MISSING_FIELD);
		if (labels[i].type)
			assert_span(r.event.type, labels[i].type);
		else
			assert_int_equal(strncmp(r.detail, "type: ", 6), 0);
	}
	AUTO_READING code =
		accepted("{\"event_category\":\"code\",\"event_label\":\"execute\","
			 "\"occurred_at_ms\":5,\"sandbox_id\":\"s\",\"event_data\":"
			 "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":1}}}");
	assert_int_equal(code.event.kind, EVENT_CODE_EXECUTED);
	assert_span(code.event.type, "sandbox.code_executed");
}

static void refuses_what_lacks_a_required_field(void **state)
{
	static const struct refusal refusals[] = {
		{ "{}", EVENT_MISSING_FIELD, "type: " },
		{ "{\"type\":null,\"timestamp\":\"2026-11-20T10:00:00Z\",\"sandbox_id\":\"s\"}",
		  EVENT_MISSING_FIELD, "type: " },
		{ "{\"type\":\"sandbox.created\",\"sandbox_id\":\"s\"}", EVENT_MISSING_FIELD,
		  "timestamp: " },
		{ "{\"type\":\"sandbox.created\",\"sandbox_id\":\"s\",\"timestamp\":null}",
		  EVENT_MISSING_FIELD, "timestamp: " },
		{ BASE("sandbox.created") "\"version\":\"v2\"}", EVENT_MISSING_FIELD,
		  "sandbox_id: " },
		{ BASE("sandbox.created") "\"sandbox_id\":\"\"}", EVENT_MISSING_FIELD,
		  "sandbox_id: " },
		{ BASE("sandbox.created") "\"sandboxId\":null}", EVENT_MISSING_FIELD,
		  "sandbox_id: " },
		{ BASE("sandbox.created") "\"sandbox_id\":\"00000000-0000-0000-0000-"
					  "000000000000\"}",
		  EVENT_MISSING_FIELD, "sandbox_id: " },
		{ OF("sandbox.code_executed", "null"), EVENT_MISSING_FIELD,
		  "event_data.code_execution: " },
		{ OF("sandbox.code_executed", "{\"code_execution\":null}"), EVENT_MISSING_FIELD,
		  "event_data.code_execution: " },
		{ OF("sandbox.code_executed", "{\"code_execution\":{\"duration_ms\":1}}"),
		  EVENT_MISSING_FIELD, "event_data.code_execution.execution_id: " },
		{ OF("sandbox.code_executed",
		     "{\"code_execution\":{\"duration_ms\":1,\"execution_id\":\"\"}}"),
		  EVENT_MISSING_FIELD, "event_data.code_execution.execution_id: " },
		{ OF("sandbox.code_executed", "{\"code_execution\":{\"execution_id\":\"x\"}}"),
		  EVENT_MISSING_FIELD, "event_data.code_execution.duration_ms: " },
		{ OF("sandbox.code_executed",
		     "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":null}}"),
		  EVENT_MISSING_FIELD, "event_data.code_execution.duration_ms: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
}

static void needs_no_sandbox_for_other_and_test(void **state)
{
	AUTO_READING other = accepted(BASE("billing.closed") "\"sandbox_id\":\"\"}");
	assert_span(other.event.sandbox_id, NULL);
	AUTO_READING test = accepted(BASE("e2b-hookd.test") "\"event_data\":[1]}");
	assert_int_equal(test.event.kind, EVENT_TEST);
}

static void refuses_wrong_types_in_used_fields(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"type\":5}", EVENT_WRONG_TYPE, "type: " },
		{ "{\"type\":{}}", EVENT_WRONG_TYPE, "type: " },
		{ "{\"event_category\":1,\"event_label\":\"create\"}", EVENT_WRONG_TYPE,
		  "event_category: " },
		{ CREATED(",\"event_id\":5"), EVENT_WRONG_TYPE, "event_id: " },
		{ CREATED(",\"sandbox_team_id\":[]"), EVENT_WRONG_TYPE, "sandbox_team_id: " },
		{ CREATED(",\"sandboxBuildId\":false"), EVENT_WRONG_TYPE, "sandboxBuildId: " },
		{ CREATED(",\"version\":2"), EVENT_WRONG_TYPE, "version: " },
		{ "{\"type\":\"a\",\"timestamp\":1795177800}", EVENT_WRONG_TYPE, "timestamp: " },
		{ "{\"type\":\"a\",\"occurred_at_ms\":\"1\"}", EVENT_WRONG_TYPE,
		  "occurred_at_ms: " },
		{ CREATED(",\"event_data\":[]"), EVENT_WRONG_TYPE, "event_data: " },
		{ CREATED(",\"event_data\":0"), EVENT_WRONG_TYPE, "event_data: " },
		{ CREATED(",\"event_data\":\"x\""), EVENT_WRONG_TYPE, "event_data: " },
		{ CREATED(",\"event_data\":\"[]\""), EVENT_WRONG_TYPE, "event_data: " },
		{ CREATED(",\"event_data\":\"{}{}\""), EVENT_WRONG_TYPE, "event_data: " },
		{ CREATED(",\"event_data\":\"{\\\"a\\\":1,\\\"a\\\":2}\""), EVENT_WRONG_TYPE,
		  "event_data: " },
		{ OF("sandbox.created", "{\"startup_ms\":\"5\"}"), EVENT_WRONG_TYPE,
		  "event_data.startup_ms: " },
		{ OF("sandbox.updated", "{\"set_timeout\":300}"), EVENT_WRONG_TYPE,
		  "event_data.set_timeout: " },
		{ OF("sandbox.killed", "{\"kill_reason\":{}}"), EVENT_WRONG_TYPE,
		  "event_data.kill_reason: " },
		{ BASE("sandbox.killed") "\"sandbox_id\":\"s\",\"kill_reason\":1}",
		  EVENT_WRONG_TYPE, "kill_reason: " },
		{ OF("sandbox.killed", "{\"execution\":[]}"), EVENT_WRONG_TYPE,
		  "event_data.execution: " },
		{ OF("sandbox.killed", "{\"execution\":{\"started_at\":5}}"), EVENT_WRONG_TYPE,
		  "event_data.execution.started_at: " },
		{ OF("sandbox.paused", "{\"execution\":{\"execution_time\":\"5\"}}"),
		  EVENT_WRONG_TYPE, "event_data.execution.execution_time: " },
		{ OF("sandbox.forked", "{\"source_sandbox_id\":1}"), EVENT_WRONG_TYPE,
		  "event_data.source_sandbox_id: " },
		{ OF("sandbox.code_executed", "{\"code_execution\":[]}"), EVENT_WRONG_TYPE,
		  "event_data.code_execution: " },
		{ CODE(",\"error\":5"), EVENT_WRONG_TYPE, "event_data.code_execution.error: " },
		{ CODE(",\"error\":{\"name\":5}"), EVENT_WRONG_TYPE,
		  "event_data.code_execution.error.name: " },
		{ CODE(",\"timed_out\":1"), EVENT_WRONG_TYPE,
		  "event_data.code_execution.timed_out: " },
		{ CODE(",\"final\":\"yes\""), EVENT_WRONG_TYPE,
		  "event_data.code_execution.final: " },
		{ CODE(",\"status\":0"), EVENT_WRONG_TYPE, "event_data.code_execution.status: " },
		{ CODE(",\"exit_code\":\"0\""), EVENT_WRONG_TYPE,
		  "event_data.code_execution.exit_code: " },
		{ CODE(",\"language\":[]"), EVENT_WRONG_TYPE,
		  "event_data.code_execution.language: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
}

static void ignores_wrong_types_in_fields_it_does_not_use(void **state)
{
	static const char *const bodies[] = {
		CREATED(",\"event_category\":5,\"event_label\":[],\"events_ttl_days\":\"x\""),
		CREATED(",\"kill_reason\":5,\"region\":{}"),
		OF("sandbox.created", "{\"execution\":5,\"set_timeout\":5,\"kill_reason\":5}"),
		OF("sandbox.paused", "{\"startup_ms\":[],\"code_execution\":5}"),
		OF("sandbox.created", "{\"sandbox_metadata\":[1,2]}"),
		OF("sandbox.custom", "[1,2]"),
		OF("sandbox.custom", "\"{broken\""),
		OF("sandbox.custom", "{\"execution\":5}"),
		CODE(",\"error\":{\"traceback\":5},\"context_id\":5,\"stdout_bytes\":\"x\""),
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		AUTO_READING r = accepted(bodies[i]);
		assert_span(r.event.metadata, NULL);
	}
}

static void finds_both_casings_in_conflict(void **state)
{
	static const struct refusal refusals[] = {
		{ CREATED(",\"sandboxId\":\"s2\""), EVENT_CONFLICT, "sandbox_id: " },
		{ CREATED(",\"event_id\":\"e2\""), EVENT_CONFLICT, "id: " },
		{ CREATED(",\"eventId\":\"E1\""), EVENT_CONFLICT, "id: " },
		{ CREATED(",\"sandbox_team_id\":\"a\",\"sandboxTeamId\":\"b\""), EVENT_CONFLICT,
		  "sandbox_team_id: " },
		{ CREATED(",\"event_label\":\"create\",\"eventLabel\":\"kill\""), EVENT_CONFLICT,
		  "event_label: " },
		{ CREATED(",\"event_data\":{\"a\":1},\"eventData\":{\"a\":2}"), EVENT_CONFLICT,
		  "event_data: " },
		{ CREATED(",\"events_ttl_days\":7,\"eventsTtlDays\":8"), EVENT_CONFLICT,
		  "events_ttl_days: " },
		{ CREATED(",\"occurred_at_ms\":1,\"occurredAtMs\":2"), EVENT_CONFLICT,
		  "occurred_at_ms: " },
		{ CREATED(",\"occurred_at_ms\":1795168801000"), EVENT_CONFLICT, "timestamp: " },
		{ CREATED(",\"occurred_at_ms\":1795168799000"), EVENT_CONFLICT, "timestamp: " },
		{ BASE("sandbox.killed") "\"sandbox_id\":\"s\",\"killReason\":\"timeout\","
					 "\"event_data\":{\"kill_reason\":\"request\"}}",
		  EVENT_CONFLICT, "event_data.kill_reason: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
}

static void takes_both_casings_that_agree(void **state)
{
	static const char *const bodies[] = {
		CREATED(",\"sandboxId\":\"s1\",\"event_id\":\"e1\",\"eventId\":\"e1\""),
		CREATED(",\"event_id\":\"\",\"eventId\":\"00000000000000000000000000000000\""),
		CREATED(",\"sandboxId\":null,\"eventData\":{\"a\":[1]},\"event_data\":{\"a\":[1]}"),
		CREATED(",\"occurred_at_ms\":1795168800999"),
		CREATED(",\"occurred_at_ms\":1795168799001,\"occurredAtMs\":1795168799001.0"),
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		AUTO_READING r = accepted(bodies[i]);
		assert_string_equal(r.event.id, "e1");
		assert_span(r.event.sandbox_id, "s1");
		assert_int_equal(r.event.time_unix_ns, INT64_C(1795168800000000000));
	}
}

static void holds_ids_to_their_rule(void **state)
{
	char body[512], id[140];
	for (unsigned c = 1; c < 128; c++) {
		bool allowed = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._:#/@+-",
				      (int)c) != NULL;
		(void)snprintf(body, sizeof(body), CREATED(",\"sandbox_team_id\":\"a\\u%04xb\""),
			       c);
		AUTO_READING r = read_body(body);
		assert_int_equal(r.outcome, allowed ? 0 : EVENT_BAD_ID);
	}
	for (size_t len = 127; len < 132; len++) {
		memset(id, 'i', len);
		id[len] = '\0';
		(void)snprintf(body, sizeof(body),
			       "{\"id\":\"%s\",\"type\":\"a\",\"occurred_at_ms\":1}", id);
		AUTO_READING r = read_body(body);
		assert_int_equal(r.outcome, len <= EVENT_ID_MAX ? 0 : EVENT_BAD_ID);
		if (r.outcome == 0)
			assert_string_equal(r.event.id, id);
	}
}

static void takes_types_and_versions_as_the_open_sets_they_are(void **state)
{
	AUTO_READING r = read_body(BASE("sandbox created; \\u00e9") "\"version\":\"v 2\"}");
	assert_int_equal(r.outcome, 0);
	assert_int_equal(r.event.kind, EVENT_OTHER);
	assert_true(span_is(r.event.type, SPAN_LITERAL("sandbox created; \xc3\xa9")));
	assert_true(span_is(r.event.version, SPAN_LITERAL("v 2")));
}

static void refuses_bad_ids_wherever_they_are_used(void **state)
{
	static const struct refusal refusals[] = {
		{ CREATED(",\"sandbox_build_id\":\"..\""), EVENT_BAD_ID, "sandbox_build_id: " },
		{ CREATED(",\"sandbox_build_id\":\"../x\""), EVENT_BAD_ID, "sandbox_build_id: " },
		{ CREATED(",\"sandbox_build_id\":\"x/..\""), EVENT_BAD_ID, "sandbox_build_id: " },
		{ CREATED(",\"sandbox_build_id\":\"x/../y\""), EVENT_BAD_ID, "sandbox_build_id: " },
		{ CREATED(",\"sandbox_template_id\":\"a b\""), EVENT_BAD_ID,
		  "sandbox_template_id: " },
		{ CREATED(",\"template_alias\":\"\\u00e9\""), EVENT_BAD_ID, "template_alias: " },
		{ CREATED(",\"sandbox_execution_id\":\"a\\u0000\""), EVENT_BAD_ID,
		  "sandbox_execution_id: " },
		{ OF("sandbox.forked", "{\"source_sandbox_id\":\"'\"}"), EVENT_BAD_ID,
		  "event_data.source_sandbox_id: " },
		{ OF("sandbox.code_executed",
		     "{\"code_execution\":{\"execution_id\":\"<x>\",\"duration_ms\":1}}"),
		  EVENT_BAD_ID, "event_data.code_execution.execution_id: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
	AUTO_READING dots = accepted(CREATED(",\"sandbox_build_id\":\"a..b/...//.x\""));
	assert_span(dots.event.build_id, "a..b/...//.x");
}

static void refuses_times_that_are_none(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"type\":\"a\",\"timestamp\":\"\"}", EVENT_MISSING_FIELD, "timestamp: " },
		{ "{\"type\":\"a\",\"timestamp\":\"yesterday\"}", EVENT_BAD_TIME, "timestamp: " },
		{ "{\"type\":\"a\",\"timestamp\":\"0001-01-01T00:00:00Z\"}", EVENT_BAD_TIME,
		  "timestamp: " },
		{ "{\"type\":\"a\",\"timestamp\":\"2026-02-30T00:00:00Z\"}", EVENT_BAD_TIME,
		  "timestamp: " },
		{ "{\"type\":\"a\",\"timestamp\":\"2026-11-20T10:00:00\"}", EVENT_BAD_TIME,
		  "timestamp: " },
		{ "{\"type\":\"a\",\"occurred_at_ms\":-1}", EVENT_BAD_NUMBER, "occurred_at_ms: " },
		{ "{\"type\":\"a\",\"occurred_at_ms\":1.5}", EVENT_BAD_NUMBER, "occurred_at_ms: " },
		{ "{\"type\":\"a\",\"occurred_at_ms\":9214646400000}", EVENT_BAD_NUMBER,
		  "occurred_at_ms: " },
		{ "{\"type\":\"a\",\"occurred_at_ms\":1e400}", EVENT_BAD_NUMBER,
		  "occurred_at_ms: " },
		{ OF("sandbox.updated", "{\"set_timeout\":\"300\"}"), EVENT_BAD_TIME,
		  "event_data.set_timeout: " },
		{ OF("sandbox.killed", "{\"execution\":{\"started_at\":\"now\"}}"), EVENT_BAD_TIME,
		  "event_data.execution.started_at: " },
		{ CODE(",\"finished_at\":\"x\""), EVENT_BAD_TIME,
		  "event_data.code_execution.finished_at: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
}

/* Senders without "absent" in their language write that. */
static void takes_an_empty_time_for_none(void **state)
{
	AUTO_READING envelope =
		accepted("{\"type\":\"a\",\"timestamp\":\"\",\"occurred_at_ms\":5}");
	assert_int_equal(envelope.event.time_unix_ns, 5000000);
	AUTO_READING updated = accepted(OF("sandbox.updated", "{\"set_timeout\":\"\"}"));
	assert_int_equal(updated.event.set_timeout_unix_ms, EVENT_ABSENT);
	AUTO_READING killed =
		accepted(OF("sandbox.killed", "{\"execution\":{\"started_at\":\"\"}}"));
	assert_int_equal(killed.event.report.started_unix_ms, EVENT_ABSENT);
	AUTO_READING code = accepted(CODE(",\"started_at\":\"\",\"finished_at\":\"\""));
	assert_int_equal(code.event.execution.started_unix_ms, EVENT_ABSENT);
	assert_int_equal(code.event.execution.finished_unix_ms, EVENT_ABSENT);
}

static void refuses_numbers_out_of_range(void **state)
{
#define REPORT(fields) OF("sandbox.killed", "{\"execution\":{" fields "}}")
	static const struct refusal refusals[] = {
		{ REPORT("\"execution_time\":-1"), EVENT_BAD_NUMBER,
		  "event_data.execution.execution_time: " },
		{ REPORT("\"execution_time\":-0.5"), EVENT_BAD_NUMBER,
		  "event_data.execution.execution_time: " },
		{ REPORT("\"execution_time\":315619200001"), EVENT_BAD_NUMBER,
		  "event_data.execution.execution_time: " },
		{ REPORT("\"execution_time\":315619200.5"), EVENT_BAD_NUMBER,
		  "event_data.execution.execution_time: " },
		{ REPORT("\"execution_time\":1e400"), EVENT_BAD_NUMBER,
		  "event_data.execution.execution_time: " },
		{ REPORT("\"vcpu_count\":0"), EVENT_BAD_NUMBER,
		  "event_data.execution.vcpu_count: " },
		{ REPORT("\"vcpu_count\":1025"), EVENT_BAD_NUMBER,
		  "event_data.execution.vcpu_count: " },
		{ REPORT("\"vcpu_count\":1.5"), EVENT_BAD_NUMBER,
		  "event_data.execution.vcpu_count: " },
		{ REPORT("\"memory_mb\":16777217"), EVENT_BAD_NUMBER,
		  "event_data.execution.memory_mb: " },
		{ REPORT("\"memory_mb\":-512"), EVENT_BAD_NUMBER,
		  "event_data.execution.memory_mb: " },
		{ OF("sandbox.created", "{\"startup_ms\":86400001}"), EVENT_BAD_NUMBER,
		  "event_data.startup_ms: " },
		{ OF("sandbox.created", "{\"startup_ms\":-1}"), EVENT_BAD_NUMBER,
		  "event_data.startup_ms: " },
		{ OF("sandbox.created", "{\"startup_ms\":0.5}"), EVENT_BAD_NUMBER,
		  "event_data.startup_ms: " },
		{ CODE(",\"exit_code\":2147483648"), EVENT_BAD_NUMBER,
		  "event_data.code_execution.exit_code: " },
		{ CODE(",\"exit_code\":-2147483649"), EVENT_BAD_NUMBER,
		  "event_data.code_execution.exit_code: " },
		{ CODE(",\"exit_code\":0.5"), EVENT_BAD_NUMBER,
		  "event_data.code_execution.exit_code: " },
		{ CODE(",\"attempt\":0"), EVENT_BAD_NUMBER, "event_data.code_execution.attempt: " },
		{ CODE(",\"vcpu_count\":1e308"), EVENT_BAD_NUMBER,
		  "event_data.code_execution.vcpu_count: " },
		{ OF("sandbox.code_executed",
		     "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":86400000001}}"),
		  EVENT_BAD_NUMBER, "event_data.code_execution.duration_ms: " },
		{ OF("sandbox.code_executed",
		     "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":1.5}}"),
		  EVENT_BAD_NUMBER, "event_data.code_execution.duration_ms: " },
	};
	assert_refusals(refusals, ARRAY_SIZE(refusals));
}

static void reads_execution_time_to_the_millisecond(void **state)
{
	static const struct {
		const char *sent;
		int64_t ms;
	} times[] = {
		{ "0", 0 },
		{ "-0", 0 },
		{ "61250", 61250 },
		{ "61.25", 61250 },
		{ "0.0005", 1 },
		{ "0.00049", 0 },
		{ "1.0005", 1001 },
		{ "1.0004999", 1000 },
		{ "2.0015", 2002 },
		{ "86399.9995", 86400000 },
		{ "4.1115", 4112 },
		{ "0.5005", 501 },
		{ "1048.5655", 1048566 },
		{ "1e3", 1000 },
		{ "315619200000", INT64_C(315619200000) },
	};
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		char body[400];
		(void)snprintf(body, sizeof(body),
			       REPORT("\"started_at\":\"2026-11-20T09:00:00Z\","
				      "\"execution_time\":%s"),
			       times[i].sent);
		AUTO_READING r = accepted(body);
		assert_true(r.event.report.present);
		assert_int_equal(r.event.report.duration_ms, times[i].ms);
	}
}

static void books_a_report_only_with_start_and_time(void **state)
{
	static const char *const bodies[] = {
		OF("sandbox.killed", "{}"),
		OF("sandbox.killed", "null"),
		OF("sandbox.killed", "{\"execution\":null}"),
		OF("sandbox.killed", "{\"execution\":{}}"),
		REPORT("\"started_at\":\"2026-11-20T09:00:00Z\""),
		REPORT("\"execution_time\":5,\"started_at\":null"),
		REPORT("\"created_at\":\"2026-11-20T09:00:00Z\",\"vcpu_num\":2"),
		OF("sandbox.created", "{\"execution\":{\"started_at\":\"2026-11-20T09:00:00Z\","
				      "\"execution_time\":5}}"),
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		AUTO_READING r = accepted(bodies[i]);
		assert_false(r.event.report.present);
	}
	AUTO_READING sizeless = accepted(
		OF("sandbox.paused", "{\"execution\":{\"started_at\":\"2026-11-20T09:00:00Z\","
				     "\"execution_time\":5,\"vcpu_count\":null}}"));
	assert_true(sizeless.event.report.present);
	assert_int_equal(sizeless.event.report.vcpu_count, EVENT_ABSENT);
	assert_int_equal(sizeless.event.report.memory_mb, EVENT_ABSENT);
}

static void reads_event_data_that_came_as_text(void **state)
{
	AUTO_READING r = accepted(OF("sandbox.updated",
				     "\" {\\\"set_timeout\\\":\\\"2026-11-20T11:00:00Z\\\","
				     "\\\"sandbox_metadata\\\":{\\\"k\\\":\\\"\\\\u0000\\\"}} \""));
	assert_int_equal(r.event.set_timeout_unix_ms, INT64_C(1795172400000));
	assert_span(r.event.metadata, "{\"k\":\"\xef\xbf\xbd\"}");
	AUTO_READING killed = accepted(OF("sandbox.killed", "\"{\\\"kill_reason\\\":\\\"x\\\"}\""));
	assert_span(killed.event.kill_reason, "x");
	AUTO_READING none = accepted(OF("sandbox.killed", "\"\""));
	assert_null(none.event.data_doc);
}

static void reads_what_each_kind_has_in_event_data(void **state)
{
	AUTO_READING created = accepted(
		OF("sandbox.created", "{\"startup_ms\":150,\"sandbox_metadata\":{\"a\":[1,{}]}}"));
	assert_int_equal(created.event.startup_ms, 150);
	assert_span(created.event.metadata, "{\"a\":[1,{}]}");
	AUTO_READING updated =
		accepted(OF("sandbox.updated", "{\"set_timeout\":\"2026-11-20T11:00:00.9999Z\"}"));
	assert_int_equal(updated.event.set_timeout_unix_ms, INT64_C(1795172400999));
	AUTO_READING alias = accepted(CREATED(",\"sandboxTemplateAlias\":\"my-env\""));
	assert_span(alias.event.template_alias, "my-env");
	AUTO_READING kept = accepted(BASE("sandbox.paused") "\"sandbox_id\":\"abc-6532622b\"}");
	assert_span(kept.event.sandbox_id, "abc-6532622b");
}

static void cuts_long_free_text_at_a_character(void **state)
{
	char reason[300], body[600];
	memset(reason, 'r', EVENT_WORD_MAX - 1);
	(void)snprintf(reason + EVENT_WORD_MAX - 1, 100, "\xc3\xa9xyz");
	(void)snprintf(body, sizeof(body), OF("sandbox.killed", "{\"kill_reason\":\"%s\"}"),
		       reason);
	AUTO_READING r = accepted(body);
	assert_int_equal(r.event.kill_reason.len, EVENT_WORD_MAX - 1);
	AUTO_READING exact = accepted(
		OF("sandbox.killed",
		   "{\"kill_reason\":"
		   "\"0123456789012345678901234567890123456789012345678901234567890123"
		   "01234567890123456789012345678901234567890123456789012345678901\xc3\xa9\"}"));
	assert_int_equal(exact.event.kill_reason.len, EVENT_WORD_MAX);
	AUTO_READING empty = accepted(OF("sandbox.killed", "{\"kill_reason\":\"\"}"));
	assert_span(empty.event.kill_reason, NULL);
	AUTO_READING outer = accepted(BASE("sandbox.killed") "\"sandbox_id\":\"s\",\"killReason\":"
							     "\"timeout\",\"kill_reason\":null}");
	assert_span(outer.event.kill_reason, "timeout");
}

static void reads_an_execution_whole(void **state)
{
	AUTO_READING r = read_delivery("51-code-executed-error.json");
	const struct event_execution *x = &r.event.execution;
	assert_int_equal(r.outcome, 0);
	assert_span(x->execution_id, "180d7a84-c177-4307-86ef-f0bab2bc1a3d");
	assert_span(x->kind_name, "code");
	assert_span(x->language, "python");
	assert_int_equal(x->started_unix_ms, INT64_C(1795190400100));
	assert_int_equal(x->finished_unix_ms, INT64_C(1795190401350));
	assert_int_equal(x->duration_ms, 38);
	assert_int_equal(x->status, EVENT_ERROR);
	assert_true(x->failed);
	assert_int_equal(x->exit_code, 1);
	assert_span(x->error_name, "ZeroDivisionError");
	assert_span(x->error_value, "division by zero");
	assert_int_equal(x->attempt, 1);
	assert_true(x->final);
	assert_int_equal(x->vcpu_count, 2);
	assert_int_equal(x->memory_mb, 512);
	assert_int_equal(x->cost_nanousd, EVENT_ABSENT);
}

static void reads_a_minimal_execution(void **state)
{
	AUTO_READING r = accepted(CODE(""));
	const struct event_execution *x = &r.event.execution;
	assert_int_equal(x->duration_ms, 5);
	assert_int_equal(x->status, EVENT_SUCCESS);
	assert_false(x->failed);
	assert_int_equal(x->exit_code, EVENT_ABSENT);
	assert_int_equal(x->started_unix_ms, EVENT_ABSENT);
	assert_int_equal(x->attempt, 1);
	assert_true(x->final);
	assert_int_equal(x->vcpu_count, EVENT_ABSENT);
	assert_span(x->language, NULL);
	AUTO_READING retry = accepted(CODE(",\"attempt\":3.0,\"final\":false"));
	assert_int_equal(retry.event.execution.attempt, 3);
	assert_false(retry.event.execution.final);
}

static void lets_no_failed_execution_hide(void **state)
{
	static const struct {
		const char *body;
		enum event_status status;
		bool failed;
	} executions[] = {
		{ CODE(",\"status\":\"success\""), EVENT_SUCCESS, false },
		{ CODE(",\"status\":\"error\""), EVENT_ERROR, true },
		{ CODE(",\"status\":\"timeout\""), EVENT_TIMEOUT, true },
		{ CODE(",\"status\":\"killed\""), EVENT_STATUS_KILLED, true },
		{ CODE(",\"status\":\"killed\",\"timed_out\":true"), EVENT_STATUS_KILLED, true },
		{ CODE(",\"status\":\"exploded\""), EVENT_ERROR, true },
		{ CODE(",\"status\":\"Success\""), EVENT_ERROR, true },
		{ CODE(",\"status\":\"exploded\",\"timed_out\":true"), EVENT_TIMEOUT, true },
		{ CODE(",\"status\":\"\""), EVENT_SUCCESS, false },
		{ CODE(",\"status\":null,\"exit_code\":0,\"error\":null,\"timed_out\":false"),
		  EVENT_SUCCESS, false },
		{ CODE(",\"timed_out\":true"), EVENT_TIMEOUT, true },
		{ CODE(",\"timed_out\":true,\"error\":{}"), EVENT_TIMEOUT, true },
		{ CODE(",\"exit_code\":1"), EVENT_ERROR, true },
		{ CODE(",\"exit_code\":-2147483648"), EVENT_ERROR, true },
		{ CODE(",\"exit_code\":2147483647"), EVENT_ERROR, true },
		{ CODE(",\"error\":{}"), EVENT_ERROR, true },
		{ CODE(",\"error\":{\"name\":\"\",\"value\":\"\"}"), EVENT_ERROR, true },
		{ CODE(",\"error\":\"boom\""), EVENT_ERROR, true },
		{ CODE(",\"error\":\"\""), EVENT_SUCCESS, false },
		{ CODE(",\"status\":\"success\",\"exit_code\":2"), EVENT_ERROR, true },
		{ CODE(",\"status\":\"success\",\"error\":{\"name\":\"E\"}"), EVENT_ERROR, true },
		{ CODE(",\"status\":\"success\",\"timed_out\":true"), EVENT_TIMEOUT, true },
		{ CODE(",\"status\":\"success\",\"error\":{\"value\":\"\\u0000\\ud800\"}"),
		  EVENT_ERROR, true },
	};
	for (size_t i = 0; i < ARRAY_SIZE(executions); i++) {
		AUTO_READING r = accepted(executions[i].body);
		if (r.event.execution.status != executions[i].status ||
		    r.event.execution.failed != executions[i].failed)
			fail_msg("%s, failed %d: %s", event_status_name(r.event.execution.status),
				 r.event.execution.failed, executions[i].body);
	}
}

static void reads_errors_as_objects_and_as_text(void **state)
{
	AUTO_READING text = accepted(CODE(",\"error\":\"boom\\u0000\""));
	assert_span(text.event.execution.error_name, NULL);
	assert_span(text.event.execution.error_value, "boom\xef\xbf\xbd");
	AUTO_READING object = accepted(CODE(",\"error\":{\"name\":\"E\",\"value\":null}"));
	assert_span(object.event.execution.error_name, "E");
	assert_span(object.event.execution.error_value, NULL);
	AUTO_READING none = accepted(CODE(",\"error\":null"));
	assert_span(none.event.execution.error_value, NULL);
}

static void takes_the_senders_cost_only_in_usd(void **state)
{
	static const struct {
		const char *body;
		int64_t nanousd;
	} costs[] = {
		{ CODE(",\"cost\":{\"amount\":\"0.00666\",\"currency\":\"USD\"}"), 6660000 },
		{ CODE(",\"cost\":{\"amount\":\"1\"}"), 1000000000 },
		{ CODE(",\"cost\":{\"amount\":\"0\",\"currency\":null}"), 0 },
		{ CODE(",\"cost\":{\"amount\":\"0.0000000005\"}"), 1 },
		{ CODE(",\"cost\":{\"amount\":\"0.000000000499999\"}"), 0 },
		{ CODE(",\"cost\":{\"amount\":\"1\",\"currency\":\"EUR\"}"), EVENT_ABSENT },
		{ CODE(",\"cost\":{\"amount\":\"1\",\"currency\":5}"), EVENT_ABSENT },
		{ CODE(",\"cost\":{\"amount\":1}"), EVENT_ABSENT },
		{ CODE(",\"cost\":{\"amount\":\"-1\"}"), EVENT_ABSENT },
		{ CODE(",\"cost\":{\"amount\":\"1e3\"}"), EVENT_ABSENT },
		{ CODE(",\"cost\":{}"), EVENT_ABSENT },
		{ CODE(",\"cost\":\"1\""), EVENT_ABSENT },
		{ CODE(",\"cost\":null"), EVENT_ABSENT },
	};
	for (size_t i = 0; i < ARRAY_SIZE(costs); i++) {
		AUTO_READING r = accepted(costs[i].body);
		assert_int_equal(r.event.execution.cost_nanousd, costs[i].nanousd);
	}
}

static void makes_an_id_from_the_body_where_none_was_sent(void **state)
{
	static const struct {
		const char *sent, *id;
	} ids[] = {
		{ "", "body:2ef97bb43de56571e7bbee8dd0e11e25" },
		{ "\"id\":null,", "body:d1048621038bfde15ed0987774c5cf85" },
		{ "\"id\":\"\",", "body:7bd99c1099c8bfc4958c78b3591ad962" },
		{ "\"id\":\"00000000-0000-0000-0000-000000000000\",",
		  "body:5935b1b1ac82de3c9cd6dd826389e405" },
		{ "\"event_id\":\"00000000000000000000000000000000\",",
		  "body:d6b327b73bcb3642d8d77fb061023e2e" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		char body[200];
		(void)snprintf(body, sizeof(body), "{%s\"type\":\"a\",\"occurred_at_ms\":1}",
			       ids[i].sent);
		AUTO_READING r = accepted(body);
		assert_string_equal(r.event.id, ids[i].id);
	}
	AUTO_READING almost = accepted("{\"id\":\"00000000-0000-0000-0000-000000000001\","
				       "\"type\":\"a\",\"occurred_at_ms\":1}");
	assert_string_equal(almost.event.id, "00000000-0000-0000-0000-000000000001");
}

static void never_echoes_what_was_sent(void **state)
{
	AUTO_READING r = read_body(CREATED(",\"sandbox_team_id\":\"attacker text\\u001b[2J\""));
	assert_int_equal(r.outcome, EVENT_BAD_ID);
	assert_null(strstr(r.detail, "attacker"));
	for (const char *c = r.detail; *c; c++)
		assert_true(*c >= 0x20 && *c < 0x7f);
}

static void names_kinds_both_ways(void **state)
{
	for (unsigned k = 0; k < EVENT_N_KINDS; k++) {
		const char *name = event_kind_name((enum event_kind)k);
		enum event_kind kind = EVENT_OTHER;
		assert_true(event_kind_from_name((struct span) { name, strlen(name) }, &kind));
		assert_int_equal(kind, k);
	}
	enum event_kind untouched = EVENT_PAUSED;
	assert_false(event_kind_from_name(SPAN_LITERAL("Created"), &untouched));
	assert_false(event_kind_from_name(SPAN_ABSENT, &untouched));
	assert_true(event_kind_starts_run(EVENT_FORKED) && event_kind_starts_run(EVENT_CREATED) &&
		    event_kind_starts_run(EVENT_RESUMED) && !event_kind_starts_run(EVENT_UPDATED));
	assert_true(event_kind_ends_run(EVENT_PAUSED) && event_kind_ends_run(EVENT_KILLED) &&
		    !event_kind_ends_run(EVENT_CHECKPOINTED));
}

static void every_problem_has_the_name_of_its_reason(void **state)
{
	static const char *const names[] = { [EVENT_MISSING_FIELD] = "missing_field",
					     [EVENT_WRONG_TYPE] = "wrong_type",
					     [EVENT_BAD_ID] = "bad_id",
					     [EVENT_BAD_TIME] = "bad_time",
					     [EVENT_BAD_NUMBER] = "bad_number",
					     [EVENT_CONFLICT] = "conflict" };
	for (int i = EVENT_MISSING_FIELD; i <= EVENT_CONFLICT; i++)
		assert_string_equal(event_problem_name((enum event_problem)i), names[i]);
	event_finish(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_every_delivery_as_the_manifest_says),
		cmocka_unit_test(reads_a_created_event_whole),
		cmocka_unit_test(reads_the_report_of_an_end),
		cmocka_unit_test(reads_compatible_senders),
		cmocka_unit_test(reads_the_first_version_by_category_and_label),
		cmocka_unit_test(reads_unknown_types_as_other),
		cmocka_unit_test(ignores_keys_that_differ_in_case),
		cmocka_unit_test(names_the_rules_that_hostile_deliveries_break),
		cmocka_unit_test(maps_types_to_kinds),
		cmocka_unit_test(maps_categories_and_labels_to_kinds),
		cmocka_unit_test(refuses_what_lacks_a_required_field),
		cmocka_unit_test(needs_no_sandbox_for_other_and_test),
		cmocka_unit_test(refuses_wrong_types_in_used_fields),
		cmocka_unit_test(ignores_wrong_types_in_fields_it_does_not_use),
		cmocka_unit_test(finds_both_casings_in_conflict),
		cmocka_unit_test(takes_both_casings_that_agree),
		cmocka_unit_test(holds_ids_to_their_rule),
		cmocka_unit_test(takes_types_and_versions_as_the_open_sets_they_are),
		cmocka_unit_test(refuses_bad_ids_wherever_they_are_used),
		cmocka_unit_test(refuses_times_that_are_none),
		cmocka_unit_test(takes_an_empty_time_for_none),
		cmocka_unit_test(refuses_numbers_out_of_range),
		cmocka_unit_test(reads_execution_time_to_the_millisecond),
		cmocka_unit_test(books_a_report_only_with_start_and_time),
		cmocka_unit_test(reads_event_data_that_came_as_text),
		cmocka_unit_test(reads_what_each_kind_has_in_event_data),
		cmocka_unit_test(cuts_long_free_text_at_a_character),
		cmocka_unit_test(reads_an_execution_whole),
		cmocka_unit_test(reads_a_minimal_execution),
		cmocka_unit_test(lets_no_failed_execution_hide),
		cmocka_unit_test(reads_errors_as_objects_and_as_text),
		cmocka_unit_test(takes_the_senders_cost_only_in_usd),
		cmocka_unit_test(makes_an_id_from_the_body_where_none_was_sent),
		cmocka_unit_test(never_echoes_what_was_sent),
		cmocka_unit_test(names_kinds_both_ways),
		cmocka_unit_test(every_problem_has_the_name_of_its_reason),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
