/* Accounts: from the facts of a run to its time, its end and its money, and from all runs of a
 * sandbox to its state and sums.
 *
 * A report counts before anything else. An end that nobody reported is the earliest instant that
 * could have been one, and it is true as soon as the clock or a later event is past it: so an
 * account that is closed stays as it is until another fact arrives. Cost is computed in one place,
 * from whole milliseconds, and is absent rather than wrong.
 */
#include "ledger.h"

#include "ledger_internal.h"

#include <string.h>

static int64_t reported_end(const struct event_report *report)
{
	return ledger_add(report->started_unix_ms, base_max_i64(report->duration_ms, 0));
}

static enum ledger_end_kind end_kind(const struct ledger_fact *end)
{
	return end->kind == EVENT_PAUSED ? LEDGER_END_PAUSED : LEDGER_END_KILLED;
}

static bool has_report(const struct ledger_work_run *run)
{
	return run->end && run->end->report.present;
}

void ledger_account_begin(struct ledger_work_run *run)
{
	struct ledger_account *a = &run->account;
	*a = (struct ledger_account) {
		.started_ms = LEDGER_ABSENT,
		.ended_ms = LEDGER_ABSENT,
		.vcpu_count = LEDGER_ABSENT,
		.memory_mb = LEDGER_ABSENT,
		.runtime_ms = LEDGER_ABSENT,
		.rates = { LEDGER_ABSENT, LEDGER_ABSENT },
		.cost_nanousd = LEDGER_ABSENT,
		.due_ms = LEDGER_ABSENT,
	};
	a->exists = run->start || has_report(run);
	if (!a->exists)
		return;
	a->started_ms = has_report(run) ? run->end->report.started_unix_ms
					: ledger_ms(run->start->mark.time_ns);
	if (run->end)
		a->end_kind = end_kind(run->end);
	if (has_report(run))
		a->ended_ms = reported_end(&run->end->report);
	else if (run->end)
		a->ended_ms = base_max_i64(a->started_ms, ledger_ms(run->end->mark.time_ns));
	if (run->start)
		run->begin_ns = run->start->mark.time_ns;
	else if (__builtin_mul_overflow(a->started_ms, CLOCK_NS_PER_MS, &run->begin_ns))
		run->begin_ns = INT64_MAX;
}

/* Missing ends -------------------------------------------------------------------------------- */

/* Where the next run begins, as an end of this one. Reports are cut to the second: one that begins
 * earlier than this run, yet covers its start, leaves it no time at all. */
static int64_t next_start(const struct ledger_account *a, const struct ledger_work_run *next)
{
	const struct ledger_account *n = &next->account;
	if (n->started_ms > a->started_ms)
		return n->started_ms;
	bool covers = n->ended_ms == LEDGER_ABSENT || n->ended_ms > a->started_ms;
	return covers ? a->started_ms : base_max_i64(a->started_ms, ledger_ms(next->begin_ns));
}

static bool killed_later(const struct ledger_work *work, const struct ledger_work_run *run)
{
	const struct ledger_mark *killed = &work->sandbox->killed.mark;
	return killed->seq && run->begin_ns <= killed->time_ns;
}

struct possible_end {
	enum ledger_end_kind kind;
	int64_t at_ms; /* LEDGER_ABSENT: not possible */
	bool is_event; /* it is known to have happened, and so everything before it */
};

#define N_POSSIBLE_ENDS 4

/* On a tie the first counts. */
static void possible_ends(const struct ledger_work *work, const struct ledger_work_run *run,
			  const struct ledger_work_run *next,
			  struct possible_end ret[static N_POSSIBLE_ENDS])
{
	const struct ledger_account *a = &run->account;
	int64_t timeout = run->timeout ? run->timeout->timeout_ms : LEDGER_ABSENT;
	int64_t max_run = work->terms->max_run_ms;
	int64_t killed = ledger_ms(work->sandbox->killed.mark.time_ns);
	ret[0] = (struct possible_end) { LEDGER_END_NEXT_START,
					 next ? next_start(a, next) : LEDGER_ABSENT, true };
	ret[1] = (struct possible_end) { LEDGER_END_TIMEOUT,
					 timeout > a->started_ms ? timeout : LEDGER_ABSENT, false };
	ret[2] = (struct possible_end) { LEDGER_END_MAX_RUN,
					 max_run > 0 ? ledger_add(a->started_ms, max_run)
						     : LEDGER_ABSENT,
					 false };
	ret[3] = (struct possible_end) {
		LEDGER_END_KILLED,
		killed_later(work, run) ? base_max_i64(a->started_ms, killed) : LEDGER_ABSENT, true
	};
}

