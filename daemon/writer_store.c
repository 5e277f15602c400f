/* The store itself: whether its pages can be read, its files are in their place, its log is held.
 */
#include "writer_internal.h"

#include "clock.h"
#include "config.h"
#include "log.h"

#include <errno.h>
#include <string.h>

#define TELL_LOG_EVERY_MS (INT64_C(10) * 60 * 1000)

/* Other deliveries may well be stored in between: not each of them meets the page. */
void writer_store_judge(struct writer *w, int r, bool was_delivery)
{
	int64_t now_ms = clock_mono_ms();
	bool is_forgotten =
		w->n_damaged > 0 && now_ms - w->damaged_last_ms > WRITER_DAMAGE_FORGOTTEN_MS;
	if (is_forgotten && (r == -EUCLEAN || (r == 0 && was_delivery))) {
		w->n_damaged = 0;
		w->is_damaged = false;
	}
	if (r != -EUCLEAN || w->is_damaged)
		return;
	if (w->n_damaged++ == 0)
		w->damaged_first_ms = now_ms;
	w->damaged_last_ms = now_ms;
	w->is_damaged = w->n_damaged >= WRITER_DAMAGED_AFTER &&
			now_ms - w->damaged_first_ms >= WRITER_DAMAGED_MS;
	if (!w->is_damaged)
		return;
	storage_note_damage(w->s);
	w->wants_end = w->ends_when_damaged;
	log_line(LOG_LEVEL_ERROR,
		 w->wants_end ? "the store is damaged: ending, so that the next start sets it aside"
			      : "the store is damaged: stop the daemon and restore a backup",
		 LOG_TEXT("store", storage_error(w->s)));
}

static void save_what_is_lost(struct writer *w)
{
	char path[STORAGE_PATH_MAX];
	int r = storage_rescue(w->s, path);
	w->wants_end = r == 0;
	if (r < 0)
		writer_complain(w, "the deleted store could not be saved, trying again", r);
	else
		log_line(LOG_LEVEL_ERROR,
			 *path ? "ending; all that the deleted store held was saved: to go on with "
				 "it, e2b-hookctl restore"
			       : "ending; all that was stored is in the database that was opened",
			 LOG_TEXT("saved", path));
}

void writer_store_look(struct writer *w)
{
	bool was_lost = w->is_lost;
	w->is_lost = storage_in_place(w->s) < 0;
	if (!w->is_lost || w->wants_end)
		return;
	if (!was_lost)
		log_say(LOG_LEVEL_ERROR,
			"a file of the store was deleted, moved or replaced beneath the daemon: "
			"deliveries are answered 503");
	save_what_is_lost(w);
}

int writer_store_try_again(struct writer *w)
{
	struct storage_position at;
	int r = storage_position(w->s, &at);
	if (r == 0)
		r = storage_begin(w->s, true);
	if (r < 0)
		return r;
	r = storage_set_trying(w->s, at.trying_seq, at.trying_count);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

void writer_store_watch_log(struct writer *w, int64_t now_ms)
{
	char holders[256];
	int64_t size = w->health.stats.wal_bytes, limit = w->config->store.wal_limit;
	if (size <= limit && w->log_told_ms)
		log_line(LOG_LEVEL_NOTICE, "the write-ahead log is below wal_limit again",
			 LOG_NUM("bytes", size));
	if (size <= limit)
		w->log_told_ms = 0;
	if (size <= limit || (w->log_told_ms && now_ms - w->log_told_ms < TELL_LOG_EVERY_MS))
		return;
	w->log_told_ms = now_ms;
	size_t n = storage_wal_holders(w->config->store.path, holders, sizeof(holders));
	log_line(LOG_LEVEL_WARNING,
		 "the write-ahead log is above wal_limit: a reader holds an old snapshot; end it",
		 LOG_NUM("bytes", size), LOG_NUM("limit", limit),
		 LOG_TEXT("pid", n ? holders : "unknown"));
}
