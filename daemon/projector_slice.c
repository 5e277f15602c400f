/* One slice: events applied in memory, then written together. */
#include "projector_internal.h"

#include "alert.h"
#include "clock.h"
#include "config.h"
#include "json.h"

#include <errno.h>
#include <string.h>

#define LINKS_IN_PARTS 3 /* so many times the events: they take so much less time */

void projector_slice_drop(struct projector *p)
{
	for (size_t i = 0; i < SLOTS && p->n_touched; i++) {
		if (!p->touched[i])
			continue;
		ledger_sandbox_finish(p->touched[i]);
		free(p->touched[i]);
		p->touched[i] = NULL;
		p->n_touched--;
	}
	for (size_t i = 0; i < p->n_applied; i++)
		ingest_result_unref(p->applied[i].read);
	p->n_applied = p->n_taken = 0;
	p->is_arranged = false;
}

void projector_slice_begin(struct projector *p, int64_t after_seq)
{
	int64_t changes = storage_ledger_changes(p->s);
	if (p->n_taken > 0 && p->after_seq == after_seq && p->ledger_changes == changes)
		return;
	projector_slice_drop(p);
	p->after_seq = p->last_seq = after_seq;
	p->ledger_changes = changes;
}

/* Applying ------------------------------------------------------------------ */

int projector_slice_touch(struct projector *p, struct span id, struct ledger_sandbox **ret)
{
	uint64_t h = base_hash(BASE_HASH_BEGIN, id.s, id.len);
	size_t slot = (h ^ (h >> 31)) & (SLOTS - 1);
	for (; p->touched[slot]; slot = (slot + 1) & (SLOTS - 1)) {
		struct ledger_sandbox *t = p->touched[slot];
		if (strlen(t->id) == id.len && memcmp(t->id, id.s, id.len) == 0) {
			*ret = t;
			return 0;
		}
	}
	assert(p->n_touched < SLOTS - 1);
	struct ledger_sandbox *sandbox = calloc(1, sizeof(*sandbox));
	if (!sandbox)
		return -ENOMEM;
	p->touched[slot] = sandbox;
	p->n_touched++;
	*ret = sandbox;
	return storage_load_sandbox(p->s, id, sandbox);
}

/* The template an event names: by id, or by its configured alias. */
static struct span template_of(const struct projector *p, const struct event *e)
{
	struct span alias = e->template_id.s ? e->template_id : e->template_alias;
	const struct config_template *t =
		p->config && alias.s ? config_template_by_alias(p->config, alias) : NULL;
	return t ? (struct span) { t->id, strlen(t->id) } : alias;
}

static int keys_of(struct projector *p, const struct event *e, int64_t source_key,
		   struct ledger_event *ret, int64_t *ret_build_key)
{
	ret->dims.source_key = source_key;
	int r = storage_key(p->s, STORAGE_TEMPLATE, template_of(p, e), &ret->dims.template_key);
	if (r == 0)
		r = storage_key(p->s, STORAGE_TEAM, e->team_id, &ret->dims.team_key);
	if (r == 0)
		r = storage_key(p->s, STORAGE_BUILD, e->build_id, ret_build_key);
	if (r == 0)
		r = storage_key(p->s, STORAGE_WORD, e->kill_reason, &ret->kill_reason_key);
	return r;
}

/* Test events and others without a sandbox are linked, and that is all. */
static bool is_about_a_sandbox(const struct event *e)
{
	return e->kind != EVENT_TEST && e->sandbox_id.s != NULL;
}

static int apply_to_sandbox(struct projector *p, const struct ledger_event *le,
			    struct projector_applied *x)
{
	const struct event *event = le->event;
	int r = projector_slice_touch(p, event->sandbox_id, &x->sandbox);
	if (r == 0)
		r = ledger_apply(x->sandbox, le);
	if (r < 0)
		return r;
	x->link.sandbox_key = x->sandbox->key;
	if (event->run_id.s) {
		struct ledger_run *run = ledger_run_named(x->sandbox, event->run_id);
		if (!run)
			return -ENOMEM;
		x->link.run_key = storage_run_key(p->s, run);
	}
	return 0;
}

