/* What the files of the SQLite engine share. */
#pragma once

#include "storage.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#define STORAGE_APPLICATION_ID 0x45324244 /* "E2BD" */
#define STORAGE_FOLD_VERSION 1
#define STORAGE_RECENT_IDS 100000
/* What a rebuild writes is numbered so far ahead of the live ledger: its rows are changes to
 * whoever read the live ones while it ran. More transactions than a rebuild sees. */
#define STORAGE_SHADOW_LEAD (INT64_C(1) << 30)
#define STORAGE_N_PLACES 4 /* database, log, shared memory, lock */
#define STORAGE_DIM_CACHE 1024 /* a power of two */

enum storage_sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	/* log */
	SQL_EVENT_INSERT,
	SQL_EVENT_TRAITS_GET,
	SQL_EVENT_TRAITS_ADD,
	SQL_EVENT_AGAIN,
	SQL_BODY_PUT,
	SQL_BODY_GET,
	SQL_BODY_PRUNE,
	SQL_IDENTITY_STATE,
	SQL_IDENTITY_LATEST,
	SQL_IDENTITY_FIND,
	SQL_IDENTITY_CONFIRM,
	SQL_IDENTITY_PUT,
	SQL_IDENTITY_INDEXED,
	SQL_IDENTITY_DELETE,
	SQL_QUARANTINE_INSERT,
	SQL_QUARANTINE_AGAIN,
	SQL_QUARANTINE_EXPIRE,
	SQL_REJECTION_INSERT,
	SQL_REJECTION_OLDEST,
	SQL_REJECTION_DELETE,
	SQL_REJECTION_EXPIRED,
	SQL_SIDE_GET,
	SQL_SIDE_ADD,
	SQL_FILTER_COUNT,
	SQL_SECRET_USE,
	/* dimensions */
	SQL_TYPE_GET,
	SQL_TYPE_ADD,
	SQL_SOURCE_GET,
	SQL_SOURCE_ADD,
	SQL_SOURCE_TEXT,
	SQL_TEMPLATE_GET,
	SQL_TEMPLATE_ADD,
	SQL_TEMPLATE_TEXT,
	SQL_TEMPLATE_ALIAS,
	SQL_TEMPLATE_NO_ALIAS,
	SQL_TEAM_GET,
	SQL_TEAM_ADD,
	SQL_TEAM_TEXT,
	SQL_BUILD_GET,
	SQL_BUILD_ADD,
	SQL_BUILD_TEXT,
	SQL_WORD_GET,
	SQL_WORD_ADD,
	SQL_WORD_TEXT,
	/* ledger */
	SQL_PENDING,
	SQL_EVENT_ID,
	SQL_POSITION_GET,
	SQL_POSITION_FOLDED,
	SQL_POSITION_TRYING,
	SQL_POSITION_HORIZON,
	SQL_SKIP,
	SQL_LINK,
	SQL_LINK_TRAITS_GET,
	SQL_LINK_TRAITS_ADD,
	SQL_SANDBOX_GET,
	SQL_SANDBOX_GET_AT,
	SQL_SANDBOX_IDS,
	SQL_SANDBOX_FIRST,
	SQL_SANDBOX_PUT,
	SQL_SANDBOX_CHANGE,
	SQL_SANDBOX_MOVE,
	SQL_RUNS_GET,
	SQL_RUN_PUT,
	SQL_RUN_CHANGE,
	SQL_RUN_MOVE,
	SQL_RUN_DELETE,
	SQL_LOOSE_GET,
	SQL_LOOSE_PUT,
	SQL_EXECUTION_GET,
	SQL_EXECUTION_DELETE,
	SQL_EXECUTION_PUT,
	SQL_EXECUTION_LOOSE,
	SQL_EXECUTION_MOVE,
	SQL_EXECUTION_KEEP_ID,
	SQL_EXECUTION_TRAITS_GET,
	SQL_EXECUTION_TRAITS_ADD,
	SQL_RUN_TRAITS_GET,
	SQL_RUN_TRAITS_ADD,
	SQL_DUE,
	/* sums */
	SQL_ROLLUP_COST_HOUR,
	SQL_ROLLUP_COST_DAY,
	SQL_ROLLUP_ACTIVITY_HOUR,
	SQL_ROLLUP_TEMPLATE_HOUR,
	SQL_ROLLUP_TEMPLATE_TOTAL,
	/* retention and rebuilds */
	SQL_SEALED,
	SQL_EXECUTION_BOOKED,
	SQL_IS_SKIPPED,
	SQL_OLD_EVENTS,
	SQL_SANDBOX_SEAL,
	SQL_LINK_DELETE,
	SQL_SKIPPED_DELETE,
	SQL_EVENT_DELETE,
	SQL_OLD_SANDBOX,
	SQL_EXECUTIONS_OF,
	SQL_SANDBOX_LESSEN,
	SQL_RUNS_DELETE,
	SQL_LOOSE_KEEP_ID,
	SQL_LOOSE_FORGET_IDS,
	SQL_LOOSE_DELETE,
	SQL_SANDBOX_DELETE,
	SQL_PAGE_COUNT,
	SQL_FREE_COUNT,
	SQL_PAGE_SIZE,
	SQL_POSITION_RETENTION,
	/* requeue */
	SQL_QUARANTINE_RANGE,
	SQL_QUARANTINE_NEXT,
	SQL_QUARANTINE_REASON,
	SQL_QUARANTINE_MERGE,
	SQL_QUARANTINE_DELETE,
	SQL_REJECTION_RANGE,
	SQL_REJECTION_NEXT,
	SQL_REJECTION_REASON,
	SQL_REJECTION_TAKE,
	SQL_SKIPPED_NEXT,
	SQL_REQUEUE_SAVE,
	SQL_REQUEUE_UNDO,
	SQL_REQUEUE_RELEASE,
	/* alerts: texts in storage_sqlite_alert_sql.c */
	SQL_ALERT_FIRST,
	SQL_ALERT_GET = SQL_ALERT_FIRST,
	SQL_ALERT_NEXT,
	SQL_ALERT_PUT,
	SQL_ALERT_DELETE,
	SQL_ALERT_EVENT,
	SQL_ALERT_POSITION,
	SQL_ALERT_MOVE,
	SQL_ALERT_COUNT,
	SQL_ALERT_COUNTED,
	SQL_ALERT_COUNTED_DROP,
	SQL_ALERT_RATES,
	SQL_ALERT_RUNAWAYS,
	SQL_ALERT_COSTS,
	SQL_ALERT_LAST_EVENTS,
	SQL_ALERT_REJECTIONS,
	SQL_ALERT_QUARANTINED,
	SQL_ALERT_ACK,
	SQL_ALERT_FORGET,
	SQL_NOTIFICATION_ADD,
	SQL_NOTIFICATION_GATHERING,
	SQL_NOTIFICATION_SEAL,
	SQL_NOTIFICATION_PRUNE,
	SQL_OUTBOX_ADD,
	SQL_OUTBOX_NEXT,
	SQL_OUTBOX_TRY,
	SQL_OUTBOX_DUE,
	SQL_OUTBOX_TOLD,
	SQL_OUTBOX_REPORT,
	SQL_OUTBOX_EXPIRE,
	SQL_OUTBOX_PRUNE,
	SQL_OUTBOX_FIGURES,
	SQL_OUTBOX_RETRY,
	SQL_OUTBOX_DROP,
	SQL_ALERT_SKIP,
	SQL_ALERT_EVENT_PRUNE,
	SQL_ALERT_BUCKET_PRUNE,
	SQL_N,
};

