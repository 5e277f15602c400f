/* Phases of one round: events by age, events by size, sandboxes by age, space back to the file
 * system. A round begins when a tick finds something to do and ends when nothing is left. */
#include "retention.h"

#include "clock.h"
#include "config.h"
#include "log.h"
#include "storage.h"

#include <errno.h>
#include <time.h>

#define LEAP_S INT64_C(86400)
#define SLICE_EVENTS 32 /* some 2 ms */
#define VACUUM_PAGES 64 /* in a slice */
#define YOUNG_S                                                                                    \
	60 /* by size nothing goes that came just now: its repeats, and what is late, still come   \
	    */
#define KEEP_FREE_BYTES                                                                            \
	(INT64_C(16) << 20) /* free space that is kept for new rows, not given back */

enum phase {
	RETENTION_IDLE,
	RETENTION_EVENTS,
	RETENTION_SIZE,
	RETENTION_SANDBOXES,
	RETENTION_SPACE
};

struct retention {
	struct storage *s;
	int64_t retention_s, ledger_retention_s, max_size;
	enum phase phase;
	int64_t seen_newest_s, seen_boot_s; /* where event time was, and when we saw it */
	int64_t settled_s; /* no event from before waits for the fold, nor comes any more */
	int64_t next_s, next_seq; /* a horizon, and where the log ended then: settled when that is
				     folded */
	int64_t awaited_s; /* of the horizons, by who asked for pruning */
	int64_t pruned_before_s; /* no event is left from before */
	bool said_too_large;
	struct retention_progress progress;
};

static int64_t boot_seconds(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec;
}

int retention_new(struct storage *s, struct retention **ret)
{
	struct storage_position at;
	int status = storage_position(s, &at);
	if (status < 0)
		return status;
	struct retention *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->s = s;
	r->seen_newest_s = at.retention_newest_s;
	r->seen_boot_s = boot_seconds();
	r->next_s = at.horizon_unix_s;
	r->next_seq = at.stored_seq;
	r->progress.waits = at.prune_waits;
	*ret = r;
	return 0;
}

void retention_free(struct retention *r)
{
	free(r);
}

void retention_set_config(struct retention *r, const struct config *config)
{
	r->retention_s = config->store.retention_ms / 1000;
	r->ledger_retention_s = config->store.ledger_retention_ms / 1000;
	r->max_size = config->store.max_size;
}

bool retention_has_work(const struct retention *r)
{
	return r->phase != RETENTION_IDLE;
}

void retention_progress(const struct retention *r, struct retention_progress *ret)
{
	*ret = r->progress;
}

static int set_retention(struct retention *r, int64_t newest_s, bool waits, int64_t horizon_s)
{
	int status = storage_begin(r->s, true);
	if (status < 0)
		return status;
	status = storage_set_retention(r->s, newest_s, waits);
	if (status == 0)
		status = storage_set_horizon(r->s, horizon_s);
	if (status == 0)
		status = storage_commit(r->s);
	if (status < 0)
		storage_rollback(r->s);
	else
		r->progress.waits = waits;
	return status;
}

static int64_t horizon_for(const struct retention *r, int64_t newest_s)
{
	return r->retention_s > 0 && newest_s > r->retention_s ? newest_s - r->retention_s : 0;
}

/* Event time moved on further than time did. The first event of all is no leap. */
static bool has_leapt(const struct retention *r, int64_t newest_s)
{
	int64_t passed_s = boot_seconds() - r->seen_boot_s;
	return r->seen_newest_s > 0 && newest_s - r->seen_newest_s > passed_s + LEAP_S;
}

static int follow(struct retention *r, const struct storage_position *at)
{
	bool leapt = !r->progress.waits && has_leapt(r, at->newest_unix_s);
	if (leapt) {
		log_line(LOG_LEVEL_WARNING,
			 "event time leapt by more than a day: retention waits; if the clocks are "
			 "right, say"
			 " e2b-hookctl prune",
			 LOG_NUM("from_s", r->seen_newest_s), LOG_NUM("to_s", at->newest_unix_s));
		return set_retention(r, r->seen_newest_s, true, 0);
	}
	if (r->progress.waits || at->newest_unix_s <= r->seen_newest_s)
		return 0;
	int status = set_retention(r, at->newest_unix_s, false, horizon_for(r, at->newest_unix_s));
	if (status == 0) {
		r->seen_newest_s = at->newest_unix_s;
		r->seen_boot_s = boot_seconds();
	}
	return status;
}

/* What is stored once a horizon is there is not older than it; what was there before is folded some
 * time. */
static void settle(struct retention *r, const struct storage_position *at)
{
	if (at->folded_seq < r->next_seq)
		return;
	r->settled_s = at->folded_seq == at->stored_seq ? at->horizon_unix_s : r->next_s;
	r->next_s = at->horizon_unix_s;
	r->next_seq = at->stored_seq;
}

