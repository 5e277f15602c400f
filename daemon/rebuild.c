/* A small machine of phases; each step is one transaction. Because it runs on the thread that also
 * runs the live fold, "caught up" cannot change between being seen and the swap.
 *
 * position.rebuild tells the next process what became of it: 0 none wanted, 1 wanted, and one more
 * for each process that began it and did not come to its end, nor took it back in rebuild_stop: it
 * died. */
#include "rebuild.h"

#include "log.h"
#include "projector.h"
#include "storage.h"

#include <errno.h>
#include <string.h>

#define WANTED 1
#define DEATHS_MAX 2
/* Left on the disk, the write-ahead log included, which grows to some 50 MiB. */
#define RESERVE_BYTES (INT64_C(64) << 20)

enum phase { REBUILD_IDLE, REBUILD_CREATE, REBUILD_COPY, REBUILD_FOLD, REBUILD_GIVE_UP };

struct rebuild {
	struct storage *s;
	struct projector *projector;
	enum phase phase;
	int64_t copied_key, seq;
	bool is_counted; /* position.rebuild counts this process */
	bool wants_another; /* asked for, while one was to be given up */
	bool trash; /* there may be replaced tables */
	int error;
};

int rebuild_new(struct storage *s, struct projector *projector, struct rebuild **ret)
{
	struct storage_position at;
	int r = storage_position(s, &at);
	if (r < 0)
		return r;
	struct rebuild *rebuild = calloc(1, sizeof(*rebuild));
	if (!rebuild)
		return -ENOMEM;
	rebuild->s = s;
	rebuild->projector = projector;
	rebuild->trash = true;
	if (at.rebuild >= WANTED + DEATHS_MAX)
		rebuild->phase = REBUILD_GIVE_UP;
	else if (at.rebuild > 0 || at.fold_version < storage_fold_version())
		rebuild->phase = REBUILD_CREATE;
	*ret = rebuild;
	return 0;
}

void rebuild_free(struct rebuild *r)
{
	free(r);
}

int rebuild_request(struct rebuild *r)
{
	if (r->phase == REBUILD_IDLE)
		r->phase = REBUILD_CREATE;
	if (r->phase == REBUILD_GIVE_UP)
		r->wants_another = true;
	else
		r->error = 0;
	return 0;
}

void rebuild_begin_anew(struct rebuild *r)
{
	if (rebuild_is_reading(r))
		r->phase = REBUILD_CREATE;
}

bool rebuild_is_running(const struct rebuild *r)
{
	return r->phase != REBUILD_IDLE;
}

bool rebuild_is_reading(const struct rebuild *r)
{
	return r->phase != REBUILD_IDLE && r->phase != REBUILD_GIVE_UP;
}

bool rebuild_has_work(const struct rebuild *r)
{
	return rebuild_is_running(r) || r->trash;
}

void rebuild_progress(const struct rebuild *r, struct rebuild_progress *ret)
{
	struct storage_position at;
	*ret = (struct rebuild_progress) { .seq = r->seq, .error = r->error };
	if (storage_position(r->s, &at) == 0)
		ret->target_seq = at.folded_seq;
}

/* Runs one change in a transaction. */
static int in_transaction(struct rebuild *r, int (*change)(struct rebuild *r))
{
	int status = storage_begin(r->s, true);
	if (status < 0)
		return status;
	status = change(r);
	if (status == 0)
		status = storage_commit(r->s);
	if (status < 0)
		storage_rollback(r->s);
	return status;
}

static int create(struct rebuild *r)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	if (status == 0 && !r->is_counted)
		status = storage_set_rebuild(r->s, base_max_i64(at.rebuild, WANTED) + 1);
	return status < 0 ? status : storage_shadow_create(r->s);
}

static int swap(struct rebuild *r)
{
	return storage_shadow_swap(r->s);
}

static int drop(struct rebuild *r)
{
	int status = storage_set_rebuild(r->s, 0);
	return status < 0 ? status : storage_shadow_drop(r->s);
}