/* Texts and keys of one dimension, direct-mapped by hash: a miss costs a query, nothing else. */
struct storage_dim_cache {
	struct storage_dim_entry {
		char *text;
		int64_t key;
	} entries[STORAGE_DIM_CACHE];
};

struct storage {
	sqlite3 *db;
	int lock_fd;
	char *path;
	char *aside; /* the name that a damaged predecessor was given; NULL: none */
	int place_fds[STORAGE_N_PLACES]; /* storage_sqlite_place.c; less 1: 0 is none */
	struct storage_options options;
	enum storage_target target;
	sqlite3_stmt *statements[STORAGE_N_TARGETS][SQL_N];
	char error[STORAGE_ERROR_MAX];
	bool in_transaction, is_durable; /* is_durable: what PRAGMA synchronous says now */
	pthread_mutex_t sync_lock; /* one sync of the log at a time: storage_sqlite_sync.c */
	sqlite3_file *log; /* the write-ahead log, as long as `db` */
	atomic_bool is_doubtful; /* the disk may have lost what was written */
	int failed; /* in the open transaction, where no result could tell: it cannot be kept */
	int64_t next_sandbox_key, next_run_key; /* gaps do not matter */
	int checkpoint_frames; /* with so many the log is moved into the database */
	int wal_frames; /* in the write-ahead log after the last commit */
	int64_t change_seq; /* of the open transaction; 0: none given yet */
	int64_t ledger_changes; /* since it was opened */
	/* What the store holds, the open transaction included; and before it, for a rollback. */
	struct storage_state {
		struct storage_position position; /* with stored_seq, the latest given */
		int64_t last_change_seq;
	} now, before;
	struct identity *identity; /* which events are stored: storage_sqlite_identity.c */
	struct storage_gathered { /* bodies of the open transaction: storage_sqlite_body.c */
		int64_t first_seq;
		char *bytes;
		size_t len, size;
	} gathered, whole; /* whole: a body as it came, its id in place again */
	struct known *known; /* which sandboxes there are; NULL: none asked for yet */
	struct traits *traits; /* keys of late: storage_sqlite_traits.c; NULL: none yet */
	struct rollup *rollup; /* differences of the open transaction; NULL: none yet */
	struct storage_dim_cache dims[STORAGE_WORD + 1];
	struct storage_dim_cache types;
	char id_text[EVENT_ID_MAX + 1]; /* what id_of returned last */
};