static void close_missing(const struct ledger_work *work, struct ledger_work_run *run,
			  const struct ledger_work_run *next)
{
	struct ledger_account *a = &run->account;
	struct possible_end ends[N_POSSIBLE_ENDS];
	possible_ends(work, run, next, ends);
	const struct possible_end *first = NULL;
	int64_t reached_ms = work->now_ms;
	for (size_t i = 0; i < N_POSSIBLE_ENDS; i++) {
		if (ends[i].at_ms == LEDGER_ABSENT)
			continue;
		if (!first || ends[i].at_ms < first->at_ms)
			first = &ends[i];
		if (ends[i].is_event)
			reached_ms = base_max_i64(reached_ms, ends[i].at_ms);
	}
	if (first && first->at_ms <= reached_ms) {
		a->ended_ms = first->at_ms;
		a->end_kind = first->kind;
	} else if (first) {
		a->due_ms = first->at_ms;
	}
}

/* Dimensions, size, money --------------------------------------------------------------------- */

static int64_t first_key(int64_t a, int64_t b, int64_t c)
{
	return a ? a : b ? b : c;
}

static struct ledger_dims dims_of(const struct ledger_work *work, const struct ledger_work_run *run)
{
	static const struct ledger_dims none;
	const struct ledger_sandbox *s = work->sandbox;
	const struct ledger_dims *end = run->end ? &run->end->dims : &none;
	const struct ledger_dims *start = run->start ? &run->start->dims : &none;
	return (struct ledger_dims) {
		first_key(end->source_key, start->source_key, s->last_source_key),
		first_key(end->template_key, start->template_key, s->template_key),
		first_key(end->team_key, start->team_key, s->team_key),
	};
}

/* What was not measured is as configured for the template. */
static void fill_size(const struct ledger_terms *terms, int64_t template_key, int64_t *vcpu,
		      int64_t *memory_mb)
{
	int64_t known_vcpu, known_memory_mb;
	if ((*vcpu != LEDGER_ABSENT && *memory_mb != LEDGER_ABSENT) || !terms->size ||
	    !terms->size(terms->ctx, template_key, &known_vcpu, &known_memory_mb))
		return;
	if (*vcpu == LEDGER_ABSENT)
		*vcpu = known_vcpu;
	if (*memory_mb == LEDGER_ABSENT)
		*memory_mb = known_memory_mb;
}

static struct pricing_rates rates_of(const struct ledger_terms *terms, int64_t source_key,
				     int64_t unix_ms)
{
	if (terms->priced && !terms->priced(terms->ctx, source_key))
		return (struct pricing_rates) { LEDGER_ABSENT, LEDGER_ABSENT };
	return pricing_at(terms->pricing, unix_ms);
}

static int64_t amount(struct pricing_rates rates, int64_t ms, int64_t vcpu, int64_t memory_mb)
{
	int64_t nanousd;
	if (rates.vcpu_second_femto == LEDGER_ABSENT || vcpu == LEDGER_ABSENT ||
	    memory_mb == LEDGER_ABSENT || ms == LEDGER_ABSENT)
		return LEDGER_ABSENT;
	return pricing_cost(rates, ms, vcpu, memory_mb, &nanousd) == 0 ? nanousd : LEDGER_ABSENT;
}

static void finish(const struct ledger_work *work, struct ledger_work_run *run,
		   const struct ledger_work_run *next)
{
	struct ledger_account *a = &run->account;
	a->dims = dims_of(work, run);
	if (a->end_kind == LEDGER_END_KILLED)
		a->kill_reason_key = run->end->kill_reason_key;
	if (a->ended_ms == LEDGER_ABSENT) {
		close_missing(work, run, next);
		if (a->end_kind == LEDGER_END_KILLED)
			a->kill_reason_key = work->sandbox->killed.kill_reason_key;
	}
	if (has_report(run)) {
		a->vcpu_count = run->end->report.vcpu_count;
		a->memory_mb = run->end->report.memory_mb;
	}
	fill_size(work->terms, a->dims.template_key, &a->vcpu_count, &a->memory_mb);
	a->rates = rates_of(work->terms, a->dims.source_key, a->started_ms);
	if (a->ended_ms == LEDGER_ABSENT)
		return;
	a->runtime_ms = a->ended_ms - a->started_ms;
	a->cost_nanousd = amount(a->rates, a->runtime_ms, a->vcpu_count, a->memory_mb);
	if (a->cost_nanousd != LEDGER_ABSENT)
		a->cost_source = has_report(run) ? LEDGER_COST_REPORTED : LEDGER_COST_ESTIMATED;
}

/* A named run of which only the end is known, and no report: it was there, and nobody knows for how
 * long. It shows as of unknown cost, and covers no instant. */
