/* Merging: what is known of a sandbox after one more event.
 *
 * Every fact is a maximum by (event time, event id), and loose events are a set, so merging is
 * commutative, associative and idempotent: that is all that makes the ledger independent of the
 * order of arrival. Nothing here looks at prices, limits or the clock; nothing derived is touched.
 */
#include "ledger.h"

#include <errno.h>
#include <string.h>

#include "ledger_internal.h"

static const struct ledger_account no_account = {
	.started_ms = LEDGER_ABSENT,
	.ended_ms = LEDGER_ABSENT,
	.vcpu_count = LEDGER_ABSENT,
	.memory_mb = LEDGER_ABSENT,
	.runtime_ms = LEDGER_ABSENT,
	.rates = { LEDGER_ABSENT, LEDGER_ABSENT },
	.cost_nanousd = LEDGER_ABSENT,
	.due_ms = LEDGER_ABSENT,
};

void ledger_sandbox_init(struct ledger_sandbox *sandbox)
{
	*sandbox = (struct ledger_sandbox) {
		.first_event_ms = LEDGER_ABSENT,
		.startup_ms = LEDGER_ABSENT,
		.killed = { .timeout_ms = LEDGER_ABSENT },
		.totals = { .created_ms = LEDGER_ABSENT,
			    .ended_ms = LEDGER_ABSENT,
			    .expires_ms = LEDGER_ABSENT },
		.booked = { .startup_ms = LEDGER_ABSENT },
	};
}

void ledger_sandbox_finish(struct ledger_sandbox *sandbox)
{
	if (!sandbox)
		return;
	free(sandbox->metadata);
	free(sandbox->runs);
	free(sandbox->loose);
	ledger_sandbox_init(sandbox);
}

static const char *id_of(const struct ledger_sandbox *sandbox, int64_t seq)
{
	return sandbox->id_of ? sandbox->id_of(sandbox->id_ctx, seq) : NULL;
}

bool ledger_is_later(const struct ledger_sandbox *sandbox, int64_t time_ns, const char *id,
		     struct ledger_mark stored)
{
	if (stored.seq == 0 || time_ns != stored.time_ns)
		return stored.seq == 0 || time_ns > stored.time_ns;
	const char *stored_id = id_of(sandbox, stored.seq);
	return stored_id && strcmp(id, stored_id) > 0;
}

int ledger_mark_compare(const struct ledger_sandbox *sandbox, struct ledger_mark a,
			struct ledger_mark b)
{
	if (a.time_ns != b.time_ns)
		return a.time_ns < b.time_ns ? -1 : 1;
	if (a.seq == b.seq)
		return 0;
	char a_text[EVENT_ID_MAX + 1];
	const char *a_id = id_of(sandbox, a.seq);
	if (a_id) /* lent until the next question only */
		(void)snprintf(a_text, sizeof(a_text), "%s", a_id);
	const char *b_id = id_of(sandbox, b.seq);
	if (!a_id != !b_id)
		return a_id ? -1 : 1;
	int order = a_id ? strcmp(a_text, b_id) : 0;
	return order ? order : a.seq < b.seq ? -1 : 1;
}

int ledger_reserve_runs(struct ledger_sandbox *sandbox, size_t n)
{
	size_t needed = sandbox->n_runs + n;
	if (needed <= sandbox->runs_size)
		return 0;
	size_t size = needed > 2 * sandbox->runs_size ? needed : 2 * sandbox->runs_size;
	struct ledger_run *runs = reallocarray(sandbox->runs, size, sizeof(*runs));
	if (!runs)
		return -ENOMEM;
	sandbox->runs = runs;
	sandbox->runs_size = size;
	return 0;
}

static void clear_facts(struct ledger_run *run)
{
	const struct ledger_fact none = { .timeout_ms = LEDGER_ABSENT };
	run->start = run->end = run->timeout = none;
}

