/* Judging: one step after the other, and the first that objects ends it.
 *
 * Each step returns 0 to go on, JUDGED when it has put its verdict into the result, or a negative
 * errno. A verdict always has a reason unless it is INGEST_STORE; its words are ours alone, so that
 * nothing a sender wrote gets into a log by way of them. Nothing is parsed before the signature was
 * right.
 */
#include "ingest.h"

#include "clock.h"

#include <stdatomic.h>
#include <string.h>

#define JUDGED 1
#define MS_PER_S 1000

static_assert(INGEST_DETAIL_MAX >= EVENT_DETAIL_MAX, "event_read writes into detail");

/* `detail` is what is said where no step knows better. */
static const struct reason_info {
	const char *name, *detail;
} reasons[INGEST_N_REASONS] = {
	[INGEST_REASON_NONE] = { "", "" },
	[INGEST_REASON_EVENTS] = { "events", "" },
	[INGEST_REASON_TEMPLATES] = { "templates", "" },
	[INGEST_REASON_TEAMS] = { "teams", "" },
	[INGEST_REASON_NOT_ONE_OBJECT] = { "not_one_object",
					   "not exactly one JSON object in valid UTF-8" },
	[INGEST_REASON_TOO_DEEP] = { "too_deep", "JSON nested too deep" },
	[INGEST_REASON_TOO_MANY] = { "too_many_values", "too many JSON values" },
	[INGEST_REASON_DUPLICATE_KEY] = { "duplicate_key", "a JSON object has the same key twice" },
	[INGEST_REASON_MISSING_FIELD] = { "missing_field", "" },
	[INGEST_REASON_WRONG_TYPE] = { "wrong_type", "" },
	[INGEST_REASON_BAD_ID] = { "bad_id", "" },
	[INGEST_REASON_BAD_TIME] = { "bad_time", "" },
	[INGEST_REASON_BAD_NUMBER] = { "bad_number", "" },
	[INGEST_REASON_CONFLICT] = { "conflict", "" },
	[INGEST_REASON_FUTURE] = { "future", "" },
	[INGEST_REASON_STALE] = { "stale", "" },
	[INGEST_REASON_ID_REUSED] = { "id_reused", "another body was stored under this event id" },
	[INGEST_REASON_SIGNATURE_MISSING] = { "signature_missing", "a signature header is absent" },
	[INGEST_REASON_SIGNATURE_MALFORMED] = { "signature_malformed",
						"not a signature of this source's scheme" },
	[INGEST_REASON_SIGNATURE_WRONG] = { "signature_wrong",
					    "no secret of this source makes this signature" },
	[INGEST_REASON_SIGNATURE_EXPIRED] = { "signature_expired",
					      "signed too long before or after its receipt" },
	[INGEST_REASON_BODY_TOO_LARGE] = { "body_too_large", "over max_body of this source" },
};

const char *ingest_reason_name(enum ingest_reason reason)
{
	return reasons[reason].name;
}

static int judged(struct ingest_result *ret, enum ingest_verdict verdict, enum ingest_reason reason)
{
	ret->verdict = verdict;
	ret->reason = reason;
	if (ret->detail[0] == '\0')
		(void)snprintf(ret->detail, sizeof(ret->detail), "%s", reasons[reason].detail);
	return JUDGED;
}

static enum ingest_reason reason_of_signature(enum signature_outcome outcome)
{
	switch (outcome) {
	case SIGNATURE_MISSING:
		return INGEST_REASON_SIGNATURE_MISSING;
	case SIGNATURE_MALFORMED:
		return INGEST_REASON_SIGNATURE_MALFORMED;
	case SIGNATURE_WRONG:
		return INGEST_REASON_SIGNATURE_WRONG;
	case SIGNATURE_EXPIRED:
		return INGEST_REASON_SIGNATURE_EXPIRED;
	}
	return INGEST_REASON_SIGNATURE_WRONG;
}

