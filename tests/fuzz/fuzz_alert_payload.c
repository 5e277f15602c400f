/* A notification whose every text is somebody's: whatever it says, each form is one document of
 * valid JSON in valid UTF-8, within its bounds and the receiver's, and in Slack no text makes a
 * link or mentions anybody. Input: five bytes for state and numbers, one for the form (or
 * all) and the samples, three for what is absent, then the texts, a line each, taken in turn.
 */
#include "fuzz_input.h"

#include "alert_payload.h"
#include "json.h"

#include <math.h>
#include <string.h>

#define TEXTS_MAX 16
#define SLACK_HEADER_MAX 150
#define SLACK_TEXT_MAX 3000
#define LABEL_MAX 256
#define ANNOTATION_MAX 1024

struct texts {
	char *memory;
	const char *at[TEXTS_MAX];
	size_t n, next;
	uint32_t absent; /* a bit a text */
	size_t n_taken;
};

static const char *take_text(struct texts *t)
{
	if (t->absent >> (t->n_taken++ % 32) & 1)
		return NULL;
	return t->at[t->next++ % t->n];
}

static void split(struct texts *t, struct fuzz_input *in)
{
	t->memory = malloc(in->len + 1);
	check(t->memory != NULL);
	if (in->len)
		memcpy(t->memory, in->at, in->len);
	t->memory[in->len] = '\0';
	char *at = t->memory, *end;
	for (t->at[t->n++] = at; t->n < TEXTS_MAX && (end = strchr(at, '\n')); t->at[t->n++] = at) {
		*end = '\0';
		at = end + 1;
	}
}

static double double_of(uint8_t byte)
{
	static const double doubles[] = { NAN, INFINITY, -INFINITY, 0, 0.25, 1e-300, -1e15, 1e300 };
	return byte & 8 ? (byte >> 4) * 12.5 : doubles[byte & 7];
}

static int64_t time_of(uint8_t byte)
{
	static const int64_t times[] = { 0, INT64_C(1795341600000), -1, INT64_C(9214646399999) };
	return times[byte & 3] + (byte >> 2);
}

static void take_message(struct alert_message *m, struct alert_sample *samples, struct texts *t,
			 const uint8_t head[static 6])
{
	static const char *const units[] = { NULL, "ratio", "usd", "events" };
	m->state = (enum alert_state)(head[0] % (ALERT_TEST + 1));
	m->value = double_of(head[1]);
	m->threshold = double_of(head[2]);
	m->starts_unix_ms = time_of(head[3]);
	m->ends_unix_ms = time_of(head[4]);
	m->made_unix_ms = time_of((uint8_t)(head[3] ^ head[4]));
	m->count = head[1] ? head[1] : INT64_MAX;
	m->total = head[2];
	m->id = take_text(t);
	m->rule = take_text(t);
	m->on = take_text(t);
	m->severity = take_text(t);
	m->template = take_text(t);
	m->summary = take_text(t);
	m->query = take_text(t);
	m->instance = take_text(t);
	m->unit = head[0] & 64 ? take_text(t) : units[head[0] >> 4 & 3];
	m->n_samples = head[5] % (ALERT_SAMPLES_MAX + 2);
	m->samples = samples;
	for (size_t i = 0; i < m->n_samples; i++)
		samples[i] = (struct alert_sample) {
			(int64_t)i,   time_of(head[5]), take_text(t), take_text(t), take_text(t),
			take_text(t), take_text(t),	take_text(t), take_text(t),
		};
}

/* --- what a document must be --- */

static size_t utf16_units(struct span text)
{
	size_t n = 0;
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.s[i];
		n += (c & 0xc0) != 0x80;
		n += c >= 0xf0;
	}
	return n;
}

static struct json_doc *read_back(const struct buffer *b)
{
	CLEANUP(buffer_finish) struct buffer object = BUFFER_INIT(ALERT_PAYLOAD_MAX + 16);
	struct json_doc *doc = NULL;
	check(b->len <= ALERT_PAYLOAD_MAX && strlen(b->data) == b->len);
	check(buffer_append_text(&object, "{\"document\":") == 0);
	check(buffer_append(&object, b->data, b->len) == 0);
	check(buffer_append_text(&object, "}") == 0);
	check(json_parse(object.data, object.len, &doc) == 0);
	return doc;
}