struct ledger_run *ledger_append_run(struct ledger_sandbox *sandbox, struct span id, bool named)
{
	assert(sandbox->n_runs < sandbox->runs_size && id.len <= LEDGER_RUN_ID_MAX);
	struct ledger_run *run = &sandbox->runs[sandbox->n_runs++];
	*run = (struct ledger_run) {
		.named = named,
		.account = no_account,
		.stored = no_account,
	};
	memcpy(run->id, id.s, id.len);
	clear_facts(run);
	return run;
}

static struct ledger_run *find_run(struct ledger_sandbox *sandbox, struct span id)
{
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		struct ledger_run *run = &sandbox->runs[i];
		if (span_is(id, (struct span) { run->id, strlen(run->id) }))
			return run;
	}
	return NULL;
}

struct ledger_run *ledger_run_named(struct ledger_sandbox *sandbox, struct span id)
{
	struct ledger_run *run = find_run(sandbox, id);
	if (!run)
		return ledger_reserve_runs(sandbox, 1) == 0 ? ledger_append_run(sandbox, id, true)
							    : NULL;
	if (!run->named) { /* a sender may name a run just as we named ours */
		clear_facts(run);
		run->named = run->facts_changed = true;
		run->gone = false;
	}
	return run;
}

const struct ledger_run *ledger_run_at(const struct ledger_sandbox *sandbox, int64_t unix_ms)
{
	const struct ledger_run *found = NULL;
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		const struct ledger_account *a = &sandbox->runs[i].account;
		bool spans = a->exists && a->started_ms != LEDGER_ABSENT;
		if (sandbox->runs[i].gone || !spans || a->started_ms > unix_ms)
			continue;
		if (a->ended_ms == LEDGER_ABSENT || unix_ms <= a->ended_ms)
			found = &sandbox->runs[i];
	}
	return found;
}

/* Merging ------------------------------------------------------------------------------------- */

/* What every merge compares: the event's place in time. */
static bool is_news(const struct ledger_sandbox *sandbox, const struct ledger_event *e,
		    struct ledger_mark stored)
{
	return stored.seq != e->seq &&
	       ledger_is_later(sandbox, e->event->time_unix_ns, e->event->id, stored);
}

static struct ledger_mark mark_of(const struct ledger_event *e)
{
	return (struct ledger_mark) { e->event->time_unix_ns, e->seq };
}

static struct ledger_fact fact_of(const struct ledger_event *e)
{
	struct ledger_fact fact = {
		.mark = mark_of(e),
		.kind = e->event->kind,
		.dims = e->dims,
		.timeout_ms = LEDGER_ABSENT,
	};
	if (fact.kind == EVENT_KILLED)
		fact.kill_reason_key = e->kill_reason_key;
	if (fact.kind == EVENT_UPDATED && e->event->set_timeout_unix_ms != EVENT_ABSENT)
		fact.timeout_ms = e->event->set_timeout_unix_ms;
	if (event_kind_ends_run(fact.kind))
		fact.report = e->event->report;
	return fact;
}

/* Of those facts that a run has one of each; NULL for events that are none of them. */
static struct ledger_fact *slot_of(struct ledger_run *run, const struct ledger_fact *fact)
{
	if (event_kind_starts_run(fact->kind))
		return &run->start;
	if (event_kind_ends_run(fact->kind))
		return &run->end;
	return fact->timeout_ms != LEDGER_ABSENT ? &run->timeout : NULL;
}

static void merge_key(struct ledger_sandbox *sandbox, const struct ledger_event *e, int64_t key,
		      struct ledger_mark *mark, int64_t *ret_key)
{
	if (key == 0 || !is_news(sandbox, e, *mark))
		return;
	*mark = mark_of(e);
	*ret_key = key;
}

static int merge_metadata(struct ledger_sandbox *sandbox, const struct ledger_event *e)
{
	struct span metadata = e->event->metadata;
	if (!metadata.s || !is_news(sandbox, e, sandbox->metadata_mark))
		return 0;
	char *copy = strndup(metadata.s, metadata.len);
	if (!copy)
		return -ENOMEM;
	free(sandbox->metadata);
	sandbox->metadata = copy;
	sandbox->metadata_mark = mark_of(e);
	return 0;
}