static enum ingest_reason reason_of_json(enum json_outcome outcome)
{
	switch (outcome) {
	case JSON_NOT_ONE_OBJECT:
		return INGEST_REASON_NOT_ONE_OBJECT;
	case JSON_TOO_DEEP:
		return INGEST_REASON_TOO_DEEP;
	case JSON_TOO_MANY:
		return INGEST_REASON_TOO_MANY;
	case JSON_DUPLICATE_KEY:
		return INGEST_REASON_DUPLICATE_KEY;
	}
	return INGEST_REASON_NOT_ONE_OBJECT;
}

static enum ingest_reason reason_of_event(enum event_problem problem)
{
	switch (problem) {
	case EVENT_MISSING_FIELD:
		return INGEST_REASON_MISSING_FIELD;
	case EVENT_WRONG_TYPE:
		return INGEST_REASON_WRONG_TYPE;
	case EVENT_BAD_ID:
		return INGEST_REASON_BAD_ID;
	case EVENT_BAD_TIME:
		return INGEST_REASON_BAD_TIME;
	case EVENT_BAD_NUMBER:
		return INGEST_REASON_BAD_NUMBER;
	case EVENT_CONFLICT:
		return INGEST_REASON_CONFLICT;
	}
	return INGEST_REASON_WRONG_TYPE;
}

/* What is judged, beside the result. */
struct judging {
	const struct ingest_policy *policy;
	const struct ingest_templates *templates;
	struct span body;
	int64_t received_unix_ms, horizon_unix_s;
	/* What is not one object is what a length extension looks like, and this scheme has them.
	 */
	bool extensible;
};

static int judge_json(struct ingest_result *ret, const struct judging *j)
{
	int r = json_parse(j->body.s, j->body.len, &ret->doc);
	if (r <= 0)
		return r;
	enum ingest_reason reason = reason_of_json((enum json_outcome)r);
	bool forged = j->extensible && reason == INGEST_REASON_NOT_ONE_OBJECT;
	return judged(ret, forged ? INGEST_REJECT : INGEST_QUARANTINE, reason);
}

static int judge_event(struct ingest_result *ret, const struct judging *j)
{
	int r = event_read(&ret->event, json_root(ret->doc), j->body, ret->detail);
	if (r > 0)
		return judged(ret, INGEST_QUARANTINE, reason_of_event((enum event_problem)r));
	if (r < 0)
		return r;
	ret->has_event = true;
	ret->detail[0] = '\0';
	return 0;
}

static int judge_time(struct ingest_result *ret, const struct judging *j)
{
	char is[CLOCK_TEXT_MAX], limit[CLOCK_TEXT_MAX];
	int64_t event_ms = ret->event.time_unix_ns / CLOCK_NS_PER_MS;
	if (event_ms > j->received_unix_ms + INGEST_FUTURE_MAX_MS) {
		(void)snprintf(ret->detail, sizeof(ret->detail),
			       "time %s is more than an hour ahead of the clock at %s",
			       clock_format_ms(event_ms, is),
			       clock_format_ms(j->received_unix_ms, limit));
		return judged(ret, INGEST_QUARANTINE, INGEST_REASON_FUTURE);
	}
	if (j->horizon_unix_s != 0 && event_ms < j->horizon_unix_s * MS_PER_S) {
		(void)snprintf(ret->detail, sizeof(ret->detail),
			       "time %s is before the retention horizon %s",
			       clock_format_ms(event_ms, is),
			       clock_format_ms(j->horizon_unix_s * MS_PER_S, limit));
		return judged(ret, INGEST_QUARANTINE, INGEST_REASON_STALE);
	}
	return 0;
}

