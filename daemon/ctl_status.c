/* How things stand, as rows (item, subject, value, last_at, ok, note): one form for people and
 * programs. ok is 1 or 0 for what is judged, NULL for what is told. Healthy is: a daemon holds the
 * store, says of itself that it is ready and took over its configuration, the ledger follows,
 * nothing was skipped, the write-ahead log is below its limit.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "control.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define LAG_MAX_S 10
#define UNSENT_MAX_S 600 /* of the oldest alert */
#define COUNT_MS 2000 /* for counting all events; then only the newest are */
#define NEWEST "100000"
#define NOTE_MAX 160
#define WORD_MAX 320
#define CTL_HOLDERS_MAX 256

struct status {
	const struct config *config;
	struct storage_reader *reader;
	struct table_out *out;
	int asked; /* 0: the daemon answered; CONTROL_NO_DAEMON, or why it did not */
	const struct json_value *daemon; /* its answer; NULL: none */
	bool is_healthy;
	int error; /* the first failure to write or read */
};

enum verdict { BAD, GOOD, UNJUDGED };

struct row {
	const char *item, *subject; /* subject NULL: none */
	struct table_out_cell value;
	int64_t last_ms; /* 0: none */
	enum verdict verdict;
	const char *note; /* NULL: none */
};

static struct table_out_cell text_cell(const char *text)
{
	return text ? (struct table_out_cell) { .type = TABLE_OUT_TEXT,
						.text = { text, strlen(text) } }
		    : (struct table_out_cell) { .type = TABLE_OUT_NULL };
}

static struct table_out_cell number_cell(int64_t n)
{
	return (struct table_out_cell) { .type = TABLE_OUT_INTEGER, .integer = n };
}

static void put(struct status *s, const struct row *row)
{
	char at[CLOCK_TEXT_MAX];
	const struct table_out_cell cells[] = {
		text_cell(row->item),
		text_cell(row->subject),
		row->value,
		text_cell(row->last_ms > 0 ? clock_format_ms(row->last_ms, at) : NULL),
		row->verdict == UNJUDGED ? text_cell(NULL) : number_cell(row->verdict == GOOD),
		text_cell(row->note),
	};

	s->is_healthy = s->is_healthy && row->verdict != BAD;
	int r = table_out_row(s->out, cells);
	if (s->error == 0)
		s->error = r;
}

static void put_number(struct status *s, const char *item, int64_t value, enum verdict verdict,
		       const char *note)
{
	put(s,
	    &(struct row) {
		    .item = item, .value = number_cell(value), .verdict = verdict, .note = note });
}

/* ---- what is judged ---- */

static void put_daemon(struct status *s)
{
	int r = storage_reader_daemon_state(s->config->store.path);
	struct row row = { .item = "daemon", .verdict = r == STORAGE_READER_HELD ? GOOD : BAD };

	row.value = text_cell(r < 0 ? "unknown" : r == 0 ? "stopped" : "running");
	if (r < 0)
		row.note = "its lock cannot be read: become a member of the group that owns it";
	else if (r == 0)
		row.note = "no process holds the store's lock";
	put(s, &row);
}

/* What only the running daemon knows. Not everybody may ask it: that is told, and not judged. */
static bool daemon_bool(const struct status *s, const char *key)
{
	const struct json_value *v = json_member(s->daemon, key);

	return v && json_type(v) == JSON_BOOL && json_bool(v);
}

static int64_t daemon_number(const struct status *s, const char *key)
{
	const struct json_value *v = json_member(s->daemon, key);
	int64_t n = 0;

	return v && json_integer(v, &n) ? n : 0;
}

static void put_unasked(struct status *s)
{
	bool is_forbidden = s->asked == -EACCES;

	put(s, &(struct row) { .item = "ready",
			       .value = text_cell("unknown"),
			       .verdict = is_forbidden ? UNJUDGED : BAD,
			       .note = is_forbidden ? "only root and the daemon's user may ask it; "
						      "see /readyz"
						    : "the daemon does not answer on its control "
						      "socket" });
}

/* The reasons as /readyz words them, in one line, and who stands in the way of a commit. */
static void describe_unready(const struct status *s, char note[static 2 * WORD_MAX])
{
	const struct json_value *words = json_member(s->daemon, "readiness");
	struct span text =
		words && json_type(words) == JSON_STRING ? json_string(words) : SPAN_LITERAL("");
	size_t head = SPAN_LITERAL("not ready\n").len;
	char holders[CTL_HOLDERS_MAX];

	if (text.len > head)
		text = (struct span) { text.s + head, text.len - head - 1 };
	(void)snprintf(note, 2 * WORD_MAX, "%.*s", (int)base_min_size(text.len, WORD_MAX), text.s);
	for (char *c = note; (c = strchr(c, '\n'));)
		*c = ';';
	size_t len = strlen(note);
	if (storage_write_holders(s->config->store.path, daemon_number(s, "pid"), holders,
				  sizeof(holders)) > 0)
		(void)snprintf(note + len, 2 * WORD_MAX - len, "; the store is held by pid %s",
			       holders);
}