static int merge_sandbox(struct ledger_sandbox *sandbox, const struct ledger_event *e)
{
	const struct event *event = e->event;
	int64_t time_ms = ledger_ms(event->time_unix_ns);
	if (sandbox->first_event_ms == LEDGER_ABSENT || time_ms < sandbox->first_event_ms)
		sandbox->first_event_ms = time_ms;
	if (is_news(sandbox, e, sandbox->last)) {
		sandbox->last = mark_of(e);
		sandbox->last_source_key = e->dims.source_key;
	}
	merge_key(sandbox, e, e->dims.template_key, &sandbox->template_mark,
		  &sandbox->template_key);
	merge_key(sandbox, e, e->dims.team_key, &sandbox->team_mark, &sandbox->team_key);
	if (event->startup_ms != EVENT_ABSENT && is_news(sandbox, e, sandbox->startup_mark)) {
		sandbox->startup_mark = mark_of(e);
		sandbox->startup_ms = event->startup_ms;
	}
	if (event->kind == EVENT_KILLED && is_news(sandbox, e, sandbox->killed.mark))
		sandbox->killed = fact_of(e);
	return merge_metadata(sandbox, e);
}

static int merge_run(struct ledger_sandbox *sandbox, const struct ledger_event *e)
{
	sandbox->names_run = true;
	struct ledger_run *run = ledger_run_named(sandbox, e->event->run_id);
	if (!run)
		return -ENOMEM;
	struct ledger_fact fact = fact_of(e);
	struct ledger_fact *slot = slot_of(run, &fact);
	if (slot && is_news(sandbox, e, slot->mark)) {
		*slot = fact;
		run->facts_changed = true;
	}
	return 0;
}

static int keep_loose(struct ledger_sandbox *sandbox, const struct ledger_event *e)
{
	struct ledger_run any;
	struct ledger_fact fact = fact_of(e);
	if (!slot_of(&any, &fact))
		return 0;
	for (size_t i = 0; i < sandbox->n_loose; i++) {
		if (sandbox->loose[i].mark.seq == e->seq)
			return 0;
	}
	if (sandbox->n_loose == sandbox->loose_size) {
		size_t size = sandbox->loose_size ? 2 * sandbox->loose_size : 4;
		struct ledger_fact *loose = reallocarray(sandbox->loose, size, sizeof(*loose));
		if (!loose)
			return -ENOMEM;
		sandbox->loose = loose;
		sandbox->loose_size = size;
	}
	sandbox->loose[sandbox->n_loose++] = fact;
	return 0;
}

int ledger_apply(struct ledger_sandbox *sandbox, const struct ledger_event *event)
{
	assert(event->seq > 0);
	if (event->event->kind == EVENT_TEST)
		return 0;
	int r = merge_sandbox(sandbox, event);
	if (r < 0)
		return r;
	return event->event->run_id.s ? merge_run(sandbox, event) : keep_loose(sandbox, event);
}

const char *ledger_state_name(enum ledger_state state)
{
	switch (state) {
	case LEDGER_UNKNOWN:
		return "unknown";
	case LEDGER_RUNNING:
		return "running";
	case LEDGER_PAUSED:
		return "paused";
	case LEDGER_KILLED:
		return "killed";
	}
	return "unknown";
}

const char *ledger_end_kind_name(enum ledger_end_kind kind)
{
	switch (kind) {
	case LEDGER_OPEN:
		return "open";
	case LEDGER_END_PAUSED:
		return "paused";
	case LEDGER_END_KILLED:
		return "killed";
	case LEDGER_END_NEXT_START:
		return "next_start";
	case LEDGER_END_TIMEOUT:
		return "timeout";
	case LEDGER_END_MAX_RUN:
		return "max_run";
	}
	return "open";
}

const char *ledger_cost_source_name(enum ledger_cost_source source)
{
	switch (source) {
	case LEDGER_COST_UNKNOWN:
		return "unknown";
	case LEDGER_COST_REPORTED:
		return "reported";
	case LEDGER_COST_ESTIMATED:
		return "estimated";
	case LEDGER_COST_COMPUTED:
		return "computed";
	}
	return "unknown";
}
