/* One list of fields for both directions: a coder either writes what a field holds, or sets it to
 * what it reads. So the two cannot come apart.
 *
 * Numbers are LEB128, differences zigzag. Arithmetic is modulo 2^64: a difference can always be
 * taken, and damage leads to a wrong number, never to undefined behaviour. What was read is then
 * held against what an event, a price or a clock can bring about: the fold trusts it.
 */
#include "storage_sqlite_facts.h"

#include <errno.h>

struct coder {
	bool reading, failed;
	uint8_t *out;
	const uint8_t *in;
	size_t n, len; /* bytes done; bytes there are, or have room */
	uint64_t flags;
};

/* Flags: the usual ones fit into seven bits. */
enum {
	RUN_NAMED,
	RUN_START,
	RUN_END,
	RUN_REPORT,
	RUN_RESUMED,
	RUN_FORKED,
	RUN_KILLED,
	RUN_TIMEOUT,
	RUN_START_DIMS, /* three: not as shown */
	RUN_END_DIMS = RUN_START_DIMS + 3,
	RUN_REASON = RUN_END_DIMS + 3,
	RUN_REPORT_STARTED,
	RUN_REPORT_DURATION,
	RUN_REPORT_VCPU,
	RUN_REPORT_MEMORY,
	RUN_N_FLAGS,
};
enum {
	BOX_NAMES_RUN,
	BOX_TEMPLATE,
	BOX_TEAM,
	BOX_METADATA,
	BOX_STARTUP,
	BOX_KILLED,
	BOX_LAST_SOURCE, /* not as shown; so are those that follow */
	BOX_TEMPLATE_MARK, /* not the latest event's */
	BOX_TEAM_MARK,
	BOX_METADATA_MARK,
	BOX_STARTUP_MARK,
	BOX_KILLED_MARK,
	BOX_TEMPLATE_KEY,
	BOX_TEAM_KEY,
	BOX_KILLED_SOURCE,
	BOX_KILLED_REASON,
	BOX_N_FLAGS,
};

/* Numbers ------------------------------------------------------------------ */

static uint64_t read_number(struct coder *c)
{
	uint64_t value = 0;
	for (unsigned int shift = 0; shift < 64; shift += 7) {
		if (c->n == c->len)
			break;
		uint8_t byte = c->in[c->n++];
		if (shift == 63 && byte > 1)
			break;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
	}
	c->failed = true;
	return 0;
}

static void write_number(struct coder *c, uint64_t value)
{
	assert(c->len - c->n >= 10);
	for (; value >= 0x80; value >>= 7)
		c->out[c->n++] = (uint8_t)(value | 0x80);
	c->out[c->n++] = (uint8_t)value;
}

static uint64_t zigzag(uint64_t difference)
{
	return difference << 1 ^ (difference >> 63 ? UINT64_MAX : 0);
}

static uint64_t unzigzag(uint64_t value)
{
	return value >> 1 ^ (value & 1 ? UINT64_MAX : 0);
}

static void number(struct coder *c, int64_t *value, int64_t base)
{
	if (c->reading)
		*value = (int64_t)((uint64_t)base + unzigzag(read_number(c)));
	else
		write_number(c, zigzag((uint64_t)*value - (uint64_t)base));
}

/* One that may be LEDGER_ABSENT: then 0, and the others move up by one. No two times that an event
 * can have are 2^63 ms apart. */
static void optional(struct coder *c, int64_t *value, int64_t base)
{
	if (c->reading) {
		uint64_t read = read_number(c);
		*value = read ? (int64_t)((uint64_t)base + unzigzag(read - 1)) : LEDGER_ABSENT;
	} else if (*value == LEDGER_ABSENT) {
		write_number(c, 0);
	} else {
		uint64_t difference = zigzag((uint64_t)*value - (uint64_t)base);
		assert(difference < UINT64_MAX);
		write_number(c, difference + 1);
	}
}

/* Flags --------------------------------------------------------------------- */

static bool has(const struct coder *c, int flag)
{
	return c->flags >> flag & 1;
}