void ledger_account_ended_only(const struct ledger_work *work, const struct ledger_fact *end,
			       struct ledger_account *ret)
{
	struct ledger_work_run run = { .end = end };
	ledger_account_begin(&run);
	*ret = run.account;
	ret->exists = true;
	ret->ended_ms = ledger_ms(end->mark.time_ns);
	ret->end_kind = end_kind(end);
	ret->dims = dims_of(work, &run);
	if (ret->end_kind == LEDGER_END_KILLED)
		ret->kill_reason_key = end->kill_reason_key;
	fill_size(work->terms, ret->dims.template_key, &ret->vcpu_count, &ret->memory_mb);
}

void ledger_account_finish(struct ledger_work *work)
{
	for (size_t i = 0; i < work->n_runs; i++) {
		bool last = i + 1 == work->n_runs;
		finish(work, &work->runs[i], last ? NULL : &work->runs[i + 1]);
	}
}

int64_t ledger_runtime_until(const struct ledger_account *account, int64_t unix_ms)
{
	if (!account->exists || account->started_ms == LEDGER_ABSENT)
		return LEDGER_ABSENT;
	if (account->ended_ms != LEDGER_ABSENT)
		unix_ms = base_min_i64(unix_ms, account->ended_ms);
	return unix_ms <= account->started_ms ? 0 : unix_ms - account->started_ms;
}

int64_t ledger_cost_until(const struct ledger_account *account, int64_t unix_ms)
{
	bool open = account->ended_ms == LEDGER_ABSENT;
	if (!account->exists || (!open && account->cost_nanousd == LEDGER_ABSENT))
		return LEDGER_ABSENT;
	return amount(account->rates, ledger_runtime_until(account, unix_ms), account->vcpu_count,
		      account->memory_mb);
}

static int64_t execution_start(const struct event *event)
{
	const struct event_execution *x = &event->execution;
	int64_t time_ms = ledger_ms(event->time_unix_ns);
	if (x->started_unix_ms != EVENT_ABSENT)
		return x->started_unix_ms;
	return x->duration_ms > 0 ? time_ms - x->duration_ms : time_ms;
}

void ledger_execution_cost(const struct event *event, const struct ledger_dims *dims,
			   const struct ledger_terms *terms, int64_t *ret_nanousd,
			   enum ledger_cost_source *ret_source)
{
	const struct event_execution *x = &event->execution;
	struct pricing_rates rates = rates_of(terms, dims->source_key, execution_start(event));
	*ret_nanousd = LEDGER_ABSENT;
	*ret_source = LEDGER_COST_UNKNOWN;
	if (rates.vcpu_second_femto == LEDGER_ABSENT)
		return;
	if (x->cost_nanousd != EVENT_ABSENT) {
		*ret_nanousd = x->cost_nanousd;
		*ret_source = LEDGER_COST_REPORTED;
		return;
	}
	int64_t vcpu = x->vcpu_count, memory_mb = x->memory_mb;
	fill_size(terms, dims->template_key, &vcpu, &memory_mb);
	*ret_nanousd = amount(rates, x->duration_ms, vcpu, memory_mb);
	if (*ret_nanousd != LEDGER_ABSENT)
		*ret_source = LEDGER_COST_COMPUTED;
}

/* Totals -------------------------------------------------------------------------------------- */

/* The latest word on the state, by event time. At one instant a start outdoes an end, which is that
 * of the run before; other ties go by event id. */
struct latest {
	struct ledger_mark mark;
	enum ledger_state state;
	bool is_start;
};

static void consider(const struct ledger_work *work, struct latest *latest,
		     const struct ledger_fact *fact, enum ledger_state state)
{
	bool is_start = event_kind_starts_run(fact->kind), later;
	if (latest->mark.seq == 0 || fact->mark.time_ns != latest->mark.time_ns)
		later = latest->mark.seq == 0 || fact->mark.time_ns > latest->mark.time_ns;
	else if (is_start != latest->is_start)
		later = is_start;
	else
		later = ledger_mark_compare(work->sandbox, fact->mark, latest->mark) > 0;
	if (later)
		*latest = (struct latest) { fact->mark, state, is_start };
}

/* Starts: a run that is open is running; one that only the clock has ended is unknown. One that
 * the next start ended says nothing: the next run does. */
static void consider_starts(const struct ledger_work *work, struct latest *latest)
{
	for (size_t i = 0; i < work->n_runs; i++) {
		const struct ledger_work_run *run = &work->runs[i];
		if (run->account.ended_ms == LEDGER_ABSENT)
			consider(work, latest, run->start, LEDGER_RUNNING);
		else if (!run->end && run->account.end_kind != LEDGER_END_NEXT_START)
			consider(work, latest, run->start, LEDGER_UNKNOWN);
	}
}

