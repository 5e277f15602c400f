/* Payloads: each form is exactly what its manual says, and whatever a text holds the document stays
 * one well-formed JSON document within its bounds. Real receivers judge them end to end.
 */
#include "alert_payload.h"

#include "json.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef int (*render_fn)(const struct alert_message *, struct buffer *);

static struct alert_sample sample_of(const char *error)
{
	return (struct alert_sample) {
		.seq = 7,
		.time_unix_ms = 1763805600250,
		.event_id = "ev-1",
		.execution_id = "ex-1",
		.sandbox_id = "sb-1",
		.status = "error",
		.error_name = "ValueError",
		.error_value = error,
	};
}

static struct alert_message message_of(enum alert_state state)
{
	return (struct alert_message) {
		.id = "n-1",
		.rule = "failures",
		.on = "execution_failed",
		.severity = "critical",
		.template = "ml",
		.state = state,
		.summary = "2 executions of ml failed",
		.query = "e2b-hookctl failures",
		.starts_unix_ms = 1763805600000,
		.made_unix_ms = 1763805601500,
		.count = 2,
		.total = 12,
		.value = 0.25,
		.threshold = NAN,
		.unit = "ratio",
		.instance = "host",
	};
}

static void expect(render_fn render, const struct alert_message *m, const char *text)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	assert_int_equal(render(m, &b), 0);
	assert_string_equal(b.data, text);
}

/* The document as our strict reader sees it; Alertmanager's array is put into an object. */
static struct json_doc *read_back(render_fn render, const struct alert_message *m)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	CLEANUP(buffer_finish) struct buffer object = BUFFER_INIT(ALERT_PAYLOAD_MAX + 16);
	struct json_doc *doc = NULL;
	assert_int_equal(render(m, &b), 0);
	assert_int_equal(buffer_appendf(&object, "{\"document\":%s}", b.data), 0);
	assert_int_equal(json_parse(object.data, object.len, &doc), 0);
	return doc;
}

static void a_webhook_is_the_documented_json(void **state)
{
	struct alert_sample sample = sample_of("bad \"x\"\n");
	struct alert_message m = message_of(ALERT_REPEAT);
	m.samples = &sample;
	m.n_samples = 1;
	expect(alert_payload_webhook, &m,
	       "{\"type\":\"alert.repeat\",\"timestamp\":\"2025-11-22T10:00:01.500Z\",\"data\":{"
	       "\"id\":\"n-1\",\"state\":\"repeat\",\"rule\":\"failures\",\"on\":\"execution_"
	       "failed\","
	       "\"severity\":\"critical\",\"template\":\"ml\",\"period\":null,"
	       "\"summary\":\"2 executions of ml failed\",\"query\":\"e2b-hookctl failures\","
	       "\"instance\":\"host\",\"starts_at\":\"2025-11-22T10:00:00.000Z\",\"ends_at\":null,"
	       "\"count\":2,\"total\":12,\"value\":0.25,\"threshold\":null,\"unit\":\"ratio\","
	       "\"samples\":[{\"seq\":7,\"time\":\"2025-11-22T10:00:00.250Z\",\"event_id\":\"ev-"
	       "1\","
	       "\"execution_id\":\"ex-1\",\"sandbox_id\":\"sb-1\",\"run_id\":null,"
	       "\"status\":\"error\",\"error_name\":\"ValueError\","
	       "\"error_value\":\"bad \\\"x\\\"\\n\"}]}}");
}

static void slack_gets_blocks_and_a_fallback_text(void **state)
{
	struct alert_sample sample = sample_of("a < b & `c`");
	struct alert_message m = message_of(ALERT_FIRING);
	m.samples = &sample;
	m.n_samples = 1;
	expect(alert_payload_slack, &m,
	       "{\"text\":\":rotating_light: Firing: failures on ml — 2 executions of ml failed\","
	       "\"unfurl_links\":false,\"unfurl_media\":false,\"blocks\":["
	       "{\"type\":\"header\",\"text\":{\"type\":\"plain_text\",\"emoji\":true,"
	       "\"text\":\":rotating_light: Firing: failures on ml\"}},"
	       "{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"verbatim\":true,"
	       "\"text\":\"2 executions of ml failed\"}},"
	       "{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"verbatim\":true,"
	       "\"text\":\"*severity* `critical`  *template* `ml`  *count* `2`  *in all* `12`  "
	       "*value* `25 %`  *since* `2025-11-22T10:00:00.000Z`\"}},"
	       "{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"verbatim\":true,"
	       "\"text\":\"• `ValueError` `a &lt; b &amp; 'c'`\\n"
	       "    *sandbox* `sb-1`  *execution* `ex-1`  "
	       "*at* `2025-11-22T10:00:00.250Z`\\n… and 1 more\"}},"
	       "{\"type\":\"context\",\"elements\":[{\"type\":\"mrkdwn\",\"verbatim\":true,"
	       "\"text\":\"*look further* `e2b-hookctl failures`  *from* `host`  *id* "
	       "`n-1`\"}]}]}");
}