static void put_ready(struct status *s)
{
	bool is_ready = daemon_bool(s, "ready");
	char note[2 * WORD_MAX];

	if (!json_member(s->daemon, "ready")) /* a daemon of before */
		return;
	if (!is_ready)
		describe_unready(s, note);
	put(s, &(struct row) { .item = "ready",
			       .value = text_cell(is_ready ? "yes" : "no"),
			       .verdict = is_ready ? GOOD : BAD,
			       .note = is_ready ? NULL : note });
}

static void put_reload(struct status *s)
{
	const struct json_value *names = json_member(s->daemon, "restart_needed");
	struct span text =
		names && json_type(names) == JSON_STRING ? json_string(names) : SPAN_LITERAL("");
	char note[WORD_MAX];
	bool is_refused = daemon_bool(s, "reload_refused");

	put(s,
	    &(struct row) { .item = "reload",
			    .value = text_cell(is_refused ? "refused" : "ok"),
			    .verdict = is_refused ? BAD : GOOD,
			    .note = is_refused ? "the file has mistakes: e2b-hookctl check-config "
						 "names them"
					       : NULL });
	(void)snprintf(note, sizeof(note), "%.*s", (int)base_min_size(text.len, WORD_MAX - 1),
		       text.s);
	put(s, &(struct row) { .item = "restart_needed",
			       .value = number_cell(text.len > 0),
			       .verdict = UNJUDGED,
			       .note = *note ? note : NULL });
}

static void put_queue(struct status *s)
{
	int64_t waiting = daemon_number(s, "waiting");
	bool is_full = waiting >= s->config->store.queue_limit;

	put_number(s, "queue", waiting, is_full ? BAD : GOOD,
		   is_full ? "queue_limit deliveries wait for the disk, more are answered 503"
			   : NULL);
}

static void put_retention(struct status *s)
{
	bool waits = daemon_bool(s, "prune_waits");

	put_number(s, "prune_waits", waits, UNJUDGED,
		   waits ? "event time leapt by more than a day: if the clocks are right, say "
			   "e2b-hookctl prune"
			 : NULL);
}

static void put_ledger(struct status *s)
{
	static const char sql[] = "SELECT stored_seq, folded_seq, lag_s, rebuilding, skipped "
				  "FROM ledger_state";
	char progress[WORD_MAX];
	int64_t n[5];
	int r = storage_reader_integers(s->reader, sql, n, ARRAY_SIZE(n));

	if (r < 0) {
		s->error = r;
		return;
	}
	put_number(s, "stored_seq", n[0], UNJUDGED, NULL);
	put_number(s, "folded_seq", n[1], UNJUDGED, NULL);
	put_number(s, "lag_s", n[2], n[2] <= LAG_MAX_S ? GOOD : BAD,
		   n[2] <= LAG_MAX_S ? NULL : "the ledger does not follow: see the daemon's log");
	(void)snprintf(progress, sizeof(progress), "folded %" PRId64 " of %" PRId64,
		       daemon_number(s, "rebuild_seq"), daemon_number(s, "rebuild_target_seq"));
	put_number(s, "rebuilding", n[3], UNJUDGED, daemon_bool(s, "rebuilding") ? progress : NULL);
	put_number(s, "skipped", n[4], n[4] == 0 ? GOOD : BAD,
		   n[4] == 0 ? NULL : "events that the ledger failed on; they are kept");
}

static void put_alerts(struct status *s)
{
	static const char sql[] = "SELECT (SELECT count(*) FROM alerts WHERE state <> 'resolved'),"
				  " (SELECT count(*) FROM notifications WHERE status = 'waiting'),"
				  " (SELECT min(time) FROM notifications WHERE status = 'waiting'),"
				  " (SELECT count(*) FROM notifications WHERE status = 'failed')";
	int64_t n[4];
	int r = storage_reader_integers(s->reader, sql, n, ARRAY_SIZE(n));

	if (r < 0) {
		s->error = r;
		return;
	}
	bool is_old = n[1] > 0 && clock_unix_ms() / 1000 - n[2] > UNSENT_MAX_S;
	put_number(s, "alerts_firing", n[0], UNJUDGED, NULL);
	put(s, &(struct row) { .item = "alerts_unsent",
			       .value = number_cell(n[1]),
			       .last_ms = n[2] * 1000,
			       .verdict = is_old ? BAD : GOOD,
			       .note = is_old ? "a target does not take them: see e2b-hookctl "
						"notifications"
					      : NULL });
	put_number(s, "alerts_failed", n[3], UNJUDGED,
		   n[3] == 0 ? NULL
			     : "given up: see e2b-hookctl notifications; alerts retry sends them "
			       "again");
}

