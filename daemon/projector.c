/* One slice: read pending events, merge each into its sandbox (each loaded once a slice), settle
 * every sandbox that was touched, place executions, save, move the watermark. All in one
 * transaction of the caller's thread.
 *
 * After a slice failed for another reason than the store, and for what was pending at start (the
 * last process may have died on it), events are tried one by one, each recorded before it is tried.
 */
#include "projector.h"

#include "alert.h"
#include "clock.h"
#include "config.h"
#include "ingest.h"
#include "json.h"
#include "log.h"

#include <errno.h>
#include <string.h>

#define SLOTS 4096 /* of the table of touched sandboxes; a power of two, above any slice */
#define SLICE_MAX (SLOTS / 2)
#define TRIES_MAX 2
#define FAILED_TWICE "failed twice"
#define COPY_SANDBOXES 16
#define TICK_SANDBOXES_MAX 256
#define NAME_MAX_LEN 160
#define OFFERED 2048 /* events kept as read; a power of two, above what is pending at rest */
#define OFFERED_BODY_MAX (16 * 1024) /* a larger one comes from the log: so memory has a bound */

/* What the configuration says of a key; direct-mapped, a miss costs a query. */
#define TERMS_CACHED 64 /* a power of two */
struct projector_term {
	int64_t key; /* of a source or a template; 0: empty */
	const struct config_source *source; /* NULL: not configured */
	const struct config_template *template;
};

struct projector {
	struct storage *s;
	const struct config *config;
	struct alert *alert;
	struct ledger_terms terms;
	struct projector_term sources[TERMS_CACHED], templates[TERMS_CACHED];
	int64_t cautious_until_seq; /* events up to here are tried one by one */
	int64_t unjudged_seq; /* the store failed when this one was tried: that does not count */
	int term_error; /* a look-up inside a callback failed: the slice must not be kept */
	struct log_limit complaint;

	/* of the running slice */
	struct ledger_sandbox *touched[SLOTS];
	size_t n_touched;
	struct projector_execution {
		struct ingest_result *read; /* a reference; holds the event */
		int64_t seq, received_unix_ms;
		struct ledger_sandbox *sandbox;
		int64_t run_key;
		struct ledger_dims dims;
	} * executions;
	size_t n_executions, executions_size;
	int64_t last_seq;
	int64_t deadline_us;

	/* Events as they were read when they came, in the place of seq modulo OFFERED. */
	struct projector_offer {
		int64_t seq, source_key, received_unix_ms;
		struct ingest_result *read; /* a reference; NULL: none */
	} offered[OFFERED];
	int64_t first_offered; /* none before it */

	int64_t refold_until; /* the live watermark */
	int64_t refold_cautious_from, refold_cautious_until; /* a slice between them failed */
	bool refolding; /* into the shadow: what the live fold skipped is skipped again */
	size_t left, n_folded;
};

/* Terms: what the ledger asks about keys ---------------------------------- */

/* Also after a rollback: keys given in the lost transaction may be given again to others. */
static void forget_terms(struct projector *p)
{
	memset(p->sources, 0, sizeof(p->sources));
	memset(p->templates, 0, sizeof(p->templates));
}

/* NULL: nothing to say. */
static const char *text_of(struct projector *p, enum storage_dim dim, int64_t key,
			   char buf[static NAME_MAX_LEN])
{
	int r = storage_text(p->s, dim, key, buf, NAME_MAX_LEN);
	if (r < 0 && r != -ENOENT)
		p->term_error = r;
	return r < 0 ? NULL : buf;
}

static bool is_priced(void *ctx, int64_t source_key)
{
	struct projector *p = ctx;
	char buf[NAME_MAX_LEN];
	if (!source_key || !p->config)
		return true;
	struct projector_term *term = &p->sources[source_key & (TERMS_CACHED - 1)];
	if (term->key != source_key) {
		const char *name = text_of(p, STORAGE_SOURCE, source_key, buf);
		term->source = name ? config_source_by_name(p->config, name) : NULL;
		term->key = p->term_error ? 0 : source_key;
	}
	return !term->source || term->source->priced;
}

