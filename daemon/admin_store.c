#include "admin_internal.h"

#include "clock.h"
#include "log.h"
#include "metrics.h"
#include "storage_reader.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* Figures that only the store has: money and runs by template, what was set aside, secrets in use.
 *
 * A thread with a read-only connection reads them when asked, within a deadline, and keeps the page
 * piece that it made of them. Invariant: nobody waits for it. Who asks is told by done(), or gives
 * up and takes the piece of before; several who ask at once share a reading.
 */

#define DEADLINE_MS 1000
#define LATEST_EVENTS "10000" /* among which the last of each source is looked for at the start */
#define OTHER "_other"

struct admin_store {
	char *path;
	void (*done)(void *ctx);
	void *ctx;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t wake;
	bool stopping, failed;
	uint64_t wanted, read;
	struct config *config;
	char *text; /* of the last reading that succeeded; NULL: none yet */
	size_t text_len;
};

/* One reading. Its thread only. */
struct reading {
	struct storage_reader *reader;
	const struct config *config;
	struct admin_text text;
};

/* --- columns --- */

static int64_t integer(struct reading *r, size_t column)
{
	return storage_reader_value(r->reader, column).integer;
}

/* A text column, cut; "" for NULL. Valid in `buf`. */
static const char *text(struct reading *r, size_t column, char *buf, size_t size)
{
	struct storage_value v = storage_reader_value(r->reader, column);
	size_t len = v.type == STORAGE_BYTES ? base_min_size(v.text.len, size - 1) : 0;

	if (len > 0)
		memcpy(buf, v.text.s, len);
	buf[len] = '\0';
	return buf;
}

/* --- the last event of each source, once --- */