static const struct json_value *document(const struct json_doc *doc)
{
	return json_member(json_root(doc), "document");
}

static void check_one_line(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		check((unsigned char)text.s[i] >= ' ' && text.s[i] != 0x7f);
}

/* Of what Slack reads as markup, only the entities that we wrote. */
static void check_mrkdwn(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		const char *c = text.s + i;
		check(*c != '<' && *c != '>');
		check(*c != '&' || strncmp(c, "&amp;", 5) == 0 || strncmp(c, "&lt;", 4) == 0 ||
		      strncmp(c, "&gt;", 4) == 0);
		check((unsigned char)*c >= ' ' || *c == '\n');
	}
}

static void check_block(const struct json_value *block)
{
	struct span type = json_string(json_member(block, "type"));
	const struct json_value *text = json_member(block, "text");
	if (span_is(type, SPAN_LITERAL("context")))
		text = json_first(json_member(block, "elements"));
	struct span s = json_string(json_member(text, "text"));
	check(s.s && s.len > 0);
	if (span_is(type, SPAN_LITERAL("header"))) {
		check(utf16_units(s) <= SLACK_HEADER_MAX);
		check_one_line(s);
		return;
	}
	check(utf16_units(s) <= SLACK_TEXT_MAX);
	check_mrkdwn(s);
}

static void check_slack(const struct json_doc *doc)
{
	size_t n = 0;
	struct span text = json_string(json_member(document(doc), "text"));
	check(text.s && text.len > 0 && utf16_units(text) <= SLACK_TEXT_MAX);
	check_mrkdwn(text);
	for (const struct json_value *b = json_first(json_member(document(doc), "blocks")); b;
	     b = json_next(b), n++)
		check_block(b);
	check(n >= 1 && n <= 5);
}

static void check_pairs(const struct json_value *pairs, size_t max)
{
	check(pairs && json_first(pairs));
	for (const struct json_value *v = json_first(pairs); v; v = json_next(v)) {
		struct span s = json_string(v);
		check(s.s && s.len > 0 && utf16_units(s) <= max);
		check_one_line(s);
	}
}

static void check_alertmanager(const struct json_doc *doc)
{
	const struct json_value *alert = json_first(document(doc));
	struct span starts = json_string(json_member(alert, "startsAt"));
	struct span ends = json_string(json_member(alert, "endsAt"));
	check(alert && !json_next(alert));
	check_pairs(json_member(alert, "labels"), LABEL_MAX);
	check_pairs(json_member(alert, "annotations"), ANNOTATION_MAX);
	/* Of one length, in one zone: the order of times is that of the texts. */
	check(starts.len == 24 && ends.len == 24 && memcmp(starts.s, ends.s, 24) <= 0);
}

static void check_webhook(const struct json_doc *doc)
{
	const struct json_value *data = json_member(document(doc), "data");
	size_t n = 0;
	check(json_type(json_member(document(doc), "type")) == JSON_STRING);
	check(json_string(json_member(data, "state")).s != NULL);
	check(json_string(json_member(data, "summary")).len <= 1024 * 3);
	for (const struct json_value *s = json_first(json_member(data, "samples")); s;
	     s = json_next(s))
		n++;
	check(n <= ALERT_SAMPLES_MAX);
}

static const struct {
	int (*render)(const struct alert_message *, struct buffer *);
	void (*judge)(const struct json_doc *);
} forms[] = {
	{ alert_payload_webhook, check_webhook },
	{ alert_payload_slack, check_slack },
	{ alert_payload_alertmanager, check_alertmanager },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct texts texts = { 0 };
	struct alert_message message = { 0 };
	struct alert_sample samples[ALERT_SAMPLES_MAX + 2];
	uint8_t head[6];
	for (size_t i = 0; i < sizeof(head); i++)
		head[i] = fuzz_byte(&in);
	texts.absent = (uint32_t)fuzz_number(&in, 3);
	split(&texts, &in);
	take_message(&message, samples, &texts, head);
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(ALERT_PAYLOAD_MAX);
		if (head[5] >> 6 < ARRAY_SIZE(forms) && head[5] >> 6 != i)
			continue;
		check(forms[i].render(&message, &b) == 0);
		struct json_doc *doc = read_back(&b);
		forms[i].judge(doc);
		json_doc_free(doc);
	}
	free(texts.memory);
	return 0;
}