static bool size_of(void *ctx, int64_t template_key, int64_t *ret_vcpu, int64_t *ret_memory_mb)
{
	struct projector *p = ctx;
	char buf[NAME_MAX_LEN];
	if (!template_key || !p->config)
		return false;
	struct projector_term *term = &p->templates[template_key & (TERMS_CACHED - 1)];
	if (term->key != template_key) {
		const char *id = text_of(p, STORAGE_TEMPLATE, template_key, buf);
		struct span span = { id, id ? strlen(id) : 0 };
		term->template = id ? config_template_by_id(p->config, span) : NULL;
		term->key = p->term_error ? 0 : template_key;
	}
	const struct config_template *t = term->template;
	if (!t || t->vcpu < 0 || t->memory_mb < 0)
		return false;
	*ret_vcpu = t->vcpu;
	*ret_memory_mb = t->memory_mb;
	return true;
}

static void roll_back(struct projector *p)
{
	storage_rollback(p->s);
	forget_terms(p);
}

/* Events are tried one by one as far as the slice that failed can have come. */
static void be_cautious(struct projector *p, const struct storage_position *at)
{
	p->cautious_until_seq = base_min_i64(at->stored_seq, at->folded_seq + SLICE_MAX);
}

int projector_new(struct storage *s, struct projector **ret)
{
	struct projector *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->s = s;
	p->complaint.burst = 10;
	struct storage_position position;
	int r = storage_position(s, &position);
	if (r < 0) {
		free(p);
		return r;
	}
	/* What was pending when the last process ended may be what ended it. */
	be_cautious(p, &position);
	*ret = p;
	return 0;
}

static void unref_read(struct ingest_result **read)
{
	ingest_result_unref(*read);
}

static void finish_slice(struct projector *p)
{
	for (size_t i = 0; i < SLOTS && p->n_touched; i++) {
		if (!p->touched[i])
			continue;
		ledger_sandbox_finish(p->touched[i]);
		free(p->touched[i]);
		p->touched[i] = NULL;
		p->n_touched--;
	}
	for (size_t i = 0; i < p->n_executions; i++)
		ingest_result_unref(p->executions[i].read);
	p->n_executions = 0;
}

/* Offers -------------------------------------------------------------------- */

static struct projector_offer *place_of(struct projector *p, int64_t seq)
{
	return &p->offered[(uint64_t)seq & (OFFERED - 1)];
}

void projector_offer(struct projector *p, int64_t seq, const struct storage_delivery *delivery,
		     struct ingest_result *judged)
{
	struct projector_offer *offer = place_of(p, seq);
	struct span source = { delivery->source, strlen(delivery->source) };
	int64_t source_key;
	if (delivery->body.len > OFFERED_BODY_MAX)
		return;
	if (offer->read || storage_key(p->s, STORAGE_SOURCE, source, &source_key) < 0)
		return; /* far behind: it comes from the log */
	*offer = (struct projector_offer) { seq, source_key, delivery->received_unix_ms,
					    ingest_result_ref(judged) };
}

static void drop_offered(struct projector *p, int64_t until_seq)
{
	int64_t last = base_min_i64(until_seq, p->first_offered + OFFERED - 1);
	for (int64_t seq = p->first_offered; seq <= last; seq++) {
		struct projector_offer *offer = place_of(p, seq);
		if (offer->seq <= until_seq) {
			ingest_result_unref(offer->read);
			offer->read = NULL;
		}
	}
	p->first_offered = base_max_i64(p->first_offered, until_seq);
}

void projector_free(struct projector *p)
{
	if (!p)
		return;
	finish_slice(p);
	drop_offered(p, INT64_MAX);
	free(p->executions);
	free(p);
}

void projector_set_config(struct projector *p, const struct config *config)
{
	p->config = config;
	forget_terms(p);
	p->terms = (struct ledger_terms) {
		.pricing = &config->pricing,
		.priced = is_priced,
		.size = size_of,
		.ctx = p,
		.max_run_ms = config->store.max_run_ms,
	};
}

void projector_set_alert(struct projector *p, struct alert *alert)
{
	p->alert = alert;
}

int64_t projector_folded_seq(const struct projector *p)
{
	struct storage_position position;
	return storage_position(p->s, &position) < 0 ? 0 : position.folded_seq;
}

/* One slice --------------------------------------------------------------- */

static int touch(struct projector *p, struct span id, struct ledger_sandbox **ret)
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