static struct alert *alert_of(const struct projector *p)
{
	return p->refolding ? NULL : p->alert;
}

static bool is_execution(const struct projector_applied *x)
{
	return x->sandbox && x->link.kind == EVENT_CODE_EXECUTED;
}

static int hold(struct projector *p, const struct projector_applied *x)
{
	if (p->n_applied == p->applied_size) {
		size_t size = p->applied_size ? 2 * p->applied_size : 64;
		void *grown = reallocarray(p->applied, size, sizeof(*p->applied));
		if (!grown)
			return -ENOMEM;
		p->applied = grown;
		p->applied_size = size;
	}
	p->applied[p->n_applied++] = *x;
	if (x->read)
		(void)ingest_result_ref(x->read);
	return 0;
}

/* Is the event itself needed, when the slice is written? */
static bool is_needed(const struct projector *p, const struct projector_applied *x,
		      const struct event *event)
{
	return is_execution(x) || (alert_of(p) && alert_wants(p->alert, event));
}

void projector_slice_took(struct projector *p, int64_t seq)
{
	p->last_seq = seq;
	p->left--;
	p->n_taken++;
}

int projector_slice_apply(struct projector *p, const struct storage_event *stored,
			  struct ingest_result *read)
{
	const struct event *event = &read->event;
	struct ledger_event le = { .event = event, .seq = stored->seq };
	struct projector_applied x = {
		.received_unix_ms = stored->received_unix_ms,
		.link = { .seq = stored->seq,
			  .time_s = stored->time_s,
			  .time_unix_ms = event->time_unix_ns / CLOCK_NS_PER_MS,
			  .kind = event->kind },
	};
	int r = keys_of(p, event, stored->source_key, &le, &x.link.build_key);
	if (r < 0)
		return r;
	x.dims = le.dims;
	x.link.template_key = le.dims.template_key;
	x.link.team_key = le.dims.team_key;
	if (is_about_a_sandbox(event))
		r = apply_to_sandbox(p, &le, &x);
	x.read = is_needed(p, &x, event) ? read : NULL;
	if (r == 0)
		r = hold(p, &x);
	if (r == 0)
		projector_slice_took(p, stored->seq);
	return r;
}

static int read_event(struct span body, struct ingest_result *ret)
{
	char detail[EVENT_DETAIL_MAX];
	int r = json_parse(body.s, body.len, &ret->doc);
	return r ? r : event_read(&ret->event, json_root(ret->doc), body, detail);
}

static void unref_read(struct ingest_result **read)
{
	ingest_result_unref(*read);
}

bool projector_slice_is_enough(const struct projector *p)
{
	return p->left == 0 ||
	       (p->n_taken > 0 && p->left % 16 == 0 && clock_mono_us() > p->deadline_us);
}

int projector_slice_take(void *ctx, const struct storage_event *stored)
{
	struct projector *p = ctx;
	if (projector_slice_is_enough(p))
		return 1;
	CLEANUP(unref_read) struct ingest_result *read = ingest_result_new();
	if (!read)
		return -ENOMEM;
	int r = read_event(stored->body, read);
	if (r > 0)
		r = -EBADMSG; /* accepted once, unreadable now */
	return r < 0 ? r : projector_slice_apply(p, stored, read);
}

/* Writing ------------------------------------------------------------------- */

static int put_execution(struct projector *p, struct projector_applied *x)
{
	const struct event *event = &x->read->event;
	struct storage_execution row = {
		.event = event,
		.seq = x->link.seq,
		.received_unix_ms = x->received_unix_ms,
		.sandbox = x->sandbox,
		.named_run_key = x->link.run_key,
		.dims = x->dims,
	};
	ledger_execution_cost(event, &x->dims, &p->terms, &row.cost_nanousd, &row.cost_source);
	struct storage_counts counts;
	int r = storage_put_execution(p->s, &row, &counts);
	if (r == 0 && alert_of(p))
		r = alert_count(p->alert, x->link.seq, event, &x->dims, &counts);
	if (r < 0)
		return r;
	x->sandbox->executions += counts.executions;
	x->sandbox->failed_executions += counts.failed;
	x->sandbox->loose_executions += counts.loose;
	return 0;
}