static void alertmanager_gets_one_alert_that_holds_for_a_day_and_an_hour(void **state)
{
	struct alert_sample sample = sample_of("bad\nvalue");
	struct alert_message m = message_of(ALERT_FIRING);
	m.samples = &sample;
	m.n_samples = 1;
	expect(alert_payload_alertmanager, &m,
	       "[{\"labels\":{\"alertname\":\"E2bExecutionFailed\",\"job\":\"e2b-hookd\","
	       "\"instance\":\"host\",\"rule\":\"failures\",\"severity\":\"critical\","
	       "\"template\":\"ml\"},\"annotations\":{\"summary\":\"2 executions of ml failed\","
	       "\"description\":\"sandbox sb-1, execution ex-1: ValueError: bad value\","
	       "\"query\":\"e2b-hookctl failures\",\"count\":\"2\",\"total\":\"12\","
	       "\"value\":\"25 %\",\"notification\":\"n-1\"},"
	       "\"startsAt\":\"2025-11-22T10:00:00.000Z\",\"endsAt\":\"2025-11-23T11:00:01.500Z\"}"
	       "]");
}

static const char *text_at(const struct json_doc *doc, const char *group, const char *key)
{
	const struct json_value *alert = json_first(json_member(json_root(doc), "document"));
	const struct json_value *from = group ? json_member(alert, group) : alert;
	const struct json_value *v = json_member(from, key);
	return v ? json_string(v).s : NULL;
}

static void an_alert_keeps_its_labels_until_it_is_resolved(void **state)
{
	static const char *const labels[] = { "alertname", "job",      "instance", "rule",
					      "severity",  "template", "notice" };
	struct alert_message first = message_of(ALERT_FIRING), last = message_of(ALERT_RESOLVED);
	last.id = "n-2";
	last.summary = "over";
	last.count = 0;
	last.value = 0;
	last.ends_unix_ms = last.starts_unix_ms + 60000;
	struct json_doc *a = read_back(alert_payload_alertmanager, &first);
	struct json_doc *b = read_back(alert_payload_alertmanager, &last);
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		const char *one = text_at(a, "labels", labels[i]);
		const char *other = text_at(b, "labels", labels[i]);
		assert_string_equal(one ? one : "", other ? other : "");
	}
	assert_string_equal(text_at(a, NULL, "startsAt"), text_at(b, NULL, "startsAt"));
	assert_string_equal(text_at(b, NULL, "endsAt"), "2025-11-22T10:01:00.000Z");
	json_doc_free(a);
	json_doc_free(b);
}

static void an_alert_never_ends_before_it_starts(void **state)
{
	struct alert_message m = message_of(ALERT_RESOLVED);
	m.ends_unix_ms = m.starts_unix_ms - 5000;
	struct json_doc *doc = read_back(alert_payload_alertmanager, &m);
	assert_string_equal(text_at(doc, NULL, "endsAt"), text_at(doc, NULL, "startsAt"));
	json_doc_free(doc);
	m.starts_unix_ms = 0; /* not known: it starts when it was told */
	m.ends_unix_ms = m.made_unix_ms - 5000;
	doc = read_back(alert_payload_alertmanager, &m);
	assert_string_equal(text_at(doc, NULL, "endsAt"), text_at(doc, NULL, "startsAt"));
	json_doc_free(doc);
}

static const render_fn forms[] = { alert_payload_webhook, alert_payload_slack,
				   alert_payload_alertmanager };

/* Every text of a message is `text`. */
static void render_everywhere(const char *text)
{
	struct alert_sample samples[ALERT_SAMPLES_MAX + 2];
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
		samples[i] = (struct alert_sample) { INT64_MIN, INT64_MAX, text, text, text,
						     text,	text,	   text, text };
	struct alert_message m = {
		text, text, text, text, text, text,	ALERT_FIRING, text, text,
		0,    0,    0,	  1,	1,    INFINITY, -1e-300,      text,
	};
	m.samples = samples;
	m.n_samples = ARRAY_SIZE(samples);
	m.instance = text;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		json_doc_free(read_back(forms[i], &m));
}

/* Alertmanager takes alerts of the same labels for one. */
static void the_budgets_of_a_rule_are_two_alerts(void **state)
{
	struct alert_message m = message_of(ALERT_FIRING);
	m.period = "daily";
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	assert_int_equal(alert_payload_alertmanager(&m, &b), 0);
	assert_non_null(strstr(b.data, "\"template\":\"ml\",\"period\":\"daily\"}"));
}

