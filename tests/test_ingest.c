/* Judging: every delivery gets the verdict that its worst fault deserves, and a forged one never
 * gets further than 401.
 */
#include "forge.h"
#include "ingest.h"
#include "scarce.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SECRET "test-signature-secret"
#define RECEIVED_MS INT64_C(1795341600000) /* 2026-11-22T10:00:00Z */
#define FILE_MAX ((size_t)2 << 20)

/* BASE opens a sound envelope of a type and a time. */
#define BASE(type, time) "{\"id\":\"e1\",\"type\":\"" type "\",\"timestamp\":\"" time "\""
#define CREATED_AT(time) BASE("sandbox.lifecycle.created", time) ",\"sandbox_id\":\"s1\"}"
#define CREATED(rest)                                                                              \
	BASE("sandbox.lifecycle.created", "2026-11-20T10:00:00Z")                                  \
	",\"sandbox_id\":\"s1\"" rest "}"
#define TEMPLATE(id) CREATED(",\"sandbox_template_id\":\"" id "\"")
#define ALIAS(id) CREATED(",\"sandbox_template_alias\":\"" id "\"")
#define TEAM(id) CREATED(",\"sandbox_team_id\":\"" id "\"")

static struct span span_of(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

/* What a source is configured as. Lists left out let everything through. */
struct source {
	enum signature_scheme scheme;
	const char *events, *templates, *teams;
	int64_t horizon_unix_s;
};

static struct ingest_policy policy_of(const struct source *source)
{
	struct ingest_policy p = { 0 };
	const char *const texts[] = { source->events, source->templates, source->teams };
	struct glob_list *const lists[] = { &p.events, &p.templates, &p.teams };
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		assert_int_equal(glob_list_parse(lists[i], texts[i] ? texts[i] : "*"), 0);
	assert_int_equal(signature_keyring_new(source->scheme, SECRET, strlen(SECRET), &p.keyring),
			 0);
	return p;
}

static void policy_finish(struct ingest_policy *p)
{
	signature_keyring_free(p->keyring);
	glob_list_finish(&p->events);
	glob_list_finish(&p->templates);
	glob_list_finish(&p->teams);
}
#define AUTO_POLICY CLEANUP(policy_finish) struct ingest_policy
#define AUTO_RESULT CLEANUP(ingest_result_finish) struct ingest_result

static const char templates_mark;

/* One template: tpl1, called minimal. */
static const char *id_of(const void *ctx, struct span alias)
{
	assert_ptr_equal(ctx, &templates_mark);
	return span_is(alias, span_of("minimal")) ? "tpl1" : NULL;
}

static const char *alias_of(const void *ctx, struct span id)
{
	assert_ptr_equal(ctx, &templates_mark);
	return span_is(id, span_of("tpl1")) ? "minimal" : NULL;
}

static const struct ingest_templates templates = { id_of, alias_of, &templates_mark };

static struct ingest_delivery delivery_of(struct span body, const char *header)
{
	return (struct ingest_delivery) {
		.signed_part = { .signature = span_of(header),
				 .id = span_of("msg_1"),
				 .timestamp = span_of("1795341600"),
				 .body = body,
				 .now_unix_s = RECEIVED_MS / 1000 },
		.received_unix_ms = RECEIVED_MS,
	};
}

static struct ingest_result judge_bytes(const struct source *source, struct span body)
{
	AUTO_POLICY policy = policy_of(source);
	char header[SIGNATURE_TEXT_MAX];
	struct ingest_delivery d = delivery_of(body, NULL);
	assert_int_equal(signature_sign(policy.keyring, 1, &d.signed_part, header), 0);
	d.signed_part.signature = span_of(header);
	struct ingest_result result;
	assert_int_equal(ingest_judge(&result, &policy, &templates, &d, source->horizon_unix_s), 0);
	assert_true(result.verified);
	assert_int_equal(result.match.position, 1);
	return result;
}

static struct ingest_result judge(const struct source *source, const char *body)
{
	return judge_bytes(source, span_of(body));
}

static void expect(const struct source *source, const char *body, enum ingest_verdict verdict,
		   enum ingest_reason reason)
{
	AUTO_RESULT result = judge(source, body);
	if (result.verdict != verdict || result.reason != reason)
		fail_msg("verdict %d, reason '%s' for %s", (int)result.verdict,
			 ingest_reason_name(result.reason), body);
	bool wants_event = verdict == INGEST_STORE || verdict == INGEST_FILTERED ||
			   reason == INGEST_REASON_FUTURE || reason == INGEST_REASON_STALE;
	assert_int_equal(result.has_event, wants_event);
	bool wants_detail = verdict == INGEST_QUARANTINE || verdict == INGEST_REJECT;
	assert_int_equal(result.detail[0] != '\0', wants_detail);
}

static void stores_a_signed_event(void **state)
{
	static const enum signature_scheme all[] = { SIGNATURE_E2B, SIGNATURE_HMAC_SHA256,
						     SIGNATURE_STANDARD_WEBHOOKS };
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		AUTO_RESULT result = judge(&(struct source) { all[i] }, CREATED(""));
		assert_int_equal(result.verdict, INGEST_STORE);
		assert_int_equal(result.reason, INGEST_REASON_NONE);
		assert_string_equal(result.event.id, "e1");
		assert_true(span_is(result.event.sandbox_id, span_of("s1")));
	}
}