/* Keeps an execution's event until its sandbox is settled. */
static int hold_execution(struct projector *p, struct ingest_result *read,
			  const struct storage_event *stored, struct ledger_sandbox *sandbox,
			  const struct ledger_event *le, int64_t run_key)
{
	if (p->n_executions == p->executions_size) {
		size_t size = p->executions_size ? 2 * p->executions_size : 64;
		void *grown = reallocarray(p->executions, size, sizeof(*p->executions));
		if (!grown)
			return -ENOMEM;
		p->executions = grown;
		p->executions_size = size;
	}
	p->executions[p->n_executions++] = (struct projector_execution) {
		.read = ingest_result_ref(read),
		.seq = stored->seq,
		.received_unix_ms = stored->received_unix_ms,
		.sandbox = sandbox,
		.run_key = run_key,
		.dims = le->dims,
	};
	return 0;
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

static int fold_into_sandbox(struct projector *p, const struct storage_event *stored,
			     struct ingest_result *read, const struct ledger_event *le,
			     struct storage_link *link)
{
	const struct event *event = &read->event;
	struct ledger_sandbox *sandbox;
	int r = touch(p, event->sandbox_id, &sandbox);
	if (r == 0)
		r = ledger_apply(sandbox, le);
	if (r < 0)
		return r;
	link->sandbox_key = sandbox->key;
	if (event->run_id.s) {
		struct ledger_run *run = ledger_run_named(sandbox, event->run_id);
		if (!run)
			return -ENOMEM;
		link->run_key = storage_run_key(p->s, run);
	}
	if (event->kind != EVENT_CODE_EXECUTED)
		return 0;
	return hold_execution(p, read, stored, sandbox, le, link->run_key);
}

static int fold_event(struct projector *p, const struct storage_event *stored,
		      struct ingest_result *read)
{
	const struct event *event = &read->event;
	struct ledger_event le = { .event = event, .seq = stored->seq };
	struct storage_link link = { .seq = stored->seq,
				     .time_s = stored->time_s,
				     .time_unix_ms = event->time_unix_ns / CLOCK_NS_PER_MS,
				     .kind = event->kind };
	int r = keys_of(p, event, stored->source_key, &le, &link.build_key);
	if (r < 0)
		return r;
	if (p->alert && !p->refolding)
		r = alert_observe(p->alert, stored->seq, event, &le.dims);
	if (r < 0)
		return r;
	link.template_key = le.dims.template_key;
	link.team_key = le.dims.team_key;
	if (is_about_a_sandbox(event))
		r = fold_into_sandbox(p, stored, read, &le, &link);
	return r < 0 ? r : storage_put_link(p->s, &link);
}

static int read_event(struct span body, struct ingest_result *ret)
{
	char detail[EVENT_DETAIL_MAX];
	int r = json_parse(body.s, body.len, &ret->doc);
	return r ? r : event_read(&ret->event, json_root(ret->doc), body, detail);
}

static int took(struct projector *p, const struct storage_event *stored)
{
	p->last_seq = stored->seq;
	p->left--;
	p->n_folded++;
	return 0;
}

/* 1: an event that the live fold left out, and so does a rebuild. */
static int pass_over(struct projector *p, const struct storage_event *stored)
{
	bool skipped;
	int r = storage_is_skipped(p->s, stored->seq, &skipped);
	if (r < 0 || !skipped)
		return r;
	struct storage_link link = { .seq = stored->seq,
				     .time_s = stored->time_s,
				     .time_unix_ms = LEDGER_ABSENT };
	r = storage_skip(p->s, stored->seq, FAILED_TWICE);
	if (r == 0)
		r = storage_put_link(p->s, &link);
	return r < 0 ? r : 1;
}

/* Enough for this slice? One event it always takes, or a slow store would stand still. */
static bool is_enough(const struct projector *p)
{
	return p->left == 0 ||
	       (p->n_folded > 0 && p->left % 16 == 0 && clock_mono_us() > p->deadline_us);
}

static int fold_one(void *ctx, const struct storage_event *stored)
{
	struct projector *p = ctx;
	if (is_enough(p) || (p->refolding && stored->seq > p->refold_until))
		return 1;
	CLEANUP(unref_read) struct ingest_result *read = ingest_result_new();
	if (!read)
		return -ENOMEM;
	int r = p->refolding ? pass_over(p, stored) : 0;
	if (r != 0)
		return r < 0 ? r : took(p, stored);
	r = read_event(stored->body, read);
	if (r == 0)
		r = fold_event(p, stored, read);
	else if (r > 0)
		r = -EBADMSG; /* accepted once, unreadable now */
	return r < 0 ? r : took(p, stored);
}

/* Folds what was offered, as far as it goes without a gap. 1: enough for this slice. */
static int fold_offered(struct projector *p)
{
	for (;;) {
		const struct projector_offer *offer = place_of(p, p->last_seq + 1);
		if (!offer->read || offer->seq != p->last_seq + 1)
			return 0;
		if (is_enough(p))
			return 1;
		const struct storage_event stored = {
			.seq = offer->seq,
			.source_key = offer->source_key,
			.time_s = event_second(&offer->read->event),
			.received_unix_ms = offer->received_unix_ms,
		};
		int r = fold_event(p, &stored, offer->read);
		if (r == 0)
			r = took(p, &stored);
		if (r < 0)
			return r;
	}
}

static int place_execution(struct projector *p, struct projector_execution *x)
{
	struct storage_execution row = {
		.event = &x->read->event,
		.seq = x->seq,
		.received_unix_ms = x->received_unix_ms,
		.sandbox = x->sandbox,
		.named_run_key = x->run_key,
		.dims = x->dims,
	};
	ledger_execution_cost(&x->read->event, &x->dims, &p->terms, &row.cost_nanousd,
			      &row.cost_source);
	struct storage_counts counts;
	int r = storage_put_execution(p->s, &row, &counts);
	if (r < 0)
		return r;
	if (p->alert && !p->refolding)
		alert_count(p->alert, &x->read->event, &x->dims, counts.executions, counts.failed);
	x->sandbox->executions += counts.executions;
	x->sandbox->failed_executions += counts.failed;
	x->sandbox->loose_executions += counts.loose;
	return 0;
}

static int settle_all(struct projector *p, int64_t now_ms)
{
	for (size_t i = 0; i < SLOTS; i++) {
		struct ledger_sandbox *sandbox = p->touched[i];
		if (!sandbox)
			continue;
		int r = ledger_settle(sandbox, &p->terms, now_ms);
		if (r < 0)
			return r;
		for (size_t k = 0; k < sandbox->n_runs; k++)
			(void)storage_run_key(p->s, &sandbox->runs[k]);
	}
	for (size_t i = 0; i < p->n_executions; i++) {
		int r = place_execution(p, &p->executions[i]);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < SLOTS; i++) {
		int r = p->touched[i] ? storage_save_sandbox(p->s, p->touched[i]) : 0;
		if (r < 0)
			return r;
	}
	return p->term_error;
}

/* Folds up to `left` events in a transaction. 0, *ret_more: whether the slice ended before the log
 * did. */
static int fold_slice(struct projector *p, int64_t after_seq, bool *ret_more)
{
	p->term_error = 0;
	p->last_seq = after_seq;
	p->n_folded = 0;
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	struct alert *alert = p->refolding ? NULL : p->alert;
	if (alert)
		r = alert_begin(alert);
	if (r == 0 && !p->refolding)
		r = fold_offered(p);
	if (r == 0)
		r = storage_pending(p->s, p->last_seq, p->left + 1, fold_one, p);
	*ret_more = r == 1;
	if (r >= 0)
		r = settle_all(p, clock_unix_ms());
	if (r == 0 && alert)
		r = alert_end(alert, p->last_seq);
	if (r == 0)
		r = storage_set_folded(p->s, p->last_seq);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		roll_back(p);
	else if (!p->refolding)
		drop_offered(p, p->last_seq);
	finish_slice(p);
	return r;
}

static void complain(struct projector *p, const char *what, int64_t seq, int r)
{
	if (log_limit_allows(&p->complaint, NULL))
		log_line(LOG_LEVEL_ERROR, what, LOG_NUM("seq", seq),
			 LOG_TEXT("error", strerror(-r)), LOG_TEXT("store", storage_error(p->s)));
}

/* Leaves one event out of the ledger: it stays in the log and is reported. */
static int skip_event(struct projector *p, int64_t seq, int64_t time_s, const char *why)
{
	int r = storage_begin(p->s, true);
	if (r < 0)
		return r;
	struct storage_link link = { .seq = seq, .time_s = time_s, .time_unix_ms = LEDGER_ABSENT };
	r = storage_skip(p->s, seq, why);
	if (r == 0)
		r = storage_put_link(p->s, &link);
	if (r == 0)
		r = storage_set_folded(p->s, seq);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		roll_back(p);
	return r;
}

static int note_trying(struct projector *p, int64_t seq, int64_t count)
{
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = storage_set_trying(p->s, seq, count);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		roll_back(p);
	return r;
}

static int first_pending(void *ctx, const struct storage_event *event)
{
	struct storage_event *first = ctx;
	first->seq = event->seq;
	first->time_s = event->time_s;
	return 1;
}

/* Tries the next event alone, having said so first. */
static int fold_cautiously(struct projector *p, const struct storage_position *at, bool *ret_more)
{
	struct storage_event first = { 0 };
	int r = storage_pending(p->s, at->folded_seq, 1, first_pending, &first);
	if (r <= 0) {
		*ret_more = false;
		return r;
	}
	int64_t seq = first.seq;
	*ret_more = true;
	int64_t tried = at->trying_seq == seq ? at->trying_count : 0;
	if (tried > 0 && p->unjudged_seq == seq)
		tried--;
	if (tried >= TRIES_MAX) {
		complain(p, "event skipped: the ledger failed on it twice", seq, -EBADMSG);
		return skip_event(p, seq, first.time_s, FAILED_TWICE);
	}
	r = note_trying(p, seq, tried + 1);
	if (r < 0)
		return r;
	bool more; /* than this one: not known here */
	p->left = 1;
	r = fold_slice(p, at->folded_seq, &more);
	p->unjudged_seq = storage_is_failure(r) ? seq : 0;
	return r;
}

int projector_step(struct projector *p, int64_t budget_us, size_t events_max, bool *ret_more)
{
	struct storage_position at;
	*ret_more = false;
	int r = storage_position(p->s, &at);
	if (r < 0 || at.folded_seq >= at.stored_seq)
		return r;
	p->deadline_us = clock_mono_us() + budget_us;
	if (at.folded_seq < p->cautious_until_seq) {
		r = fold_cautiously(p, &at, ret_more);
	} else {
		p->left = base_min_size(events_max, SLICE_MAX);
		r = fold_slice(p, at.folded_seq, ret_more);
	}
	if (r == 0 || storage_is_failure(r))
		return r;
	complain(p, "the ledger failed on an event", at.folded_seq + 1, r);
	be_cautious(p, &at);
	*ret_more = true;
	return 0;
}

/* Rebuilding ---------------------------------------------------------------- */

/* The next event alone failed, after the slice with it did. */
static int skip_refolded(struct projector *p, int64_t after_seq)
{
	struct storage_event first = { 0 };
	int r = storage_pending(p->s, after_seq, 1, first_pending, &first);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	complain(p, "event skipped: the rebuild failed on it twice", first.seq, -EBADMSG);
	p->last_seq = first.seq;
	return skip_event(p, first.seq, first.time_s, FAILED_TWICE);
}

static int refold(struct projector *p, int64_t after_seq)
{
	bool more, cautious = after_seq >= p->refold_cautious_from &&
			      after_seq < p->refold_cautious_until;
	p->left = cautious ? 1 : SLICE_MAX;
	int r = fold_slice(p, after_seq, &more);
	if (r == 0 || storage_is_failure(r))
		return r;
	if (cautious)
		return skip_refolded(p, after_seq);
	p->refold_cautious_from = p->last_seq = after_seq;
	p->refold_cautious_until = after_seq + SLICE_MAX;
	return 0;
}

int projector_refold(struct projector *p, int64_t after_seq, int64_t until_seq, int64_t budget_us,
		     int64_t *ret_seq)
{
	p->refold_until = until_seq;
	p->deadline_us = clock_mono_us() + budget_us;
	p->refolding = true;
	storage_aim(p->s, STORAGE_SHADOW);
	int r = refold(p, after_seq);
	storage_aim(p->s, STORAGE_LIVE);
	p->refolding = false;
	*ret_seq = r < 0 ? after_seq : p->last_seq;
	return r;
}

/* Sealed sandboxes: from their stored facts, at the prices of now. */
static int copy_one(struct projector *p, const struct storage_sealed *sealed, int64_t now_ms)
{
	struct ledger_sandbox sandbox;
	int r = storage_load_sandbox(p->s, (struct span) { sealed->id, strlen(sealed->id) },
				     &sandbox);
	if (r == 0)
		r = ledger_settle(&sandbox, &p->terms, now_ms);
	storage_aim(p->s, STORAGE_SHADOW);
	if (r == 0)
		r = storage_copy_sealed(p->s, &sandbox);
	if (r == 0)
		r = storage_set_folded(p->s, 0); /* writes the sums */
	storage_aim(p->s, STORAGE_LIVE);
	ledger_sandbox_finish(&sandbox);
	return r < 0 ? r : p->term_error;
}

int projector_copy_sealed(struct projector *p, int64_t after_key, int64_t budget_us,
			  int64_t *ret_key, bool *ret_more)
{
	struct storage_sealed sealed[COPY_SANDBOXES];
	size_t n, n_copied = 0;
	int64_t deadline_us = clock_mono_us() + budget_us;
	p->term_error = 0;
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = storage_sealed_sandboxes(p->s, after_key, ARRAY_SIZE(sealed), sealed, &n);
	while (r == 0 && n_copied < n && (n_copied == 0 || clock_mono_us() < deadline_us))
		r = copy_one(p, &sealed[n_copied++], clock_unix_ms());
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0) {
		roll_back(p);
		return r;
	}
	*ret_more = n > 0;
	if (n > 0)
		*ret_key = sealed[n_copied - 1].key;
	return 0;
}

