/* Slack: a header that says what, the figures, the first few failures, where to look further.
 *
 * Limits (docs.slack.dev, Block Kit): header 150 characters, other texts 3,000, 50 blocks. They
 * are kept by the limits of the pieces below. Texts are
 * `verbatim`, so that a URL or a @name in somebody's error is not made a link.
 */
#include "alert_payload.h"

#include "alert_payload_text.h"
#include "clock.h"
#include "json.h"

#include <string.h>

#define TEXT_MAX_BYTES 16384 /* of one composed text; characters take up to 4 bytes */
#define HEADER_UNITS 150
#define RULE_UNITS 60
#define TEMPLATE_UNITS 50
#define SUMMARY_UNITS 600
#define NAME_UNITS 80
#define ID_UNITS 90
#define ERROR_UNITS 200
#define QUERY_UNITS 400

static const char *icon_of(const struct alert_message *m)
{
	switch (m->state) {
	case ALERT_RESOLVED:
		return ":white_check_mark:";
	case ALERT_TEST:
		return ":bell:";
	case ALERT_SUMMARY:
		return ":information_source:";
	case ALERT_FIRING:
	case ALERT_REPEAT:
		break;
	}
	return m->severity && strcmp(m->severity, "critical") == 0 ? ":rotating_light:"
								   : ":warning:";
}

static const char *heading_of(enum alert_state state)
{
	switch (state) {
	case ALERT_FIRING:
		return "Firing";
	case ALERT_REPEAT:
		return "Still firing";
	case ALERT_RESOLVED:
		return "Resolved";
	case ALERT_SUMMARY:
		return "Summary";
	case ALERT_TEST:
		return "Test";
	}
	assert(false);
	return "";
}

static int append_code(struct buffer *b, const char *text, size_t max)
{
	int r = buffer_append_text(b, "`");
	if (r == 0)
		r = alert_payload_text_append(b, text, max, ALERT_PAYLOAD_TEXT_CODE);
	return r < 0 ? r : buffer_append_text(b, "`");
}

/* "*label* `value`", if there is a value. */
static int append_pair(struct buffer *b, const char *label, const char *value, size_t max)
{
	if (!value || !*value)
		return 0;
	int r = buffer_appendf(b, "%s*%s* ", b->len > 0 ? "  " : "", label);
	return r < 0 ? r : append_code(b, value, max);
}

static int compose_header(const struct alert_message *m, struct buffer *b)
{
	int r = buffer_appendf(b, "%s %s: ", icon_of(m), heading_of(m->state));

	if (r == 0)
		r = alert_payload_text_append(b, m->rule, RULE_UNITS, ALERT_PAYLOAD_TEXT_LINE);
	if (r < 0 || !m->template || !*m->template)
		return r;
	r = buffer_append_text(b, " on ");
	return r < 0 ? r
		     : alert_payload_text_append(b, m->template, TEMPLATE_UNITS,
						 ALERT_PAYLOAD_TEXT_LINE);
}

static int compose_figures(const struct alert_message *m, struct buffer *b)
{
	char count[32] = "", total[32] = "", value[48], threshold[48];
	char since[CLOCK_TEXT_MAX] = "", until[CLOCK_TEXT_MAX] = "";

	if (m->count > 0)
		(void)snprintf(count, sizeof(count), "%lld", (long long)m->count);
	if (m->total > m->count)
		(void)snprintf(total, sizeof(total), "%lld", (long long)m->total);
	if (m->starts_unix_ms > 0)
		(void)clock_format_ms(m->starts_unix_ms, since);
	if (m->ends_unix_ms > 0)
		(void)clock_format_ms(m->ends_unix_ms, until);
	const struct {
		const char *label, *value;
	} pairs[] = {
		{ "severity", m->severity },
		{ "template", m->template },
		{ "count", count },
		{ "in all", total },
		{ "value", alert_payload_text_value(m->value, m->unit, value) },
		{ "threshold", alert_payload_text_value(m->threshold, m->unit, threshold) },
		{ "since", since },
		{ "until", until },
	};
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(pairs); i++)
		r = append_pair(b, pairs[i].label, pairs[i].value, NAME_UNITS);
	return r;
}