static void names_an_event_without_an_id_after_its_body(void **state)
{
	/* printf '{"type":…}' | sha256sum */
	static const char body[] = "{\"type\":\"sandbox.lifecycle.created\",\"sandbox_id\":\"s1\","
				   "\"timestamp\":\"2026-11-20T10:00:00Z\"}";
	AUTO_RESULT result = judge(&(struct source) { 0 }, body);
	assert_string_equal(result.event.id, "body:ae423640d0817e9527c7e79d87b7dd8e");
}

static void rejects_an_unsigned_delivery_unread(void **state)
{
	static const struct {
		const char *header;
		enum ingest_reason reason;
	} cases[] = {
		{ NULL, INGEST_REASON_SIGNATURE_MISSING },
		{ "", INGEST_REASON_SIGNATURE_MISSING },
		{ "v1,", INGEST_REASON_SIGNATURE_MALFORMED },
		{ "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		  INGEST_REASON_SIGNATURE_WRONG },
	};
	AUTO_POLICY policy = policy_of(&(struct source) { SIGNATURE_STANDARD_WEBHOOKS });
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_RESULT result;
		struct ingest_delivery d = delivery_of(span_of("not JSON"), cases[i].header);
		assert_int_equal(ingest_judge(&result, &policy, NULL, &d, 0), 0);
		assert_int_equal(result.verdict, INGEST_REJECT);
		assert_int_equal(result.reason, cases[i].reason);
		assert_false(result.verified || result.has_event || result.doc);
		assert_true(result.detail[0] != '\0');
	}
}

static void rejects_a_signature_that_is_too_old(void **state)
{
	AUTO_POLICY policy = policy_of(&(struct source) { SIGNATURE_STANDARD_WEBHOOKS });
	struct ingest_delivery d = delivery_of(span_of(CREATED("")), NULL);
	char header[SIGNATURE_TEXT_MAX];
	assert_int_equal(signature_sign(policy.keyring, 1, &d.signed_part, header), 0);
	d.signed_part.signature = span_of(header);
	d.signed_part.now_unix_s += SIGNATURE_TOLERANCE_S + 1;
	AUTO_RESULT result;
	assert_int_equal(ingest_judge(&result, &policy, NULL, &d, 0), 0);
	assert_int_equal(result.verdict, INGEST_REJECT);
	assert_int_equal(result.reason, INGEST_REASON_SIGNATURE_EXPIRED);
	assert_false(result.verified);
}

static void what_is_not_one_object_is_a_forgery_under_e2b_only(void **state)
{
	static const char *const bodies[] = {
		"", "{", "[]", "{}{}", "{} x", "\xef\xbb\xbf{}", "{\"a\":\"\xff\"}"
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		expect(&(struct source) { SIGNATURE_E2B }, bodies[i], INGEST_REJECT,
		       INGEST_REASON_NOT_ONE_OBJECT);
		expect(&(struct source) { SIGNATURE_HMAC_SHA256 }, bodies[i], INGEST_QUARANTINE,
		       INGEST_REASON_NOT_ONE_OBJECT);
		expect(&(struct source) { SIGNATURE_STANDARD_WEBHOOKS }, bodies[i],
		       INGEST_QUARANTINE, INGEST_REASON_NOT_ONE_OBJECT);
	}
}