static void set(struct coder *c, int flag, bool value)
{
	c->flags |= (uint64_t)value << flag;
}

static void flags(struct coder *c, int n)
{
	if (!c->reading)
		write_number(c, c->flags);
	else
		c->flags = read_number(c);
	if (c->flags >> n)
		c->failed = true;
}

/* The same as shown, unless the flag says otherwise. */
static void unless_same(struct coder *c, int flag, int64_t *value, int64_t shown)
{
	if (has(c, flag))
		optional(c, value, 0);
	else if (c->reading)
		*value = shown;
}

static void unless_same_dims(struct coder *c, int flag, struct ledger_dims *dims,
			     const struct ledger_dims *shown)
{
	unless_same(c, flag, &dims->source_key, shown->source_key);
	unless_same(c, flag + 1, &dims->template_key, shown->template_key);
	unless_same(c, flag + 2, &dims->team_key, shown->team_key);
}

static void set_dims(struct coder *c, int flag, const struct ledger_dims *dims,
		     const struct ledger_dims *shown)
{
	set(c, flag, dims->source_key != shown->source_key);
	set(c, flag + 1, dims->template_key != shown->template_key);
	set(c, flag + 2, dims->team_key != shown->team_key);
}

static void mark(struct coder *c, struct ledger_mark *value, struct ledger_mark base)
{
	number(c, &value->time_ns, base.time_ns);
	number(c, &value->seq, base.seq);
}

static struct coder writer(uint8_t *out)
{
	return (struct coder) { .out = out, .len = STORAGE_FACTS_MAX };
}

static struct coder reader(struct span in)
{
	return (struct coder) { .reading = true, .in = (const uint8_t *)in.s, .len = in.len };
}

static int result(const struct coder *c)
{
	return c->failed || c->n != c->len ? -EUCLEAN : 0;
}

static int64_t ns_of(int64_t ms)
{
	return (int64_t)((uint64_t)ms * 1000000);
}

/* What can be ------------------------------------------------------------------ */

/* Events end with the year 2261 (event.h), runs at most a century later ([store] max_run). */
#define TIME_MAX_MS (INT64_C(1) << 44)

static bool is_absent_or(int64_t value, int64_t max)
{
	return value == LEDGER_ABSENT || (value >= 0 && value <= max);
}

static bool is_mark_possible(struct ledger_mark mark)
{
	return mark.time_ns >= 0 && mark.seq > 0;
}

static bool are_dims_possible(const struct ledger_dims *dims)
{
	return dims->source_key >= 0 && dims->template_key >= 0 && dims->team_key >= 0;
}

static bool is_report_possible(const struct event_report *report)
{
	return !report->present ||
	       (report->started_unix_ms >= 0 && report->started_unix_ms <= TIME_MAX_MS &&
		report->duration_ms >= 0 && report->duration_ms <= TIME_MAX_MS &&
		is_absent_or(report->vcpu_count, INT64_MAX) &&
		is_absent_or(report->memory_mb, INT64_MAX));
}

static bool is_fact_possible(const struct ledger_fact *fact)
{
	return is_mark_possible(fact->mark) && are_dims_possible(&fact->dims) &&
	       fact->kill_reason_key >= 0 && is_absent_or(fact->timeout_ms, TIME_MAX_MS) &&
	       is_report_possible(&fact->report);
}

/* Money and time of a row go into sums hour by hour: from beyond the end of time, for ever. */
static bool is_account_possible(const struct ledger_account *a)
{
	bool starts = a->started_ms != LEDGER_ABSENT, ends = a->ended_ms != LEDGER_ABSENT;
	return (starts || ends) && is_absent_or(a->started_ms, TIME_MAX_MS) &&
	       is_absent_or(a->ended_ms, TIME_MAX_MS) &&
	       (!starts || !ends || a->ended_ms >= a->started_ms) &&
	       is_absent_or(a->due_ms, INT64_MAX) && is_absent_or(a->cost_nanousd, INT64_MAX) &&
	       is_absent_or(a->vcpu_count, INT64_MAX) && is_absent_or(a->memory_mb, INT64_MAX) &&
	       are_dims_possible(&a->dims) && a->kill_reason_key >= 0;
}