static int64_t file_size(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;
	int n = snprintf(name, sizeof(name), "%s%s", path, suffix);

	return n > 0 && (size_t)n < sizeof(name) && stat(name, &st) == 0 ? st.st_size : 0;
}

static void put_sizes(struct status *s)
{
	int64_t wal = file_size(s->config->store.path, "-wal"), limit = s->config->store.wal_limit;
	int64_t n_aside;
	bool is_over = wal > limit;
	char holders[CTL_HOLDERS_MAX], note[WORD_MAX];
	size_t n_holders =
		is_over ? storage_wal_holders(s->config->store.path, holders, sizeof(holders)) : 0;

	(void)snprintf(note, sizeof(note),
		       "above wal_limit: a reader holds an old snapshot; end it%s%s",
		       n_holders ? ": pid " : "", n_holders ? holders : "");

	put_number(s, "database_bytes", file_size(s->config->store.path, ""), UNJUDGED, NULL);
	put_number(s, "wal_bytes", wal, is_over ? BAD : GOOD, is_over ? note : NULL);
	n_aside = storage_count_aside(s->config->store.path);
	put_number(s, "corrupt_stores", n_aside, n_aside == 0 ? GOOD : BAD,
		   n_aside == 0
			   ? NULL
			   : "damaged stores were set aside (PATH.corrupt-*): restore a backup, "
			     "then move them away");
}

/* ---- what is told ---- */

/* Text columns of the current row, cut; "" for NULL. */
static const char *column_text(struct status *s, size_t i, char buf[static WORD_MAX])
{
	struct storage_value v = storage_reader_value(s->reader, i);
	size_t len = v.type == STORAGE_BYTES ? base_min_size(v.text.len, WORD_MAX - 1) : 0;

	if (len > 0)
		memcpy(buf, v.text.s, len);
	buf[len] = '\0';
	return buf;
}

static int64_t column_integer(struct status *s, size_t i)
{
	return storage_reader_value(s->reader, i).integer;
}

/* Runs a statement whose rows are (subject, value, last_ms, note). */
static int put_query(struct status *s, const char *item, const char *sql)
{
	int r = storage_reader_query(s->reader, sql, NULL, 0);

	if (r < 0)
		return r;
	while ((r = storage_reader_next(s->reader)) == STORAGE_READER_ROW) {
		char subject[WORD_MAX], note[WORD_MAX];
		put(s, &(struct row) { .item = item,
				       .subject = column_text(s, 0, subject),
				       .value = number_cell(column_integer(s, 1)),
				       .last_ms = column_integer(s, 2),
				       .verdict = UNJUDGED,
				       .note = *column_text(s, 3, note) ? note : NULL });
	}
	return r;
}

#define EVENTS_OF "SELECT s.name, coalesce(g.n, 0), coalesce(g.last_ms, 0), "
#define EVENTS_GROUPS                                                                              \
	" FROM source s LEFT JOIN (SELECT source_key, count(*) AS n, "                             \
	"max(time_s * 1000 + received_delta_ms) AS last_ms FROM event "                            \
	"JOIN event_traits USING (traits_key) "
#define EVENTS_END "GROUP BY source_key) g ON g.source_key = s.source_key ORDER BY s.name"

/* No index could count by source; where it takes long, the newest say whether a source is alive. */
static int put_events(struct status *s)
{
	static const char all[] = EVENTS_OF "NULL" EVENTS_GROUPS EVENTS_END;
	static const char newest[] =
		EVENTS_OF "'among the newest " NEWEST " events'" EVENTS_GROUPS
			  "WHERE seq > (SELECT max(seq) FROM event) - " NEWEST " " EVENTS_END;

	storage_reader_set_deadline(s->reader, clock_mono_ms() + COUNT_MS);
	int r = put_query(s, "events", all);
	storage_reader_set_deadline(s->reader, 0);
	return r == -ETIMEDOUT ? put_query(s, "events", newest) : r;
}