static int begin(struct rebuild *r)
{
	int status = in_transaction(r, create);
	if (status < 0)
		return status;
	log_say(LOG_LEVEL_NOTICE, "rebuilding the ledger from the stored events");
	r->is_counted = true;
	r->copied_key = r->seq = 0;
	r->phase = REBUILD_COPY;
	return 0;
}

/* The store grows by a second ledger: deliveries must not find the disk full because of it, nor
 * because of what it takes to empty it again. */
static int leave_room(const struct rebuild *r)
{
	struct storage_stats stats;
	storage_stats(r->s, &stats);
	bool is_scarce =
		stats.free_bytes >= 0 && stats.free_bytes + stats.wal_bytes < RESERVE_BYTES;
	return is_scarce ? -ENOSPC : 0;
}

static int copy(struct rebuild *r, int64_t budget_us)
{
	bool more;
	int status = projector_copy_sealed(r->projector, r->copied_key, budget_us, &r->copied_key,
					   &more);
	if (status == 0 && !more)
		r->phase = REBUILD_FOLD;
	return status;
}

static int fold(struct rebuild *r, int64_t budget_us)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	if (status < 0)
		return status;
	if (r->seq < at.folded_seq)
		return projector_refold(r->projector, r->seq, at.folded_seq, budget_us, &r->seq);
	status = in_transaction(r, swap);
	if (status < 0)
		return status;
	log_line(LOG_LEVEL_NOTICE, "the ledger was rebuilt", LOG_NUM("events", at.folded_seq));
	r->phase = REBUILD_IDLE;
	r->is_counted = false;
	r->trash = true;
	return 0;
}

static int give_up(struct rebuild *r)
{
	int status = in_transaction(r, drop);
	if (status < 0)
		return status;
	if (r->error == 0)
		r->error = -ECANCELED;
	log_line(LOG_LEVEL_ERROR, "the rebuild was given up; the ledger stays as it was",
		 LOG_TEXT("error", strerror(-r->error)), LOG_NUM("after_seq", r->seq));
	r->phase = REBUILD_IDLE;
	r->is_counted = false;
	r->trash = true;
	bool begins_anew = r->wants_another;
	r->wants_another = false;
	return begins_anew ? rebuild_request(r) : 0;
}

static int empty(struct rebuild *r)
{
	bool more = true;
	int status = storage_begin(r->s, false);
	if (status < 0)
		return status;
	status = storage_empty_trash(r->s, &more);
	if (status == 0)
		status = storage_commit(r->s);
	if (status < 0)
		storage_rollback(r->s);
	else
		r->trash = more;
	return status;
}

static int read_on(struct rebuild *r, int64_t budget_us)
{
	int status = leave_room(r);
	if (status < 0)
		return status;
	switch (r->phase) {
	case REBUILD_CREATE:
		return begin(r);
	case REBUILD_COPY:
		return copy(r, budget_us);
	case REBUILD_FOLD:
		return fold(r, budget_us);
	case REBUILD_IDLE:
	case REBUILD_GIVE_UP:
		break;
	}
	return 0;
}

/* A full disk ends it, too: what it wrote so far is what deliveries lack. */
static bool ends_it(int status)
{
	return status < 0 && (status == -ENOSPC || !storage_is_failure(status));
}

int rebuild_step(struct rebuild *r, int64_t budget_us)
{
	if (r->phase == REBUILD_GIVE_UP)
		return give_up(r);
	if (r->phase == REBUILD_IDLE)
		return r->trash ? empty(r) : 0;
	int status = read_on(r, budget_us);
	if (!ends_it(status))
		return status;
	r->error = status;
	r->phase = REBUILD_GIVE_UP;
	return 0;
}

static int uncount(struct rebuild *r)
{
	struct storage_position at;
	int status = storage_position(r->s, &at);
	return status < 0 ? status : storage_set_rebuild(r->s, at.rebuild - 1);
}

int rebuild_stop(struct rebuild *r)
{
	int status = r->is_counted ? in_transaction(r, uncount) : 0;
	if (status == 0)
		r->is_counted = false;
	return status;
}