/* Runs ----------------------------------------------------------------------- */

/* What the row of a run shows; nothing of one that does not exist. */
struct shown_run {
	int64_t start_ns, end_ns, started_ms, duration_ms, kill_reason_key, vcpu_count, memory_mb;
	struct ledger_dims dims;
};

static struct shown_run shown_by(const struct ledger_account *a)
{
	if (!a->exists)
		return (struct shown_run) { 0 };
	bool starts = a->started_ms != LEDGER_ABSENT, ends = a->ended_ms != LEDGER_ABSENT;
	struct shown_run shown = {
		.kill_reason_key = a->kill_reason_key,
		.vcpu_count = a->vcpu_count,
		.memory_mb = a->memory_mb,
		.dims = a->dims,
	};
	shown.started_ms = starts ? a->started_ms : ends ? a->ended_ms : 0;
	shown.start_ns = ns_of(shown.started_ms);
	shown.end_ns = ends ? ns_of(a->ended_ms) : shown.start_ns;
	if (ends)
		shown.duration_ms = (int64_t)((uint64_t)a->ended_ms - (uint64_t)shown.started_ms);
	return shown;
}

static void set_run_flags(struct coder *c, const struct ledger_run *run,
			  const struct shown_run *shown)
{
	const struct event_report *report = &run->end.report;
	bool ends = run->end.mark.seq, starts = run->start.mark.seq;
	bool reports = ends && report->present;
	set(c, RUN_NAMED, run->named);
	set(c, RUN_START, starts);
	set(c, RUN_END, ends);
	set(c, RUN_REPORT, reports);
	set(c, RUN_RESUMED, starts && run->start.kind == EVENT_RESUMED);
	set(c, RUN_FORKED, starts && run->start.kind == EVENT_FORKED);
	set(c, RUN_KILLED, ends && run->end.kind == EVENT_KILLED);
	set(c, RUN_TIMEOUT, run->timeout.mark.seq);
	if (starts)
		set_dims(c, RUN_START_DIMS, &run->start.dims, &shown->dims);
	if (ends)
		set_dims(c, RUN_END_DIMS, &run->end.dims, &shown->dims);
	set(c, RUN_REASON, ends && run->end.kill_reason_key != shown->kill_reason_key);
	if (!reports)
		return;
	set(c, RUN_REPORT_STARTED, report->started_unix_ms != shown->started_ms);
	set(c, RUN_REPORT_DURATION, report->duration_ms != shown->duration_ms);
	set(c, RUN_REPORT_VCPU, report->vcpu_count != shown->vcpu_count);
	set(c, RUN_REPORT_MEMORY, report->memory_mb != shown->memory_mb);
}

static bool is_run_possible(const struct coder *c, const struct ledger_run *run)
{
	return (!has(c, RUN_START) || is_fact_possible(&run->start)) &&
	       (!has(c, RUN_END) || is_fact_possible(&run->end)) &&
	       (!has(c, RUN_TIMEOUT) || is_fact_possible(&run->timeout));
}

static enum event_kind start_kind(const struct coder *c)
{
	if (has(c, RUN_RESUMED))
		return EVENT_RESUMED;
	return has(c, RUN_FORKED) ? EVENT_FORKED : EVENT_CREATED;
}

static void code_end(struct coder *c, struct ledger_fact *end, const struct shown_run *shown,
		     int64_t near_seq)
{
	struct event_report *report = &end->report;
	end->kind = has(c, RUN_KILLED) ? EVENT_KILLED : EVENT_PAUSED;
	mark(c, &end->mark, (struct ledger_mark) { shown->end_ns, near_seq });
	unless_same_dims(c, RUN_END_DIMS, &end->dims, &shown->dims);
	unless_same(c, RUN_REASON, &end->kill_reason_key, shown->kill_reason_key);
	report->present = has(c, RUN_REPORT);
	if (!report->present)
		return;
	unless_same(c, RUN_REPORT_STARTED, &report->started_unix_ms, shown->started_ms);
	unless_same(c, RUN_REPORT_DURATION, &report->duration_ms, shown->duration_ms);
	unless_same(c, RUN_REPORT_VCPU, &report->vcpu_count, shown->vcpu_count);
	unless_same(c, RUN_REPORT_MEMORY, &report->memory_mb, shown->memory_mb);
}