static const struct {
	const char *item, *sql;
} told[] = {
	{ "quarantine",
	  "SELECT s.name, z.n_rows, (SELECT max(received_ms) FROM quarantined_body q "
	  "WHERE q.source_key = z.source_key), z.bytes || ' bytes' FROM side_size z "
	  "JOIN source s USING (source_key) WHERE z.side = 'quarantine' ORDER BY s.name" },
	{ "rejections",
	  "SELECT s.name, z.n_rows, (SELECT received_ms FROM rejection j WHERE j.source_key = "
	  "z.source_key ORDER BY j.id DESC LIMIT 1), CASE WHEN z.dropped > 0 THEN z.dropped || ' "
	  "more were not kept' END FROM side_size z JOIN source s USING (source_key) "
	  "WHERE z.side = 'rejection' ORDER BY s.name" },
	{ "filtered",
	  "SELECT s.name || ' by ' || f.reason || coalesce(', template ' || coalesce(t.alias, "
	  "t.template_id), ''), f.n, f.last_ms, CASE f.reason "
	  "WHEN 'events' THEN 'refused for their type, whatever the template: see events = of "
	  "the source' "
	  "WHEN 'templates' THEN 'refused for their template: see templates = of the source' "
	  "WHEN 'teams' THEN 'refused for their team: see teams = of the source' END "
	  "FROM filter_count f JOIN source s USING "
	  "(source_key) LEFT JOIN template t USING (template_key) ORDER BY f.n DESC LIMIT 100" },
	{ "secret",
	  "SELECT s.name || ' secret ' || u.position, u.n, u.last_ms, CASE WHEN u.fingerprint <> "
	  "'' THEN 'fingerprint ' || u.fingerprint END FROM secret_use u JOIN source s USING "
	  "(source_key) ORDER BY s.name, u.position, u.last_ms DESC" },
};

/* Sources of the configuration that nothing came from yet. */
static int put_silent(struct status *s)
{
	static const char sql[] = "SELECT count(*) FROM source WHERE name = ?";

	for (size_t i = 0; i < s->config->n_sources; i++) {
		const char *name = s->config->sources[i].name;
		const struct storage_value value = STORAGE_VALUE_TEXT(name);
		int r = storage_reader_query(s->reader, sql, &value, 1);
		if (r == 0)
			r = storage_reader_next(s->reader);
		if (r < 0)
			return r;
		if (r == STORAGE_READER_ROW && column_integer(s, 0) == 0)
			put(s, &(struct row) { .item = "events",
					       .subject = name,
					       .value = number_cell(0),
					       .verdict = UNJUDGED,
					       .note = "nothing came yet" });
		storage_reader_end(s->reader);
	}
	return 0;
}

static void put_told(struct status *s)
{
	int r = put_events(s);

	if (r == 0)
		r = put_silent(s);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(told); i++)
		r = put_query(s, told[i].item, told[i].sql);
	if (s->error == 0)
		s->error = r;
}

static void free_out(struct table_out **out)
{
	table_out_free(*out);
}

static int show(struct status *s, enum table_out_format format)
{
	static const char *const columns[] = {
		"item", "subject", "value", "last_at", "ok", "note"
	};
	CLEANUP(free_out) struct table_out *out = NULL;
	int r = table_out_new(stdout, format, columns, ARRAY_SIZE(columns), &out);

	if (r < 0)
		return r;
	s->out = out;
	put_daemon(s);
	if (s->asked != 0 && s->asked != CONTROL_NO_DAEMON)
		put_unasked(s);
	if (s->daemon) {
		put_ready(s);
		put_reload(s);
		put_queue(s);
		put_retention(s);
	}
	put_ledger(s);
	put_sizes(s);
	put_alerts(s);
	put_told(s);
	if (s->error == 0)
		put_number(s, "healthy", s->is_healthy, s->is_healthy ? GOOD : BAD, NULL);
	r = table_out_end(out);
	return s->error < 0 ? s->error : r;
}

static void free_doc(struct json_doc **doc)
{
	json_doc_free(*doc);
}

static void ask_daemon(struct status *s, struct json_doc **ret)
{
	CLEANUP_FREE char *answer = NULL;

	s->asked = control_call(s->config->store.path, "status", NULL, NULL, &answer);
	if (s->asked == 0 && json_parse(answer, strlen(answer), ret) == 0)
		s->daemon = json_root(*ret);
}

int ctl_status_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	CLEANUP(free_doc) struct json_doc *doc = NULL;
	int code = ctl_load_config(options, &config);

	if (code == 0)
		code = ctl_open_store(config, &reader);
	if (code != 0)
		return code;
	struct status s = { .config = config, .reader = reader, .is_healthy = true };
	ask_daemon(&s, &doc);
	int r = show(&s, options->format);
	if (r < 0) {
		const char *why = storage_reader_error(reader);
		ctl_complain("status: %s", *why ? why : strerror(-r));
	}
	return r == 0 && s.is_healthy ? 0 : CTL_EXIT_FAILED;
}