/* The text of a statement from SQL_ALERT_FIRST on. */
const char *storage_sqlite_alert_sql(enum storage_sql sql);
const char *storage_sqlite_text(enum storage_sql sql);
/* The statement, prepared at first use and reset; NULL with s->error set. */
sqlite3_stmt *storage_sqlite_statement(struct storage *s, enum storage_sql sql);
/* Binds by a format: i int64, z int64 with 0 as NULL, a int64 with INT64_MIN as NULL, s span as
 * text (absent: NULL), b span as blob, d span as an id (UUID blob or text), D a C string likewise,
 * c C string. */
MUST_CHECK int storage_sqlite_bind(struct storage *s, sqlite3_stmt *statement, const char *format,
				   ...);
/* Steps once: 1 a row, 0 done, negative errno. */
MUST_CHECK int storage_sqlite_step(struct storage *s, sqlite3_stmt *statement);
/* Bind-less and bound statements that return nothing. */
MUST_CHECK int storage_sqlite_run(struct storage *s, sqlite3_stmt *statement);
/* Takes down what SQLite says and turns its code into an errno. */
int storage_sqlite_fail(struct storage *s, int code, const char *what);

/* Columns: an int64, or INT64_MIN / 0 for NULL; text into a bounded buffer; an id as text. */
int64_t storage_sqlite_absent(sqlite3_stmt *statement, int column);
void storage_sqlite_copy(sqlite3_stmt *statement, int column, char *buf, size_t size);
void storage_sqlite_id(sqlite3_stmt *statement, int column, char buf[static EVENT_ID_MAX + 1]);

/* An event was delivered some times more. */
int storage_sqlite_log_again(struct storage *s, int64_t seq, int64_t times) MUST_CHECK;
int storage_sqlite_type_key(struct storage *s, const struct event *event,
			    int64_t *ret_key) MUST_CHECK;
void storage_sqlite_forget_dims(struct storage *s); /* after a rollback */
void storage_sqlite_dims_finish(struct storage *s);
int storage_sqlite_load_position(struct storage *s) MUST_CHECK;
bool storage_sqlite_is_uuid(struct span id); /* one that is kept in 16 bytes */
int storage_sqlite_bind_id(sqlite3_stmt *statement, int i,
			   struct span id) MUST_CHECK; /* a SQLite code */
void storage_sqlite_watch_wal(struct storage *s);
/* One number for all rows that a transaction changes, larger than any before. */
int64_t storage_sqlite_change_seq(struct storage *s);
/* A statement's text with the names of ledger tables prefixed; the caller frees it. */
char *storage_sqlite_retarget(const char *sql, const char *prefix);
/* Remembers which files those are that were opened, and forgets them. */
int storage_sqlite_place_take(struct storage *s) MUST_CHECK;
void storage_sqlite_place_finish(struct storage *s);