static void code_run(struct coder *c, struct ledger_run *run, const struct shown_run *shown)
{
	flags(c, RUN_N_FLAGS);
	run->named = has(c, RUN_NAMED);
	if (has(c, RUN_START)) {
		run->start.kind = start_kind(c);
		mark(c, &run->start.mark, (struct ledger_mark) { shown->start_ns, 0 });
		unless_same_dims(c, RUN_START_DIMS, &run->start.dims, &shown->dims);
	}
	int64_t near_seq = run->start.mark.seq;
	if (has(c, RUN_END))
		code_end(c, &run->end, shown, near_seq);
	if (has(c, RUN_TIMEOUT)) {
		mark(c, &run->timeout.mark, (struct ledger_mark) { shown->start_ns, near_seq });
		optional(c, &run->timeout.timeout_ms, shown->started_ms);
	}
}

size_t storage_sqlite_facts_put_run(const struct ledger_run *run,
				    const struct ledger_account *shown,
				    uint8_t ret[static STORAGE_FACTS_MAX])
{
	assert(!run->start.mark.seq || event_kind_starts_run(run->start.kind));
	assert(!run->end.mark.seq || event_kind_ends_run(run->end.kind));
	struct shown_run s = shown_by(shown);
	struct coder c = writer(ret);
	struct ledger_run copy = *run;
	set_run_flags(&c, run, &s);
	code_run(&c, &copy, &s);
	return c.n;
}

int storage_sqlite_facts_get_run(struct span facts, const struct ledger_account *shown,
				 struct ledger_run *ret)
{
	const struct ledger_fact none = { .timeout_ms = LEDGER_ABSENT };
	struct shown_run s = shown_by(shown);
	struct coder c = reader(facts);
	ret->start = ret->end = ret->timeout = none;
	ret->timeout.kind = EVENT_UPDATED;
	code_run(&c, ret, &s);
	if ((shown->exists && !is_account_possible(shown)) || !is_run_possible(&c, ret))
		c.failed = true;
	return result(&c);
}

/* Sandboxes ------------------------------------------------------------------- */

static bool is_mark(struct ledger_mark a, struct ledger_mark b)
{
	return a.time_ns == b.time_ns && a.seq == b.seq;
}

static void set_latest(struct coder *c, int flag, int mark_flag, struct ledger_mark value,
		       struct ledger_mark last)
{
	set(c, flag, value.seq);
	set(c, mark_flag, value.seq && !is_mark(value, last));
}

static void set_box_flags(struct coder *c, const struct ledger_sandbox *x,
			  const struct storage_facts_shown *shown)
{
	set(c, BOX_NAMES_RUN, x->names_run);
	set(c, BOX_LAST_SOURCE, x->last_source_key != shown->dims.source_key);
	set_latest(c, BOX_TEMPLATE, BOX_TEMPLATE_MARK, x->template_mark, x->last);
	set_latest(c, BOX_TEAM, BOX_TEAM_MARK, x->team_mark, x->last);
	set_latest(c, BOX_METADATA, BOX_METADATA_MARK, x->metadata_mark, x->last);
	set_latest(c, BOX_STARTUP, BOX_STARTUP_MARK, x->startup_mark, x->last);
	set_latest(c, BOX_KILLED, BOX_KILLED_MARK, x->killed.mark, x->last);
	set(c, BOX_TEMPLATE_KEY,
	    x->template_mark.seq && x->template_key != shown->dims.template_key);
	set(c, BOX_TEAM_KEY, x->team_mark.seq && x->team_key != shown->dims.team_key);
	set(c, BOX_KILLED_SOURCE,
	    x->killed.mark.seq && x->killed.dims.source_key != x->last_source_key);
	set(c, BOX_KILLED_REASON,
	    x->killed.mark.seq && x->killed.kill_reason_key != shown->kill_reason_key);
}

