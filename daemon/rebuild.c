/* A small machine of phases; each step is one transaction. Because it runs on the thread that also
 * runs the live fold, "caught up" cannot change between being seen and the swap. */
#include "rebuild.h"

#include "log.h"
#include "projector.h"
#include "storage.h"

#include <errno.h>
#include <string.h>

#define TRIES_MAX 2

enum phase { REBUILD_IDLE, REBUILD_CREATE, REBUILD_COPY, REBUILD_FOLD, REBUILD_GIVE_UP };

struct rebuild {
	struct storage *s;
	struct projector *projector;
	enum phase phase;
	int64_t copied_key, seq;
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
	if (at.rebuild > TRIES_MAX)
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
	r->error = 0;
	return 0;
}

bool rebuild_is_running(const struct rebuild *r)
{
	return r->phase != REBUILD_IDLE;
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
	if (status == 0)
		status = storage_set_rebuild(r->s, at.rebuild + 1);
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
	r->copied_key = r->seq = 0;
	r->phase = REBUILD_COPY;
	return 0;
}

static int copy(struct rebuild *r)
{
	bool more;
	int status = projector_copy_sealed(r->projector, r->copied_key, &r->copied_key, &more);
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
	r->trash = true;
	return 0;
}

static int empty(struct rebuild *r)
{
	int status = storage_begin(r->s, false);
	if (status < 0)
		return status;
	status = storage_empty_trash(r->s, &r->trash);
	if (status == 0)
		status = storage_commit(r->s);
	if (status < 0)
		storage_rollback(r->s);
	return status;
}

int rebuild_step(struct rebuild *r, int64_t budget_us)
{
	int status = 0;
	switch (r->phase) {
	case REBUILD_IDLE:
		return r->trash ? empty(r) : 0;
	case REBUILD_CREATE:
		status = begin(r);
		break;
	case REBUILD_COPY:
		status = copy(r);
		break;
	case REBUILD_FOLD:
		status = fold(r, budget_us);
		break;
	case REBUILD_GIVE_UP:
		return give_up(r);
	}
	if (status == 0 || storage_is_failure(status))
		return status;
	r->error = status;
	r->phase = REBUILD_GIVE_UP;
	return 0;
}