static int see_last_events(struct reading *r)
{
	static const char sql[] =
		"SELECT source, max(received_at) FROM events WHERE seq > (SELECT stored_seq FROM "
		"ledger_state) - " LATEST_EVENTS " GROUP BY source";
	int rc = storage_reader_query(r->reader, sql, NULL, 0);

	while (rc == 0 && (rc = storage_reader_next(r->reader)) == STORAGE_READER_ROW) {
		char source[65], at[CLOCK_TEXT_MAX];
		int64_t ns;

		rc = 0;
		(void)text(r, 0, source, sizeof(source));
		(void)text(r, 1, at, sizeof(at));
		if (config_source_by_name(r->config, source) &&
		    clock_parse_rfc3339(at, strlen(at), &ns) == 0)
			metrics_see_event(metrics_source(source), ns / CLOCK_NS_PER_MS);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

/* --- templates --- */

/* Columns of the query behind the name, in its order. */
static const struct {
	const char *name, *help;
	unsigned int decimals;
} template_families[] = {
	{ "e2b_hookd_template_runs", "Runs by template.", 0 },
	{ "e2b_hookd_template_running", "Sandboxes that are running now, by template.", 0 },
	{ "e2b_hookd_template_runtime_seconds", "Time that sandboxes were up, by template.", 3 },
	{ "e2b_hookd_template_cost_nanousd", "Cost of ended runs in nano-USD, by template.", 0 },
	{ "e2b_hookd_template_cost_usd", "Cost of ended runs in US dollars, by template.", 9 },
	{ "e2b_hookd_template_executions", "Code executions, by template.", 0 },
	{ "e2b_hookd_template_failed_executions", "Failed code executions, by template.", 0 },
};
#define N_FAMILIES ARRAY_SIZE(template_families)

struct template_row {
	char name[EVENT_ID_MAX + 1];
	int64_t values[N_FAMILIES];
};

/* By the shown name, which several ids may share: a series must not come twice. */
static int read_templates(struct reading *r, struct template_row *rows, size_t *ret_n)
{
	static const char sql[] =
		"SELECT coalesce(template, '') AS name, sum(runs), sum(running), sum(runtime_ms), "
		"sum(cost_nanousd), sum(cost_nanousd), sum(executions), sum(failed_executions) "
		"FROM template_stats GROUP BY name ORDER BY 5 DESC, name";
	struct template_row *other = &rows[ADMIN_TEMPLATES_MAX];
	int rc = storage_reader_query(r->reader, sql, NULL, 0);

	*other = (struct template_row) { .name = OTHER };
	*ret_n = 0;
	while (rc == 0 && (rc = storage_reader_next(r->reader)) == STORAGE_READER_ROW) {
		struct template_row *row = &rows[base_min_size(*ret_n, ADMIN_TEMPLATES_MAX)];
		char name[EVENT_ID_MAX + 1];

		rc = 0;
		if (strcmp(text(r, 0, name, sizeof(name)), OTHER) == 0)
			row = other;
		for (size_t i = 0; i < N_FAMILIES; i++)
			row->values[i] = (row == other ? row->values[i] : 0) + integer(r, i + 1);
		if (row == other)
			continue;
		memcpy(row->name, name, sizeof(name));
		(*ret_n)++;
	}
	return rc;
}

static int put_templates(struct reading *r)
{
	CLEANUP_FREE struct template_row *rows = calloc(ADMIN_TEMPLATES_MAX + 1, sizeof(*rows));
	size_t n = 0;
	int rc = rows ? read_templates(r, rows, &n) : -ENOMEM;

	for (size_t f = 0; rc == 0 && f < N_FAMILIES; f++) {
		admin_text_family(&r->text, template_families[f].name, ADMIN_GAUGE,
				  template_families[f].help);
		for (size_t i = 0; i <= n; i++) {
			const struct template_row *row = &rows[i < n ? i : ADMIN_TEMPLATES_MAX];
			struct admin_label label = { "template", row->name };

			admin_text_sample(&r->text, NULL, &label, 1, row->values[f],
					  template_families[f].decimals);
		}
	}
	return rc;
}

/* --- sources: what was set aside, secrets in use --- */

/* One row of integers for a source; `n` of them in ret, zeros where there is none. */
static int read_of_source(struct reading *r, const char *sql, const struct storage_value *values,
			  size_t n_values, int64_t *ret, size_t n)
{
	int rc = storage_reader_query(r->reader, sql, values, n_values);

	memset(ret, 0, n * sizeof(*ret));
	if (rc == 0)
		rc = storage_reader_next(r->reader);
	for (size_t i = 0; rc == STORAGE_READER_ROW && i < n; i++)
		ret[i] = integer(r, i);
	storage_reader_end(r->reader);
	return rc < 0 ? rc : 0;
}

static int put_side(struct reading *r, const char *name, const char *help, const char *sql)
{
	int rc = 0;

	admin_text_family(&r->text, name, ADMIN_GAUGE, help);
	for (size_t i = 0; rc == 0 && i < r->config->n_sources; i++) {
		const char *source = r->config->sources[i].name;
		const struct storage_value value = STORAGE_VALUE_TEXT(source);
		struct admin_label label = { "source", source };
		int64_t n;

		rc = read_of_source(r, sql, &value, 1, &n, 1);
		admin_text_sample(&r->text, NULL, &label, 1, n, 0);
	}
	return rc;
}

#define SIDE(column, side)                                                                         \
	"SELECT " column " FROM side_size z JOIN source s USING (source_key) WHERE z.side = "      \
	"'" side "' AND s.name = ?"

static int put_sides(struct reading *r)
{
	static const struct {
		const char *name, *help, *sql;
	} rows[] = {
		{ "e2b_hookd_quarantine_rows",
		  "Deliveries kept in quarantine; at 10000 new ones are answered 503.",
		  SIDE("n_rows", "quarantine") },
		{ "e2b_hookd_quarantine_bytes",
		  "Bytes kept in quarantine; at 64 MiB new deliveries for it are answered 503.",
		  SIDE("bytes", "quarantine") },
		{ "e2b_hookd_rejection_rows", "Rejected deliveries kept; the oldest go first.",
		  SIDE("n_rows", "rejection") },
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(rows); i++)
		rc = put_side(r, rows[i].name, rows[i].help, rows[i].sql);
	return rc;
}

struct secret_figures {
	int64_t uses, last_ms;
};

/* By fingerprint, not by place: a rotation moves the old secret to another line. Short secrets have
 * none; theirs is the place. */
static int read_secret(struct reading *r, const struct config_source *source, unsigned int position,
		       struct secret_figures *ret)
{
	static const char sql[] =
		"SELECT coalesce(sum(u.n), 0), coalesce(max(u.last_ms), 0) FROM secret_use u "
		"JOIN source s USING (source_key) WHERE s.name = ?1 AND u.fingerprint = ?2 "
		"AND (?2 <> '' OR u.position = ?3)";
	char fingerprint[9];
	int64_t n[2];

	signature_keyring_fingerprint(source->policy.keyring, position, fingerprint);
	const struct storage_value values[] = { STORAGE_VALUE_TEXT(source->name),
						STORAGE_VALUE_TEXT(fingerprint),
						STORAGE_VALUE_INTEGER(position) };
	int rc = read_of_source(r, sql, values, ARRAY_SIZE(values), n, ARRAY_SIZE(n));

	*ret = (struct secret_figures) { n[0], n[1] };
	return rc;
}

static int put_secret_family(struct reading *r, bool last_used)
{
	int rc = 0;

	admin_text_family(&r->text,
			  last_used ? "e2b_hookd_secret_last_used_timestamp_seconds"
				    : "e2b_hookd_secret_uses_total",
			  last_used ? ADMIN_GAUGE : ADMIN_COUNTER,
			  last_used ? "When a secret last matched, in unix time; 0: never."
				    : "Deliveries that a secret matched, since it was first used.");
	for (size_t i = 0; rc == 0 && i < r->config->n_sources; i++) {
		const struct config_source *source = &r->config->sources[i];
		size_t n = source->policy.keyring ? signature_keyring_count(source->policy.keyring)
						  : 0;

		for (unsigned int p = 1; rc == 0 && p <= n; p++) {
			char position[12];
			struct secret_figures figures;
			const struct admin_label labels[] = { { "source", source->name },
							      { "position", position } };

			(void)snprintf(position, sizeof(position), "%u", p);
			rc = read_secret(r, source, p, &figures);
			admin_text_sample(&r->text, NULL, labels, ARRAY_SIZE(labels),
					  last_used ? figures.last_ms : figures.uses,
					  last_used ? 3 : 0);
		}
	}
	return rc;
}

static int put_lag(struct reading *r)
{
	int64_t lag_s;
	int rc = storage_reader_integers(r->reader, "SELECT lag_s FROM ledger_state", &lag_s, 1);

	if (rc == 0)
		admin_text_one(&r->text, "e2b_hookd_ledger_lag_seconds", ADMIN_GAUGE,
			       "Age of the oldest event that the ledger does not hold yet.", lag_s,
			       0);
	return rc;
}

/* --- the thread --- */

static int read_all(struct reading *r, bool *saw_last)
{
	int rc = 0;

	storage_reader_set_deadline(r->reader, clock_mono_ms() + DEADLINE_MS);
	if (!*saw_last && (rc = see_last_events(r)) == 0)
		*saw_last = true;
	if (rc == 0)
		rc = put_lag(r);
	if (rc == 0)
		rc = put_templates(r);
	if (rc == 0)
		rc = put_sides(r);
	if (rc == 0)
		rc = put_secret_family(r, false);
	if (rc == 0)
		rc = put_secret_family(r, true);
	storage_reader_end(r->reader);
	return rc < 0 ? rc : r->text.error;
}

static void tell(int rc, const char *words)
{
	static struct log_limit limit = { .burst = 2 };
	unsigned int held_back = 0;

	if (log_limit_allows(&limit, &held_back))
		log_line(LOG_LEVEL_WARNING, "the figures of the store could not be read",
			 LOG_TEXT("error", strerror(-rc)), LOG_TEXT("store", words),
			 LOG_NUM("held_back", held_back));
}

/* Once through; a connection that failed is not used again. */
static int read_once(struct admin_store *s, const struct config *config,
		     struct storage_reader **reader, bool *saw_last, struct admin_text *ret)
{
	char error[STORAGE_ERROR_MAX] = "";
	struct reading r = { .config = config };
	int rc = *reader ? 0 : storage_reader_open(s->path, reader, error);

	admin_text_init(&r.text);
	if (rc == 0) {
		r.reader = *reader;
		rc = read_all(&r, saw_last);
		if (rc < 0)
			(void)snprintf(error, sizeof(error), "%s", storage_reader_error(*reader));
	}
	if (rc < 0) {
		tell(rc, error);
		storage_reader_close(*reader);
		*reader = NULL;
	}
	*ret = r.text;
	return rc;
}

/* The config reference to read by, or NULL: the end. */
static struct config *wait_for_question(struct admin_store *s, uint64_t *ret_number)
{
	struct config *config = NULL;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->stopping && s->wanted == s->read)
		(void)pthread_cond_wait(&s->wake, &s->lock);
	*ret_number = s->wanted;
	if (!s->stopping)
		config = config_ref(s->config);
	(void)pthread_mutex_unlock(&s->lock);
	return config;
}

static void keep(struct admin_store *s, uint64_t number, struct admin_text *text, int rc)
{
	size_t len = text->out.len;
	char *piece = rc == 0 ? buffer_steal(&text->out) : NULL;

	(void)pthread_mutex_lock(&s->lock);
	s->failed = !piece;
	s->read = number;
	if (piece) {
		free(s->text);
		s->text = piece;
		s->text_len = len;
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
	struct admin_store *s = arg;
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	struct config *config;
	bool saw_last = false;
	uint64_t number;

	while ((config = wait_for_question(s, &number))) {
		struct admin_text text;
		int rc = read_once(s, config, &reader, &saw_last, &text);

		config_unref(config);
		keep(s, number, &text, rc);
		admin_text_finish(&text);
		s->done(s->ctx);
	}
	return NULL;
}

/* --- lifecycle --- */

int admin_store_new(const char *path, struct config *config, void (*done)(void *ctx), void *ctx,
		    struct admin_store **ret)
{
	struct admin_store *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return -ENOMEM;
	s->done = done;
	s->ctx = ctx;
	s->config = config_ref(config);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->wake, NULL);
	s->path = strdup(path);
	if (!s->path)
		r = -ENOMEM;
	if (r == 0)
		r = -pthread_create(&s->thread, NULL, run, s);
	s->started = r == 0;
	if (r < 0) {
		admin_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void admin_store_set_config(struct admin_store *s, struct config *config)
{
	struct config *old;

	(void)pthread_mutex_lock(&s->lock);
	old = s->config;
	s->config = config_ref(config);
	(void)pthread_mutex_unlock(&s->lock);
	config_unref(old);
}

uint64_t admin_store_ask(struct admin_store *s)
{
	uint64_t number;

	(void)pthread_mutex_lock(&s->lock);
	number = ++s->wanted;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	return number;
}

uint64_t admin_store_read(struct admin_store *s)
{
	uint64_t number;

	(void)pthread_mutex_lock(&s->lock);
	number = s->read;
	(void)pthread_mutex_unlock(&s->lock);
	return number;
}

void admin_store_put(struct admin_store *s, struct admin_text *t, bool *ret_failed)
{
	(void)pthread_mutex_lock(&s->lock);
	*ret_failed = s->failed || !s->text;
	if (s->text && t->error == 0)
		t->error = buffer_append(&t->out, s->text, s->text_len);
	(void)pthread_mutex_unlock(&s->lock);
}

void admin_store_free(struct admin_store *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stopping = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	if (s->started)
		(void)pthread_join(s->thread, NULL);
	config_unref(s->config);
	free(s->path);
	free(s->text);
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}