/* A delivery that was rejected has no sandbox. */
static void a_sample_without_a_sandbox_is_told_by_its_reason(void **state)
{
	struct alert_sample sample = { .status = "signature_wrong",
				       .error_value = "source e2b, from 10.0.0.1" };
	struct alert_message m = message_of(ALERT_FIRING);
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	m.samples = &sample;
	m.n_samples = 1;
	assert_int_equal(alert_payload_alertmanager(&m, &b), 0);
	assert_non_null(
		strstr(b.data, "\"description\":\"signature_wrong: source e2b, from 10.0.0.1\""));
}

static void hostile_texts_stay_inside_one_document(void **state)
{
	static const char *const texts[] = {
		"",
		"\"",
		"\\",
		"'\"},{\"x\":\"",
		"\xff\xfe",
		"\xed\xa0\x80",
		"\xc0\xaf",
		"\xe2\x82",
		"\xf0\x9f\x98",
		"\x01\x02\x1b[31m\n\r\t\x7f",
		"\xe2\x80\xae\xe2\x81\xa6",
		"<!channel>&amp;",
		"%s%n%99999d",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		render_everywhere(texts[i]);
}

static void the_largest_texts_fit(void **state)
{
	static const char units[][5] = {
		"a", "\x01", "\"", "&", "\xff", "\xe2\x82\xac", "\xf0\x9f\x98\x80"
	};
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		size_t len = strlen(units[i]), n = 1000000 / len;
		char *text = malloc(n * len + 1);
		assert_non_null(text);
		for (size_t k = 0; k < n; k++)
			memcpy(text + k * len, units[i], len);
		text[n * len] = '\0';
		render_everywhere(text);
		free(text);
	}
}

static void what_is_not_known_is_left_out_or_null(void **state)
{
	struct alert_message m = { .id = "n-1", .value = NAN, .threshold = NAN };
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		json_doc_free(read_back(forms[i], &m));
	struct json_doc *doc = read_back(alert_payload_webhook, &m);
	const struct json_value *data =
		json_member(json_member(json_root(doc), "document"), "data");
	assert_int_equal(json_type(json_member(data, "template")), JSON_NULL);
	assert_int_equal(json_type(json_member(data, "value")), JSON_NULL);
	assert_int_equal(json_type(json_member(data, "starts_at")), JSON_NULL);
	json_doc_free(doc);
}

static void a_cut_text_ends_in_an_ellipsis_and_splits_no_character(void **state)
{
	char summary[4001] = "";
	for (size_t i = 0; i + 4 < sizeof(summary); i += 4)
		memcpy(summary + i, "\xf0\x9f\x98\x80", 4);
	struct alert_message m = message_of(ALERT_FIRING);
	m.summary = summary;
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
	assert_int_equal(alert_payload_slack(&m, &b), 0);
	assert_non_null(strstr(b.data, "\xf0\x9f\x98\x80\xe2\x80\xa6\"}}"));
	assert_null(strstr(b.data, "\xef\xbf\xbd"));
	struct json_doc *doc = read_back(alert_payload_webhook, &m);
	const struct json_value *data =
		json_member(json_member(json_root(doc), "document"), "data");
	struct span text = json_string(json_member(data, "summary"));
	assert_int_equal(text.len, 1024);
	assert_null(strstr(text.s, "\xef\xbf\xbd"));
	json_doc_free(doc);
}

static void a_full_buffer_is_told(void **state)
{
	struct alert_message m = message_of(ALERT_FIRING);
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		for (size_t max = 0; max < 300; max += 7) {
			CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(max);
			assert_int_equal(forms[i](&m, &b), -ENOBUFS);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_webhook_is_the_documented_json),
		cmocka_unit_test(slack_gets_blocks_and_a_fallback_text),
		cmocka_unit_test(alertmanager_gets_one_alert_that_holds_for_a_day_and_an_hour),
		cmocka_unit_test(an_alert_keeps_its_labels_until_it_is_resolved),
		cmocka_unit_test(an_alert_never_ends_before_it_starts),
		cmocka_unit_test(the_budgets_of_a_rule_are_two_alerts),
		cmocka_unit_test(a_sample_without_a_sandbox_is_told_by_its_reason),
		cmocka_unit_test(hostile_texts_stay_inside_one_document),
		cmocka_unit_test(the_largest_texts_fit),
		cmocka_unit_test(what_is_not_known_is_left_out_or_null),
		cmocka_unit_test(a_cut_text_ends_in_an_ellipsis_and_splits_no_character),
		cmocka_unit_test(a_full_buffer_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
