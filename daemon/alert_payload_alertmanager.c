/* Alertmanager, API v2: an array of one alert.
 *
 * Its labels are its identity: only what stays the same from the first notification to the one that
 * resolves may be among them. Alertmanager forgets an alert that is not renewed, so each says until
 * when it holds; the end is told by an endsAt that has passed. Empty labels are left out, as
 * Alertmanager would itself. There is no generatorURL: we have no page to link to.
 */
#include "alert_payload.h"

#include "alert_payload_text.h"
#include "clock.h"
#include "json.h"

#include <ctype.h>
#include <string.h>

#define LABEL_UNITS 256
#define ANNOTATION_UNITS 1024
#define TEXT_MAX_BYTES 16384

struct pair {
	const char *key, *text;
};

/* execution_failed: E2bExecutionFailed. */
static void make_name(const char *on, char *buf, size_t size)
{
	size_t len = (size_t)snprintf(buf, size, "E2b");
	bool is_first = true;

	for (; on && *on && len + 1 < size; on++) {
		unsigned char c = (unsigned char)*on;
		bool is_word = c < 0x80 && isalnum(c);
		if (is_word)
			buf[len++] = (char)(is_first ? toupper(c) : c);
		is_first = !is_word;
	}
	buf[len] = '\0';
}

static int append_pairs(struct buffer *b, const char *name, const struct pair *pairs, size_t n,
			size_t max)
{
	int r = buffer_appendf(b, "\"%s\":{", name);
	bool is_first = true;

	for (size_t i = 0; r == 0 && i < n; i++) {
		CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(TEXT_MAX_BYTES);
		r = alert_payload_text_append(&text, pairs[i].text, max, ALERT_PAYLOAD_TEXT_LINE);
		if (r < 0 || text.len == 0)
			continue;
		r = buffer_appendf(b, "%s\"%s\":", is_first ? "" : ",", pairs[i].key);
		if (r == 0)
			r = json_append_string(b, (struct span) { text.data, text.len });
		is_first = false;
	}
	return r < 0 ? r : buffer_append_text(b, "}");
}

static int append_labels(struct buffer *b, const struct alert_message *m)
{
	char name[64];
	bool is_notice = m->state == ALERT_SUMMARY || m->state == ALERT_TEST;

	make_name(m->on, name, sizeof(name));
	const struct pair pairs[] = {
		{ "alertname", name },
		{ "job", "e2b-hookd" },
		{ "instance", m->instance },
		{ "rule", m->rule },
		{ "severity", m->severity },
		{ "template", m->template },
		/* A rule may have both budgets: the end of the day is not that of the month. */
		{ "period", m->period },
		/* Else a test would renew, and its end resolve, the alert it is a test of. */
		{ "notice", is_notice ? alert_payload_state_name(m->state) : NULL },
	};
	return append_pairs(b, "labels", pairs, ARRAY_SIZE(pairs), LABEL_UNITS);
}

static int describe(const struct alert_message *m, struct buffer *b)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < base_min_size(m->n_samples, ALERT_SAMPLES_MAX); i++) {
		const struct alert_sample *s = &m->samples[i];
		const char *name = s->error_name ? s->error_name : s->status;
		const struct pair parts[] = {
			{ i > 0 ? "; " : "", NULL },
			{ s->sandbox_id ? "sandbox " : "", s->sandbox_id },
			{ s->execution_id ? ", execution " : "", s->execution_id },
			{ name && s->sandbox_id ? ": " : "", name },
			{ s->error_value ? ": " : "", s->error_value },
		};
		for (size_t k = 0; r == 0 && k < ARRAY_SIZE(parts); k++) {
			r = buffer_append_text(b, parts[k].key);
			if (r == 0)
				r = alert_payload_text_append(b, parts[k].text, 160,
							      ALERT_PAYLOAD_TEXT_LINE);
		}
	}
	return r;
}

static int append_annotations(struct buffer *b, const struct alert_message *m)
{
	CLEANUP(buffer_finish) struct buffer description = BUFFER_INIT(TEXT_MAX_BYTES);
	char count[32], total[32], value[48], threshold[48];
	int r = describe(m, &description);

	if (r < 0)
		return r;
	(void)snprintf(count, sizeof(count), "%lld", (long long)m->count);
	(void)snprintf(total, sizeof(total), "%lld", (long long)m->total);
	const struct pair pairs[] = {
		{ "summary", m->summary },
		{ "description", description.data },
		{ "query", m->query },
		{ "count", count },
		{ "total", total },
		{ "value", alert_payload_text_value(m->value, m->unit, value) },
		{ "threshold", alert_payload_text_value(m->threshold, m->unit, threshold) },
		{ "notification", m->id },
	};
	return append_pairs(b, "annotations", pairs, ARRAY_SIZE(pairs), ANNOTATION_UNITS);
}

/* Until when it holds. Alertmanager refuses an end before its start. */
static int64_t end_of(const struct alert_message *m, int64_t starts_unix_ms)
{
	switch (m->state) {
	case ALERT_FIRING:
	case ALERT_REPEAT:
		return base_max_i64(m->made_unix_ms, starts_unix_ms) + ALERT_PAYLOAD_HOLD_MS;
	case ALERT_RESOLVED:
		return base_max_i64(m->ends_unix_ms > 0 ? m->ends_unix_ms : m->made_unix_ms,
				    starts_unix_ms);
	case ALERT_SUMMARY:
	case ALERT_TEST:
		return base_max_i64(m->made_unix_ms, starts_unix_ms) + ALERT_PAYLOAD_NOTICE_MS;
	}
	assert(false);
	return 0;
}

int alert_payload_alertmanager(const struct alert_message *message, struct buffer *b)
{
	char starts[CLOCK_TEXT_MAX], ends[CLOCK_TEXT_MAX];
	int64_t starts_unix_ms =
		message->starts_unix_ms > 0 ? message->starts_unix_ms : message->made_unix_ms;
	int r = buffer_append_text(b, "[{");

	if (r == 0)
		r = append_labels(b, message);
	if (r == 0)
		r = buffer_append_text(b, ",");
	if (r == 0)
		r = append_annotations(b, message);
	if (r == 0)
		r = buffer_appendf(b, ",\"startsAt\":\"%s\",\"endsAt\":\"%s\"}]",
				   clock_format_ms(starts_unix_ms, starts),
				   clock_format_ms(end_of(message, starts_unix_ms), ends));
	return r;
}