static void consider_ends(const struct ledger_work *work, struct latest *latest)
{
	const struct ledger_sandbox *s = work->sandbox;
	for (size_t i = 0; i < s->n_runs; i++) {
		if (s->runs[i].named && s->runs[i].end.mark.seq)
			consider(work, latest, &s->runs[i].end, LEDGER_PAUSED);
	}
	for (size_t i = 0; i < work->n_loose; i++) {
		if (event_kind_ends_run(work->loose[i]->kind))
			consider(work, latest, work->loose[i], LEDGER_PAUSED);
	}
}

/* Loose starts that no run covers: something runs, but nobody says what, or until when. */
static void consider_strays(const struct ledger_work *work, struct latest *latest)
{
	size_t n = 0; /* runs begun by then */
	for (size_t i = 0; i < work->n_loose; i++) {
		const struct ledger_fact *fact = work->loose[i];
		if (!event_kind_starts_run(fact->kind))
			continue;
		while (n < work->n_runs && work->runs[n].begin_ns <= fact->mark.time_ns)
			n++;
		const struct ledger_account *a = n ? &work->runs[n - 1].account : NULL;
		if (!a ||
		    (a->ended_ms != LEDGER_ABSENT && a->ended_ms <= ledger_ms(fact->mark.time_ns) &&
		     work->runs[n - 1].begin_ns < fact->mark.time_ns))
			consider(work, latest, fact, LEDGER_UNKNOWN);
	}
}

static void set_state(const struct ledger_work *work, struct ledger_totals *ret)
{
	const struct ledger_fact *killed = &work->sandbox->killed;
	if (killed->mark.seq) {
		ret->state = LEDGER_KILLED;
		ret->ended_ms = ledger_ms(killed->mark.time_ns);
		ret->kill_reason_key = killed->kill_reason_key;
		return;
	}
	struct latest latest = { .state = LEDGER_UNKNOWN };
	consider_starts(work, &latest);
	consider_ends(work, &latest);
	if (work->sandbox->names_run)
		consider_strays(work, &latest);
	ret->state = latest.state;
	if (ret->state != LEDGER_RUNNING)
		return;
	const struct ledger_work_run *last = &work->runs[work->n_runs - 1]; /* the open one */
	if (last->timeout && last->timeout->timeout_ms > last->account.started_ms)
		ret->expires_ms = last->timeout->timeout_ms;
}

static void add_run(const struct ledger_account *a, struct ledger_totals *ret)
{
	ret->runs++;
	if (ret->created_ms == LEDGER_ABSENT || a->started_ms < ret->created_ms)
		ret->created_ms = a->started_ms;
	if (a->ended_ms == LEDGER_ABSENT)
		return;
	ret->runtime_ms = ledger_add(ret->runtime_ms, a->runtime_ms);
	if (a->cost_nanousd == LEDGER_ABSENT)
		ret->unknown_cost++;
	else
		ret->cost_nanousd = ledger_add(ret->cost_nanousd, a->cost_nanousd);
}

/* Where a run stands among the others: its start, else its end. */
int64_t ledger_account_shown_ms(const struct ledger_account *a)
{
	return a->started_ms != LEDGER_ABSENT ? a->started_ms : a->ended_ms;
}

/* The run that began last; one of which only the end is known counts as of its end. At
 * one instant by run id. */
static const struct ledger_account *latest_run(const struct ledger_work *work)
{
	const struct ledger_sandbox *s = work->sandbox;
	const struct ledger_work_run *last = work->n_runs ? &work->runs[work->n_runs - 1] : NULL;
	const struct ledger_account *latest = last ? &last->account : NULL;
	int64_t begin_ns = last ? last->begin_ns : INT64_MIN;
	const char *id = last && s->names_run ? s->runs[last->index].id : "";
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct ledger_run *run = &s->runs[i];
		bool ended_only = run->account.exists && run->account.started_ms == LEDGER_ABSENT;
		int64_t end_ns = run->end.mark.time_ns;
		if (!ended_only || end_ns < begin_ns ||
		    (end_ns == begin_ns && latest && strcmp(run->id, id) < 0))
			continue;
		latest = &run->account;
		begin_ns = end_ns;
		id = run->id;
	}
	return latest;
}

void ledger_account_totals(const struct ledger_work *work, struct ledger_totals *ret)
{
	const struct ledger_sandbox *s = work->sandbox;
	*ret = (struct ledger_totals) {
		.created_ms = LEDGER_ABSENT,
		.ended_ms = LEDGER_ABSENT,
		.expires_ms = LEDGER_ABSENT,
		.dims = { s->last_source_key, s->template_key, s->team_key },
	};
	for (size_t i = 0; i < work->n_runs; i++)
		add_run(&work->runs[i].account, ret);
	ret->runs += (int64_t)work->n_ended_only;
	ret->unknown_cost += (int64_t)work->n_ended_only;
	const struct ledger_account *latest = latest_run(work);
	if (latest)
		ret->dims = latest->dims;
	set_state(work, ret);
}