static int settle(struct projector *p, struct ledger_sandbox *sandbox, int64_t now_ms)
{
	int r = ledger_settle(sandbox, &p->terms, now_ms);
	for (size_t i = 0; r == 0 && i < sandbox->n_runs; i++)
		(void)storage_run_key(p->s, &sandbox->runs[i]);
	return r;
}

static int compare_keys(const void *a, const void *b)
{
	int64_t x = (*(struct ledger_sandbox *const *)a)->key;
	int64_t y = (*(struct ledger_sandbox *const *)b)->key;
	return (x > y) - (x < y);
}

static void arrange(struct projector *p, size_t part)
{
	size_t n = 0;
	for (size_t i = 0; i < SLOTS && n < p->n_touched; i++)
		if (p->touched[i])
			p->by_key[n++] = p->touched[i];
	qsort(p->by_key, n, sizeof(*p->by_key), compare_keys);
	/* What is half in the store is written whole, to get on. */
	bool was_cut = p->after_seq < p->amid_until_seq;
	p->n_parts = part && !was_cut ? base_max_size(1, p->n_applied / part) : 1;
	p->n_saved = p->n_linked = 0;
	p->is_arranged = true;
}

/* An execution needs its sandbox settled, and counts in its row. */
static int save(struct projector *p, size_t end, int64_t now_ms)
{
	int64_t first = p->by_key[p->n_saved]->key, last = p->by_key[end - 1]->key;
	int r = 0;
	for (size_t i = p->n_saved; i < end && r == 0; i++)
		r = settle(p, p->by_key[i], now_ms);
	for (size_t i = 0; i < p->n_applied && r == 0; i++) {
		struct projector_applied *x = &p->applied[i];
		if (is_execution(x) && x->sandbox->key >= first && x->sandbox->key <= last)
			r = put_execution(p, x);
	}
	for (size_t i = p->n_saved; i < end && r == 0; i++)
		r = storage_save_sandbox(p->s, p->by_key[i]);
	p->n_saved = end;
	return r;
}

static int link_events(struct projector *p, size_t end)
{
	int r = 0;
	for (; p->n_linked < end && r == 0; p->n_linked++) {
		const struct projector_applied *x = &p->applied[p->n_linked];
		if (x->read && alert_of(p))
			r = alert_observe(p->alert, x->link.seq, &x->read->event, &x->dims);
		if (r == 0)
			r = storage_put_link(p->s, &x->link);
	}
	return r;
}

/* The end of the part that begins at `from`, of n in n_parts. */
static size_t part_end(size_t from, size_t n, size_t n_parts)
{
	return base_min_size(n, from + (n + n_parts - 1) / n_parts);
}

int projector_slice_write(struct projector *p, size_t part, int64_t now_ms)
{
	int r = 0;
	p->term_error = 0;
	if (!p->is_arranged)
		arrange(p, part);
	bool saves = p->n_saved < p->n_touched;
	if (saves)
		r = save(p, part_end(p->n_saved, p->n_touched, p->n_parts), now_ms);
	if (r == 0 && (!saves || p->n_parts == 1)) {
		size_t n_parts = (p->n_parts + LINKS_IN_PARTS - 1) / LINKS_IN_PARTS;
		r = link_events(p, part_end(p->n_linked, p->n_applied, n_parts));
	}
	return r < 0 ? r : p->term_error;
}

bool projector_slice_is_amid(const struct projector *p)
{
	return p->is_arranged && (p->n_saved < p->n_touched || p->n_linked < p->n_applied);
}

int64_t projector_slice_seq_written(const struct projector *p)
{
	if (p->n_saved == p->n_touched && p->n_linked == p->n_applied)
		return p->last_seq; /* what was passed over, too */
	return p->n_linked ? p->applied[p->n_linked - 1].link.seq : p->after_seq;
}