static int compose_sample(const struct alert_sample *s, struct buffer *b)
{
	CLEANUP(buffer_finish) struct buffer ids = BUFFER_INIT(TEXT_MAX_BYTES);
	char at[CLOCK_TEXT_MAX];
	const char *name = s->error_name && *s->error_name ? s->error_name : s->status;
	int r = buffer_append_text(b, b->len > 0 ? "\n• " : "• ");

	/* As code: it cannot pass for one of our labels, nor begin a block that hides the next. */
	if (r == 0)
		r = append_code(b, name && *name ? name : "event", NAME_UNITS);
	if (r == 0 && s->error_value && *s->error_value) {
		r = buffer_append_text(b, " ");
		if (r == 0)
			r = append_code(b, s->error_value, ERROR_UNITS);
	}
	if (r == 0)
		r = append_pair(&ids, "sandbox", s->sandbox_id, ID_UNITS);
	if (r == 0)
		r = append_pair(&ids, "execution", s->execution_id, ID_UNITS);
	if (r == 0 && s->time_unix_ms > 0)
		r = append_pair(&ids, "at", clock_format_ms(s->time_unix_ms, at), ID_UNITS);
	if (r == 0 && ids.len > 0)
		r = buffer_appendf(b, "\n    %s", ids.data);
	return r;
}

static int compose_samples(const struct alert_message *m, struct buffer *b)
{
	size_t n = base_min_size(m->n_samples, ALERT_SAMPLES_MAX);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = compose_sample(&m->samples[i], b);
	if (r == 0 && n > 0 && m->count > (int64_t)n)
		r = buffer_appendf(b, "\n… and %lld more", (long long)m->count - (long long)n);
	return r;
}

static int compose_context(const struct alert_message *m, struct buffer *b)
{
	int r = append_pair(b, "look further", m->query, QUERY_UNITS);

	if (r == 0)
		r = append_pair(b, "from", m->instance, NAME_UNITS);
	return r < 0 ? r : append_pair(b, "id", m->id, ID_UNITS);
}

static int compose_summary(const struct alert_message *m, struct buffer *b)
{
	return alert_payload_text_append(b, m->summary, SUMMARY_UNITS, ALERT_PAYLOAD_TEXT_MRKDWN);
}

/* `before`, the composed text as a string, `after`; nothing at all if the text is empty: Slack
 * refuses a message with an empty one. */
static int append_block(struct buffer *b, const struct alert_message *m,
			int (*compose)(const struct alert_message *, struct buffer *),
			const char *before, const char *after)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(TEXT_MAX_BYTES);
	int r = compose(m, &text);

	if (r < 0 || text.len == 0)
		return r;
	r = buffer_append_text(b, before);
	if (r == 0)
		r = json_append_string(b, (struct span) { text.data, text.len });
	return r < 0 ? r : buffer_append_text(b, after);
}

#define SECTION ",{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"verbatim\":true,\"text\":"
#define SECTION_END "}}"

/* What phones and screen readers show instead of the blocks. */
static int compose_fallback(const struct alert_message *m, struct buffer *b)
{
	CLEANUP(buffer_finish) struct buffer header = BUFFER_INIT(TEXT_MAX_BYTES);
	int r = compose_header(m, &header);

	if (r == 0)
		r = alert_payload_text_append(b, header.data, HEADER_UNITS,
					      ALERT_PAYLOAD_TEXT_MRKDWN);
	if (r == 0 && m->summary && *m->summary)
		r = buffer_append_text(b, " — ");
	return r < 0 ? r : compose_summary(m, b);
}

int alert_payload_slack(const struct alert_message *message, struct buffer *b)
{
	const struct {
		int (*compose)(const struct alert_message *, struct buffer *);
		const char *before, *after;
	} blocks[] = {
		{ compose_fallback,
		  "{\"text\":", ",\"unfurl_links\":false,\"unfurl_media\":false,\"blocks\":[" },
		{ compose_header,
		  "{\"type\":\"header\",\"text\":{\"type\":\"plain_text\",\"emoji\":true,\"text\":",
		  "}}" },
		{ compose_summary, SECTION, SECTION_END },
		{ compose_figures, SECTION, SECTION_END },
		{ compose_samples, SECTION, SECTION_END },
		{ compose_context,
		  ",{\"type\":\"context\",\"elements\":[{\"type\":\"mrkdwn\",\"verbatim\":true,"
		  "\"text\":",
		  "}]}" },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(blocks); i++)
		r = append_block(b, message, blocks[i].compose, blocks[i].before, blocks[i].after);
	return r < 0 ? r : buffer_append_text(b, "]}");
}