/* A mark that is the latest event's unless the flag says otherwise. */
static void code_latest(struct coder *c, int flag, int mark_flag, struct ledger_mark *value,
			struct ledger_mark last)
{
	if (has(c, flag) && has(c, mark_flag))
		mark(c, value, last);
	else if (c->reading && has(c, flag))
		*value = last;
}

static void code_sandbox(struct coder *c, struct ledger_sandbox *x,
			 const struct storage_facts_shown *shown)
{
	flags(c, BOX_N_FLAGS);
	x->names_run = has(c, BOX_NAMES_RUN);
	optional(c, &x->first_event_ms, shown->time_ms);
	mark(c, &x->last, (struct ledger_mark) { ns_of(shown->last_ms), 0 });
	unless_same(c, BOX_LAST_SOURCE, &x->last_source_key, shown->dims.source_key);
	code_latest(c, BOX_TEMPLATE, BOX_TEMPLATE_MARK, &x->template_mark, x->last);
	code_latest(c, BOX_TEAM, BOX_TEAM_MARK, &x->team_mark, x->last);
	code_latest(c, BOX_METADATA, BOX_METADATA_MARK, &x->metadata_mark, x->last);
	code_latest(c, BOX_STARTUP, BOX_STARTUP_MARK, &x->startup_mark, x->last);
	code_latest(c, BOX_KILLED, BOX_KILLED_MARK, &x->killed.mark, x->last);
	if (has(c, BOX_TEMPLATE))
		unless_same(c, BOX_TEMPLATE_KEY, &x->template_key, shown->dims.template_key);
	if (has(c, BOX_TEAM))
		unless_same(c, BOX_TEAM_KEY, &x->team_key, shown->dims.team_key);
	if (!has(c, BOX_KILLED))
		return;
	unless_same(c, BOX_KILLED_SOURCE, &x->killed.dims.source_key, x->last_source_key);
	unless_same(c, BOX_KILLED_REASON, &x->killed.kill_reason_key, shown->kill_reason_key);
}

static bool is_sandbox_possible(const struct coder *c, const struct ledger_sandbox *x,
				const struct storage_facts_shown *shown)
{
	return shown->time_ms >= 0 && shown->time_ms <= TIME_MAX_MS && shown->last_ms >= 0 &&
	       shown->last_ms <= TIME_MAX_MS && is_absent_or(x->first_event_ms, TIME_MAX_MS) &&
	       x->last.time_ns >= 0 && x->last.seq >= 0 && x->last_source_key >= 0 &&
	       are_dims_possible(&shown->dims) &&
	       (!has(c, BOX_TEMPLATE) ||
		(is_mark_possible(x->template_mark) && x->template_key >= 0)) &&
	       (!has(c, BOX_TEAM) || (is_mark_possible(x->team_mark) && x->team_key >= 0)) &&
	       (!has(c, BOX_METADATA) || is_mark_possible(x->metadata_mark)) &&
	       (!has(c, BOX_STARTUP) || is_mark_possible(x->startup_mark)) &&
	       (!has(c, BOX_KILLED) || is_fact_possible(&x->killed));
}

size_t storage_sqlite_facts_put_sandbox(const struct ledger_sandbox *sandbox,
					const struct storage_facts_shown *shown,
					uint8_t ret[static STORAGE_FACTS_MAX])
{
	struct coder c = writer(ret);
	struct ledger_sandbox copy = *sandbox; /* what it owns is not touched */
	set_box_flags(&c, sandbox, shown);
	code_sandbox(&c, &copy, shown);
	return c.n;
}

int storage_sqlite_facts_get_sandbox(struct span facts, const struct storage_facts_shown *shown,
				     struct ledger_sandbox *ret)
{
	struct coder c = reader(facts);
	ret->killed.kind = EVENT_KILLED;
	ret->killed.timeout_ms = LEDGER_ABSENT;
	code_sandbox(&c, ret, shown);
	if (!is_sandbox_possible(&c, ret, shown))
		c.failed = true;
	return result(&c);
}