int retention_tick(struct retention *r)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	if (status == 0 && at.newest_unix_s > 0)
		status = follow(r, &at);
	if (status == 0)
		status = storage_position(r->s, &at);
	if (status == 0)
		settle(r, &at);
	if (status == 0 && r->phase == RETENTION_IDLE && !r->progress.waits)
		r->phase = RETENTION_EVENTS;
	return status;
}

int retention_confirm(struct retention *r)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	if (status == 0)
		status =
			set_retention(r, at.newest_unix_s, false, horizon_for(r, at.newest_unix_s));
	if (status == 0)
		status = storage_position(r->s, &at);
	if (status < 0)
		return status;
	r->awaited_s = at.horizon_unix_s;
	r->seen_newest_s = at.newest_unix_s;
	r->seen_boot_s = boot_seconds();
	r->phase = RETENTION_EVENTS;
	return 0;
}

/* Deletes some events older than before_s; those of the second they end in are stale from now on.
 */
static int prune_events(struct retention *r, int64_t before_s, bool by_size, size_t *ret_n)
{
	int64_t last_s = 0;
	*ret_n = 0;
	int status = storage_begin(r->s, false);
	if (status < 0)
		return status;
	status = storage_prune_events(r->s, before_s, SLICE_EVENTS, ret_n, &last_s);
	if (status == 0 && by_size && *ret_n > 0)
		status = storage_set_horizon(r->s, last_s + 1);
	if (status == 0)
		status = storage_commit(r->s);
	if (status < 0)
		storage_rollback(r->s);
	else
		r->progress.pruned_events += (int64_t)*ret_n;
	return status;
}

static int by_age(struct retention *r)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	size_t n = 0;
	if (status == 0)
		settle(r, &at);
	if (status == 0 && at.horizon_unix_s > 0)
		status = prune_events(r, at.horizon_unix_s, false, &n);
	if (status == 0 && n == 0 && r->settled_s >= r->awaited_s) {
		r->pruned_before_s = r->settled_s;
		r->phase = RETENTION_SIZE;
	}
	return status;
}

/* Without payloads that could go, the ledger alone is larger than the limit. Said once. */
static void judge_size(struct retention *r, const struct storage_space *space, size_t n_pruned)
{
	bool too_large = space->used_bytes > r->max_size && n_pruned == 0;
	if (too_large && !r->said_too_large)
		log_line(
			LOG_LEVEL_WARNING,
			"the store is larger than store.max_size and holds no payload older than a "
			"minute: raise the limit, or lower store.ledger_retention",
			LOG_NUM("used_bytes", space->used_bytes), LOG_NUM("max_size", r->max_size));
	r->said_too_large = too_large || (r->said_too_large && space->used_bytes > r->max_size);
}

static int by_size(struct retention *r)
{
	struct storage_position at;
	struct storage_space space = { 0 };
	size_t n = 0;
	int status = storage_position(r->s, &at);
	if (status == 0 && r->max_size > 0)
		status = storage_space(r->s, &space);
	if (status == 0 && r->max_size > 0 && space.used_bytes > r->max_size)
		status = prune_events(r, at.newest_unix_s - YOUNG_S, true, &n);
	if (status == 0 && r->max_size > 0)
		judge_size(r, &space, n);
	if (status == 0 && n == 0)
		r->phase = RETENTION_SANDBOXES;
	return status;
}

/* None goes before its events, though the horizon has moved since they were looked at: they would
 * make it again, beside what is frozen of it. */
static int sandboxes(struct retention *r)
{
	bool found = false, gone = false;
	int status = 0;
	if (r->ledger_retention_s > 0 && r->seen_newest_s > r->ledger_retention_s) {
		int64_t before_s =
			base_min_i64(r->seen_newest_s - r->ledger_retention_s, r->pruned_before_s);
		status = storage_begin(r->s, false);
		if (status < 0)
			return status;
		status = storage_prune_sandbox(r->s, before_s, &found, &gone);
		if (status == 0)
			status = storage_commit(r->s);
		if (status < 0)
			storage_rollback(r->s);
	}
	r->progress.pruned_sandboxes += gone;
	if (status == 0 && !found)
		r->phase = RETENTION_SPACE;
	return status;
}

/* Free pages are used again; only what is far more than that goes back to the file system. */
static int space(struct retention *r)
{
	struct storage_space now;
	int status = storage_space(r->s, &now);
	bool much = status == 0 && now.free_bytes > KEEP_FREE_BYTES &&
		    now.free_bytes > now.used_bytes / 5;
	if (much)
		return storage_give_back(r->s, VACUUM_PAGES);
	r->phase = RETENTION_IDLE;
	return status;
}

int retention_step(struct retention *r)
{
	switch (r->phase) {
	case RETENTION_IDLE:
		return 0;
	case RETENTION_EVENTS:
		return by_age(r);
	case RETENTION_SIZE:
		return by_size(r);
	case RETENTION_SANDBOXES:
		return sandboxes(r);
	case RETENTION_SPACE:
		return space(r);
	}
	return -EINVAL;
}