static struct span span_of(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

/* Under all its names: as sent, and what the configuration calls that. Senders put an alias where
 * the id belongs, too. */
static bool template_fits(const struct judging *j, const struct event *event)
{
	struct span names[5] = { event->template_id, event->template_alias };
	size_t n = 2;
	const struct ingest_templates *t = j->templates;
	if (t && event->template_id.s) {
		names[n++] = span_of(t->alias_of(t->ctx, event->template_id));
		names[n++] = span_of(t->id_of(t->ctx, event->template_id));
	}
	if (t && event->template_alias.s)
		names[n++] = span_of(t->id_of(t->ctx, event->template_alias));
	return glob_list_match_any(&j->policy->templates, names, n);
}

static int judge_filters(struct ingest_result *ret, const struct judging *j)
{
	const struct event *event = &ret->event;
	if (event->kind == EVENT_TEST)
		return 0;
	const struct span types[] = { event->type, span_of(event_kind_name(event->kind)) };
	if (!glob_list_match_any(&j->policy->events, types, ARRAY_SIZE(types)))
		return judged(ret, INGEST_FILTERED, INGEST_REASON_EVENTS);
	if (!template_fits(j, event))
		return judged(ret, INGEST_FILTERED, INGEST_REASON_TEMPLATES);
	if (!glob_list_match(&j->policy->teams, event->team_id))
		return judged(ret, INGEST_FILTERED, INGEST_REASON_TEAMS);
	return 0;
}

static int judge_content(struct ingest_result *ret, const struct judging *j)
{
	int r = judge_json(ret, j);
	if (r == 0)
		r = judge_event(ret, j);
	if (r == 0)
		r = judge_time(ret, j);
	if (r == 0)
		r = judge_filters(ret, j);
	if (r == 0)
		ret->verdict = INGEST_STORE;
	return r < 0 ? r : 0;
}

/* Until something says otherwise, a delivery is refused. */
static void start(struct ingest_result *ret)
{
	*ret = (struct ingest_result) { .verdict = INGEST_REJECT };
}

int ingest_judge(struct ingest_result *ret, const struct ingest_policy *policy,
		 const struct ingest_templates *templates, const struct ingest_delivery *delivery,
		 int64_t horizon_unix_s)
{
	start(ret);
	int r = signature_verify(policy->keyring, &delivery->signed_part, &ret->match);
	if (r < 0)
		return r;
	if (r > 0) {
		(void)judged(ret, INGEST_REJECT, reason_of_signature((enum signature_outcome)r));
		return 0;
	}
	ret->verified = true;
	const struct judging j = {
		.policy = policy,
		.templates = templates,
		.body = delivery->signed_part.body,
		.received_unix_ms = delivery->received_unix_ms,
		.horizon_unix_s = horizon_unix_s,
		.extensible = signature_keyring_scheme(policy->keyring) == SIGNATURE_E2B,
	};
	return judge_content(ret, &j);
}

int ingest_judge_body(struct ingest_result *ret, const struct ingest_policy *policy,
		      const struct ingest_templates *templates, struct span body,
		      int64_t received_unix_ms, int64_t horizon_unix_s)
{
	start(ret);
	const struct judging j = {
		.policy = policy,
		.templates = templates,
		.body = body,
		.received_unix_ms = received_unix_ms,
		.horizon_unix_s = horizon_unix_s,
	};
	return judge_content(ret, &j);
}

/* What ingest_result_new gives out is the first member of this. */
struct shared {
	struct ingest_result result;
	atomic_uint refs;
};

struct ingest_result *ingest_result_new(void)
{
	struct shared *shared = calloc(1, sizeof(*shared));
	if (!shared)
		return NULL;
	atomic_init(&shared->refs, 1);
	return &shared->result;
}

struct ingest_result *ingest_result_ref(struct ingest_result *result)
{
	(void)atomic_fetch_add(&((struct shared *)(void *)result)->refs, 1);
	return result;
}

void ingest_result_unref(struct ingest_result *result)
{
	struct shared *shared = (struct shared *)(void *)result;
	if (!shared || atomic_fetch_sub(&shared->refs, 1) > 1)
		return;
	ingest_result_finish(&shared->result);
	free(shared);
}

void ingest_result_finish(struct ingest_result *result)
{
	if (!result)
		return;
	event_finish(&result->event);
	json_doc_free(result->doc);
	result->doc = NULL;
	result->has_event = false;
}