/* Skipped events ---------------------------------------------------------- */

struct skipped_event {
	struct projector *p;
	int64_t seq;
};

static int fold_this(void *ctx, const struct storage_event *stored)
{
	const struct skipped_event *x = ctx;
	return stored->seq == x->seq ? fold_one(x->p, stored) : -ENOENT;
}

int projector_fold_skipped(struct projector *p, int64_t seq)
{
	struct skipped_event x = { p, seq };
	struct storage_position at;
	int r = storage_position(p->s, &at);
	if (r == 0)
		r = storage_unskip(p->s, seq);
	if (r < 0)
		return r;
	assert(seq <= at.folded_seq);
	p->term_error = 0;
	p->n_folded = 0;
	p->left = 1;
	r = storage_pending(p->s, seq - 1, 1, fold_this, &x);
	if (r == 0)
		r = settle_all(p, clock_unix_ms());
	if (r == 0)
		r = storage_set_folded(p->s, at.folded_seq); /* writes the sums */
	forget_terms(p); /* the caller may roll back */
	finish_slice(p);
	return r;
}

/* Missing ends ------------------------------------------------------------ */

static int settle_due(struct projector *p, char **ids, size_t n, int64_t now_ms)
{
	p->term_error = 0;
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct ledger_sandbox *sandbox;
		r = touch(p, (struct span) { ids[i], strlen(ids[i]) }, &sandbox);
	}
	if (r == 0)
		r = settle_all(p, now_ms);
	struct storage_position at;
	if (r == 0)
		r = storage_position(p->s, &at);
	if (r == 0)
		r = storage_set_folded(p->s, at.folded_seq);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		roll_back(p);
	finish_slice(p);
	return r;
}

int projector_tick(struct projector *p, int64_t now_unix_ms)
{
	char *ids[TICK_SANDBOXES_MAX];
	size_t n;
	int r = storage_due_sandboxes(p->s, now_unix_ms, ids, ARRAY_SIZE(ids), &n);
	if (r == 0 && n > 0)
		r = settle_due(p, ids, n, now_unix_ms);
	/* One that cannot be settled must not hold up the others. */
	for (size_t i = 0; r < 0 && !storage_is_failure(r) && n > 1 && i < n; i++) {
		int alone = settle_due(p, &ids[i], 1, now_unix_ms);
		r = storage_is_failure(alone) ? alone : r;
	}
	for (size_t i = 0; i < n; i++)
		free(ids[i]);
	return r;
}