static void quarantines_signed_objects_that_are_no_events(void **state)
{
	static const struct {
		const char *body;
		enum ingest_reason reason;
	} cases[] = {
		{ "{}", INGEST_REASON_MISSING_FIELD },
		{ "{\"type\":1}", INGEST_REASON_WRONG_TYPE },
		{ "{\"id\":1,\"id\":2}", INGEST_REASON_DUPLICATE_KEY },
		{ CREATED(",\"sandbox_team_id\":\"a b\""), INGEST_REASON_BAD_ID },
		{ CREATED_AT("yesterday"), INGEST_REASON_BAD_TIME },
		{ CREATED(",\"occurred_at_ms\":1e400"), INGEST_REASON_BAD_NUMBER },
		{ CREATED(",\"sandboxId\":\"s2\""), INGEST_REASON_CONFLICT },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect(&(struct source) { SIGNATURE_E2B }, cases[i].body, INGEST_QUARANTINE,
		       cases[i].reason);
}

static void quarantines_what_is_too_deep_or_too_large_to_read(void **state)
{
	CLEANUP_FREE char *body = calloc(1, (size_t)3 * JSON_NODES_MAX);
	assert_non_null(body);
	char *at = stpcpy(body, "{\"a\":");
	memset(at, '[', JSON_DEPTH_MAX);
	memset(at + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	at[2 * JSON_DEPTH_MAX] = '}';
	expect(&(struct source) { 0 }, body, INGEST_QUARANTINE, INGEST_REASON_TOO_DEEP);
	memset(at, '\0', 2 * JSON_DEPTH_MAX + 1);
	*at++ = '[';
	for (int i = 0; i < JSON_NODES_MAX; i++)
		at = stpcpy(at, "1,");
	memcpy(at - 1, "]}", 3);
	expect(&(struct source) { 0 }, body, INGEST_QUARANTINE, INGEST_REASON_TOO_MANY);
}

static void details_name_the_field_and_quote_nothing(void **state)
{
	AUTO_RESULT result =
		judge(&(struct source) { 0 }, CREATED(",\"sandbox_team_id\":\"<b>\\n\""));
	assert_int_equal(result.reason, INGEST_REASON_BAD_ID);
	assert_non_null(strstr(result.detail, "sandbox_team_id"));
	assert_null(strstr(result.detail, "<b>"));
}

static void quarantines_an_event_over_an_hour_ahead(void **state)
{
	expect(&(struct source) { 0 }, CREATED_AT("2026-11-22T11:00:00Z"), INGEST_STORE, 0);
	expect(&(struct source) { 0 }, CREATED_AT("2026-11-22T11:00:00.001Z"), INGEST_QUARANTINE,
	       INGEST_REASON_FUTURE);
	expect(&(struct source) { 0 }, CREATED_AT("2261-12-31T23:59:59Z"), INGEST_QUARANTINE,
	       INGEST_REASON_FUTURE);
}

static void quarantines_an_event_before_the_horizon(void **state)
{
	const struct source kept = { .horizon_unix_s = 1795082400 }; /* 2026-11-19T10:00:00Z */
	expect(&kept, CREATED_AT("2026-11-19T10:00:00Z"), INGEST_STORE, 0);
	expect(&kept, CREATED_AT("2026-11-19T09:59:59.999999999Z"), INGEST_QUARANTINE,
	       INGEST_REASON_STALE);
	expect(&(struct source) { 0 }, CREATED_AT("1970-01-01T00:00:00Z"), INGEST_STORE, 0);
}

static void says_both_times_of_a_stale_event(void **state)
{
	const struct source kept = { .horizon_unix_s = 1795082400 };
	AUTO_RESULT result = judge(&kept, CREATED_AT("2026-11-01T00:00:00Z"));
	assert_non_null(strstr(result.detail, "2026-11-01T00:00:00.000Z"));
	assert_non_null(strstr(result.detail, "2026-11-19T10:00:00.000Z"));
}

static void filters_by_type_or_kind(void **state)
{
	static const struct {
		const char *events, *body;
		bool passes;
	} cases[] = {
		{ "created", CREATED(""), true },
		{ "sandbox.lifecycle.*", CREATED(""), true },
		{ "killed, paused", CREATED(""), false },
		{ "!created", CREATED(""), false },
		{ "!sandbox.lifecycle.created", CREATED(""), false },
		{ "!killed", CREATED(""), true },
		{ "*, !other", BASE("vendor.thing", "2026-11-20T10:00:00Z") "}", false },
		{ "vendor.*", BASE("vendor.thing", "2026-11-20T10:00:00Z") "}", true },
		{ "other", BASE("vendor.thing", "2026-11-20T10:00:00Z") "}", true },
		/* the kind of what came as category and label, under its canonical type */
		{ "sandbox.lifecycle.created",
		  "{\"event_category\":\"lifecycle\",\"event_label\":\"create\",\"sandbox_id\":"
		  "\"s\",\"timestamp\":\"2026-11-20T10:00:00Z\"}",
		  true },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect(&(struct source) { .events = cases[i].events }, cases[i].body,
		       cases[i].passes ? INGEST_STORE : INGEST_FILTERED,
		       cases[i].passes ? INGEST_REASON_NONE : INGEST_REASON_EVENTS);
}

static void filters_by_every_name_of_a_template(void **state)
{
	static const struct {
		const char *templates, *body;
		bool passes;
	} cases[] = {
		{ "tpl1", TEMPLATE("tpl1"), true },
		{ "minimal", TEMPLATE("tpl1"), true },
		{ "tpl1", TEMPLATE("minimal"), true },
		{ "minimal", TEMPLATE("minimal"), true },
		{ "tpl1", ALIAS("minimal"), true },
		{ "minimal", ALIAS("minimal"), true },
		{ "own", CREATED(",\"sandbox_template_id\":\"x\",\"template_alias\":\"own\""),
		  true },
		{ "tpl1", TEMPLATE("tpl2"), false },
		{ "minimal", TEMPLATE("tpl2"), false },
		{ "tpl?", TEMPLATE("tpl2"), true },
		{ "*, !minimal", TEMPLATE("tpl1"), false },
		{ "!tpl1", ALIAS("minimal"), false },
		{ "!tpl1", TEMPLATE("tpl2"), true },
		/* an absent one */
		{ "*", CREATED(""), true },
		{ "tpl*", CREATED(""), false },
		{ "?*", CREATED(""), false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect(&(struct source) { .templates = cases[i].templates }, cases[i].body,
		       cases[i].passes ? INGEST_STORE : INGEST_FILTERED,
		       cases[i].passes ? INGEST_REASON_NONE : INGEST_REASON_TEMPLATES);
}

static void filters_by_team(void **state)
{
	static const struct {
		const char *teams, *body;
		bool passes;
	} cases[] = {
		{ "team1", TEAM("team1"), true },
		{ "team1", TEAM("team2"), false },
		{ "!team1", TEAM("team1"), false },
		{ "*", CREATED(""), true },
		{ "team*", CREATED(""), false },
		/* nil is missing */
		{ "?*", TEAM("00000000-0000-0000-0000-000000000000"), false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect(&(struct source) { .teams = cases[i].teams }, cases[i].body,
		       cases[i].passes ? INGEST_STORE : INGEST_FILTERED,
		       cases[i].passes ? INGEST_REASON_NONE : INGEST_REASON_TEAMS);
}

static void the_first_filter_that_objects_is_the_reason(void **state)
{
	struct source source = { .events = "killed", .templates = "none", .teams = "none" };
	expect(&source, CREATED(""), INGEST_FILTERED, INGEST_REASON_EVENTS);
	source.events = "*";
	expect(&source, CREATED(""), INGEST_FILTERED, INGEST_REASON_TEMPLATES);
	source.templates = "*";
	expect(&source, CREATED(""), INGEST_FILTERED, INGEST_REASON_TEAMS);
	source.events = "killed";
	expect(&source, CREATED_AT("2026-11-23T00:00:00Z"), INGEST_QUARANTINE,
	       INGEST_REASON_FUTURE);
}

static void a_test_event_passes_every_filter(void **state)
{
	const struct source closed = { .events = "killed", .templates = "none", .teams = "none" };
	expect(&closed, BASE("e2b-hookd.test", "2026-11-20T10:00:00Z") "}", INGEST_STORE, 0);
	expect(&closed, BASE("e2b-hookd.test", "2026-11-24T10:00:00Z") "}", INGEST_QUARANTINE,
	       INGEST_REASON_FUTURE);
}

static void does_without_configured_templates(void **state)
{
	AUTO_POLICY policy = policy_of(&(struct source) { .templates = "minimal" });
	AUTO_RESULT result;
	assert_int_equal(ingest_judge_body(&result, &policy, NULL, span_of(TEMPLATE("tpl1")),
					   RECEIVED_MS, 0),
			 0);
	assert_int_equal(result.verdict, INGEST_FILTERED);
}

static void judges_a_body_alone_as_it_judges_a_delivery(void **state)
{
	static const struct {
		const char *body;
		enum ingest_verdict verdict;
		enum ingest_reason reason;
	} cases[] = {
		{ CREATED(",\"sandbox_template_id\":\"tpl1\""), INGEST_STORE, INGEST_REASON_NONE },
		{ CREATED(""), INGEST_FILTERED, INGEST_REASON_TEMPLATES },
		{ "{}", INGEST_QUARANTINE, INGEST_REASON_MISSING_FIELD },
		{ "{}{}", INGEST_QUARANTINE, INGEST_REASON_NOT_ONE_OBJECT },
		{ CREATED_AT("2026-11-24T00:00:00Z"), INGEST_QUARANTINE, INGEST_REASON_FUTURE },
		{ CREATED_AT("2026-01-01T00:00:00Z"), INGEST_QUARANTINE, INGEST_REASON_STALE },
	};
	AUTO_POLICY policy = policy_of(&(struct source) { .templates = "minimal" });
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_RESULT result;
		assert_int_equal(ingest_judge_body(&result, &policy, &templates,
						   span_of(cases[i].body), RECEIVED_MS, 1795082400),
				 0);
		assert_int_equal(result.verdict, cases[i].verdict);
		assert_int_equal(result.reason, cases[i].reason);
		assert_false(result.verified);
	}
}

static void a_result_can_be_finished_at_any_time(void **state)
{
	struct ingest_result result = { 0 };
	ingest_result_finish(NULL);
	ingest_result_finish(&result);
	result = judge(&(struct source) { 0 },
		       CREATED(",\"event_data\":{\"sandbox_metadata\":{\"a\":\"b\"}}"));
	assert_non_null(result.event.metadata.s);
	struct ingest_result moved = result;
	assert_true(span_is(moved.event.metadata, span_of("{\"a\":\"b\"}")));
	ingest_result_finish(&moved);
	ingest_result_finish(&moved);
	assert_false(moved.has_event);
}

/* No verdict is better than a wrong one: the sender is answered 503 and comes again. */
static void out_of_memory_there_is_no_verdict(void **state)
{
	static const struct source any = { 0 };
	static const char *const bodies[] = {
		CREATED(",\"event_data\":{\"sandbox_metadata\":{\"a\":\"b\"}}"),
		CREATED(",\"event_data\":\"{\\\"sandbox_metadata\\\":{\\\"a\\\":\\\"b\\\"}}\""),
	};
	AUTO_POLICY policy = policy_of(&any);
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		long n = 1;
		for (bool hit = true; hit; n++) {
			AUTO_RESULT result;
			scarce_begin(n);
			int r = ingest_judge_body(&result, &policy, NULL, span_of(bodies[i]),
						  RECEIVED_MS, 0);
			hit = scarce_end();
			assert_int_equal(r, hit ? -ENOMEM : 0);
			assert_int_equal(result.verdict, hit ? INGEST_REJECT : INGEST_STORE);
			assert_true(hit || result.event.metadata.s);
		}
		assert_true(n > 4);
	}
	scarce_begin(1);
	assert_null(ingest_result_new());
	assert_true(scarce_end());
}

static void every_reason_has_a_name_of_its_own(void **state)
{
	assert_string_equal(ingest_reason_name(INGEST_REASON_NONE), "");
	for (int i = 1; i < INGEST_N_REASONS; i++) {
		const char *name = ingest_reason_name((enum ingest_reason)i);
		assert_true(strlen(name) > 0);
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
		for (int other = 0; other < i; other++)
			assert_string_not_equal(name,
						ingest_reason_name((enum ingest_reason)other));
	}
	assert_string_equal(ingest_reason_name(INGEST_REASON_TOO_MANY), "too_many_values");
	assert_string_equal(ingest_reason_name(INGEST_REASON_BODY_TOO_LARGE), "body_too_large");
}

static void expect_refused_extension(size_t secret_len, const char *suffix)
{
	static const char body[] = CREATED("");
	char secret[65], header[44];
	uint8_t message[1024], digest[32];
	memset(secret, 'k', secret_len);
	memcpy(message, secret, secret_len);
	memcpy(message + secret_len, body, strlen(body));
	size_t observed = secret_len + strlen(body);
	assert_int_equal(signature_sha256(message, observed, digest), 0);
	size_t glued = forge_padding(message, observed, observed);
	forge_digest(digest, glued, suffix);
	memcpy(message + glued, suffix, strlen(suffix));
	forge_base64(digest, header);
	struct span forged = { (const char *)message + secret_len,
			       glued + strlen(suffix) - secret_len };

	AUTO_POLICY policy = { 0 };
	AUTO_RESULT result;
	assert_int_equal(signature_keyring_new(SIGNATURE_E2B, secret, secret_len, &policy.keyring),
			 0);
	struct ingest_delivery d = delivery_of(forged, header);
	assert_int_equal(ingest_judge(&result, &policy, NULL, &d, 0), 0);
	assert_true(result.verified); /* else this test forges badly */
	assert_int_equal(result.verdict, INGEST_REJECT);
	assert_int_equal(result.reason, INGEST_REASON_NOT_ONE_OBJECT);
	assert_false(result.has_event);
}

static void rejects_a_length_extension_that_verifies(void **state)
{
	for (size_t secret_len = 1; secret_len <= 64; secret_len++) {
		expect_refused_extension(secret_len, "");
		expect_refused_extension(secret_len, "{\"id\":\"forged\"}");
		expect_refused_extension(secret_len, "\n" CREATED(",\"x\":\"forged\""));
	}
}

/* The recorded deliveries: manifest.jsonl says what to expect, in the words of its README. */
static const struct exception {
	const char *file;
	enum ingest_verdict verdict;
	enum ingest_reason reason;
} exceptions[] = {
	{ "hostile/a13-deep-nesting-arrays.json", INGEST_QUARANTINE, INGEST_REASON_TOO_DEEP },
	{ "hostile/a15-duplicate-keys.json", INGEST_QUARANTINE, INGEST_REASON_DUPLICATE_KEY },
	{ "hostile/a25-huge-numbers.json", INGEST_QUARANTINE, INGEST_REASON_BAD_NUMBER },
	{ "hostile/a38-replay-old-event.json", INGEST_STORE, INGEST_REASON_NONE },
	{ "hostile/a39-future-timestamp.json", INGEST_QUARANTINE, INGEST_REASON_FUTURE },
	{ "hostile/a40-missing-signature.json", INGEST_REJECT, INGEST_REASON_SIGNATURE_MISSING },
	{ "hostile/a41-empty-signature.json", INGEST_REJECT, INGEST_REASON_SIGNATURE_MISSING },
	{ "hostile/a42-signature-hex.json", INGEST_REJECT, INGEST_REASON_SIGNATURE_MALFORMED },
	{ "hostile/a43-signature-truncated.json", INGEST_REJECT,
	  INGEST_REASON_SIGNATURE_MALFORMED },
	{ "hostile/a49-signature-version-v9.json", INGEST_STORE, INGEST_REASON_NONE },
	{ "hostile/a51-wrong-content-type.json", INGEST_STORE, INGEST_REASON_NONE },
};

static struct exception expectation(const char *file, const char *expected)
{
	for (size_t i = 0; i < ARRAY_SIZE(exceptions); i++)
		if (strcmp(exceptions[i].file, file) == 0)
			return exceptions[i];
	if (strncmp(expected, "accept", 6) == 0)
		return (struct exception) { file, INGEST_STORE, INGEST_REASON_NONE };
	if (strcmp(expected, "reject_signature") == 0)
		return (struct exception) { file, INGEST_REJECT, INGEST_REASON_SIGNATURE_WRONG };
	assert_string_equal(expected, "reject_body");
	return (struct exception) { file, INGEST_REJECT, INGEST_REASON_NOT_ONE_OBJECT };
}

static char *read_file(const char *name, size_t *ret_len)
{
	char path[512];
	const char *root = getenv("HOOKD_SOURCE_ROOT");
	(void)snprintf(path, sizeof(path), "%s/tests/deliveries/%s", root ? root : ".", name);
	CLEANUP_FILE FILE *f = fopen(path, "rb");
	char *text = malloc(FILE_MAX);
	if (!f || !text)
		fail_msg("cannot read %s", path);
	*ret_len = fread(text, 1, FILE_MAX - 1, f);
	text[*ret_len] = '\0';
	return text;
}

/* The value of the signature header, or an absent span. */
static struct span signature_in(const char *headers)
{
	static const char name[] = "\ne2b-signature:";
	const char *at = strstr(headers, name);
	if (!at)
		return SPAN_ABSENT;
	at += strlen(name);
	return (struct span) { at, strcspn(at, "\r\n") };
}

static void check_delivery(const struct ingest_policy *policy, const char *file,
			   const char *headers_file, const char *expected)
{
	size_t body_len = 0, headers_len = 0;
	CLEANUP_FREE char *body = read_file(file, &body_len);
	CLEANUP_FREE char *headers = read_file(headers_file, &headers_len);
	struct ingest_delivery d = delivery_of((struct span) { body, body_len }, NULL);
	d.signed_part.signature = signature_in(headers);
	struct exception e = expectation(file, expected);
	AUTO_RESULT result;
	assert_int_equal(ingest_judge(&result, policy, &templates, &d, 0), 0);
	if (result.verdict != e.verdict || result.reason != e.reason)
		fail_msg("%s: verdict %d, reason '%s' (%s)", file, (int)result.verdict,
			 ingest_reason_name(result.reason), result.detail);
}

static const char *member_text(const struct json_doc *doc, const char *name)
{
	struct span text = json_string(json_member(json_root(doc), name));
	assert_non_null(text.s);
	return text.s;
}

static void judges_the_recorded_deliveries_as_documented(void **state)
{
	size_t len = 0, n = 0;
	CLEANUP_FREE char *manifest = read_file("manifest.jsonl", &len);
	AUTO_POLICY policy = policy_of(&(struct source) { SIGNATURE_E2B });
	for (char *line = manifest; *line; n++) {
		size_t line_len = strcspn(line, "\n");
		struct json_doc *doc = NULL;
		assert_int_equal(json_parse(line, line_len, &doc), 0);
		const char *expected = member_text(doc, "expect");
		if (strcmp(expected, "reject_size") != 0) /* the server's part */
			check_delivery(&policy, member_text(doc, "file"),
				       member_text(doc, "headers"), expected);
		json_doc_free(doc);
		line += line_len + (line[line_len] == '\n');
	}
	assert_true(n > 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores_a_signed_event),
		cmocka_unit_test(names_an_event_without_an_id_after_its_body),
		cmocka_unit_test(rejects_an_unsigned_delivery_unread),
		cmocka_unit_test(rejects_a_signature_that_is_too_old),
		cmocka_unit_test(what_is_not_one_object_is_a_forgery_under_e2b_only),
		cmocka_unit_test(quarantines_signed_objects_that_are_no_events),
		cmocka_unit_test(quarantines_what_is_too_deep_or_too_large_to_read),
		cmocka_unit_test(details_name_the_field_and_quote_nothing),
		cmocka_unit_test(quarantines_an_event_over_an_hour_ahead),
		cmocka_unit_test(quarantines_an_event_before_the_horizon),
		cmocka_unit_test(says_both_times_of_a_stale_event),
		cmocka_unit_test(filters_by_type_or_kind),
		cmocka_unit_test(filters_by_every_name_of_a_template),
		cmocka_unit_test(filters_by_team),
		cmocka_unit_test(the_first_filter_that_objects_is_the_reason),
		cmocka_unit_test(a_test_event_passes_every_filter),
		cmocka_unit_test(does_without_configured_templates),
		cmocka_unit_test(judges_a_body_alone_as_it_judges_a_delivery),
		cmocka_unit_test(a_result_can_be_finished_at_any_time),
		cmocka_unit_test(out_of_memory_there_is_no_verdict),
		cmocka_unit_test(every_reason_has_a_name_of_its_own),
		cmocka_unit_test(rejects_a_length_extension_that_verifies),
		cmocka_unit_test(judges_the_recorded_deliveries_as_documented),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
