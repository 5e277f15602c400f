/* The JSON of webhooks and commands. Every key is always there; unknown is null. Texts are kept as
 * they are (JSON escapes them) up to their limits; docs/alert-webhook.schema.json has the same
 * ones.
 */
#include "alert_payload.h"

#include "alert_payload_text.h"
#include "clock.h"
#include "json.h"

#include <math.h>
#include <string.h>

/* In bytes of UTF-8, before escaping. */
#define ID_MAX 256
#define LINE_MAX_BYTES 1024
#define ERROR_MAX_BYTES 1024

const char *alert_payload_state_name(enum alert_state state)
{
	switch (state) {
	case ALERT_FIRING:
		return "firing";
	case ALERT_REPEAT:
		return "repeat";
	case ALERT_RESOLVED:
		return "resolved";
	case ALERT_SUMMARY:
		return "summary";
	case ALERT_TEST:
		return "test";
	}
	assert(false);
	return "";
}

/* `,"key":`; the comma is left out behind an opening bracket. */
static int append_key(struct buffer *b, const char *key)
{
	bool is_first = b->len > 0 && b->data[b->len - 1] == '{';

	return buffer_appendf(b, "%s\"%s\":", is_first ? "" : ",", key);
}

static int append_text(struct buffer *b, const char *key, const char *text, size_t max)
{
	int r = append_key(b, key);

	if (r < 0)
		return r;
	return text ? json_append_string(b, alert_payload_text_cut(text, max))
		    : buffer_append_text(b, "null");
}

/* 0: not known. */
static int append_time(struct buffer *b, const char *key, int64_t unix_ms)
{
	char text[CLOCK_TEXT_MAX];

	return append_text(b, key, unix_ms > 0 ? clock_format_ms(unix_ms, text) : NULL,
			   sizeof(text));
}

static int append_integer(struct buffer *b, const char *key, int64_t n)
{
	int r = append_key(b, key);

	return r < 0 ? r : buffer_appendf(b, "%lld", (long long)n);
}

static int append_double(struct buffer *b, const char *key, double d)
{
	int r = append_key(b, key);

	if (r < 0)
		return r;
	return isfinite(d) ? buffer_appendf(b, "%.15g", d) : buffer_append_text(b, "null");
}

static int append_sample(struct buffer *b, const struct alert_sample *s)
{
	const struct {
		const char *key, *text;
		size_t max;
	} texts[] = {
		{ "event_id", s->event_id, ID_MAX },
		{ "execution_id", s->execution_id, ID_MAX },
		{ "sandbox_id", s->sandbox_id, ID_MAX },
		{ "run_id", s->run_id, ID_MAX },
		{ "status", s->status, ID_MAX },
		{ "error_name", s->error_name, ID_MAX },
		{ "error_value", s->error_value, ERROR_MAX_BYTES },
	};
	int r = buffer_append_text(b, "{");

	if (r == 0)
		r = append_integer(b, "seq", s->seq);
	if (r == 0)
		r = append_time(b, "time", s->time_unix_ms);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		r = append_text(b, texts[i].key, texts[i].text, texts[i].max);
	return r < 0 ? r : buffer_append_text(b, "}");
}

static int append_samples(struct buffer *b, const struct alert_message *m)
{
	int r = append_key(b, "samples");

	if (r == 0)
		r = buffer_append_text(b, "[");
	for (size_t i = 0; r == 0 && i < base_min_size(m->n_samples, ALERT_SAMPLES_MAX); i++) {
		if (i > 0)
			r = buffer_append_text(b, ",");
		if (r == 0)
			r = append_sample(b, &m->samples[i]);
	}
	return r < 0 ? r : buffer_append_text(b, "]");
}

static int append_figures(struct buffer *b, const struct alert_message *m)
{
	int r = append_time(b, "starts_at", m->starts_unix_ms);

	if (r == 0)
		r = append_time(b, "ends_at", m->ends_unix_ms);
	if (r == 0)
		r = append_integer(b, "count", m->count);
	if (r == 0)
		r = append_integer(b, "total", m->total);
	if (r == 0)
		r = append_double(b, "value", m->value);
	if (r == 0)
		r = append_double(b, "threshold", m->threshold);
	return r < 0 ? r : append_text(b, "unit", m->unit, ID_MAX);
}

static int append_data(struct buffer *b, const struct alert_message *m)
{
	const struct {
		const char *key, *text;
		size_t max;
	} texts[] = {
		{ "id", m->id, ID_MAX },
		{ "state", alert_payload_state_name(m->state), ID_MAX },
		{ "rule", m->rule, ID_MAX },
		{ "on", m->on, ID_MAX },
		{ "severity", m->severity, ID_MAX },
		{ "template", m->template, ID_MAX },
		{ "period", m->period, ID_MAX },
		{ "summary", m->summary, LINE_MAX_BYTES },
		{ "query", m->query, LINE_MAX_BYTES },
		{ "instance", m->instance, ID_MAX },
	};
	int r = buffer_append_text(b, "{");

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		r = append_text(b, texts[i].key, texts[i].text, texts[i].max);
	if (r == 0)
		r = append_figures(b, m);
	if (r == 0)
		r = append_samples(b, m);
	return r < 0 ? r : buffer_append_text(b, "}");
}

/* The envelope that Standard Webhooks recommends: type, timestamp, data. */
int alert_payload_webhook(const struct alert_message *message, struct buffer *b)
{
	int r = buffer_appendf(b, "{\"type\":\"alert.%s\"",
			       alert_payload_state_name(message->state));

	if (r == 0)
		r = append_time(b, "timestamp", message->made_unix_ms);
	if (r == 0)
		r = append_key(b, "data");
	if (r == 0)
		r = append_data(b, message);
	return r < 0 ? r : buffer_append_text(b, "}");
}
