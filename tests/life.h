/* The life of a store, in steps, with something that fails at the nth call: opened, deliveries,
 * the fold, alerts and their outbox, retention, a rebuild, checkpoints in between, the index of
 * event ids, a start after a crash, deliveries again.
 *
 * The writer's clock stands still but where a step moves it on: the same life makes the same calls.
 * After the step in which something failed the fault ends (if it stays), and the writer must find
 * back by itself. What holds then is life_judge()'s.
 */
#pragma once

#include "orders.h"

#include "admin_health.h"
#include "log.h"
#include "projector_internal.h"
#include "storage_alert.h"
#include "storage_sqlite_identity.h"

#include <dirent.h>
#include <fcntl.h>

#define LIFE_CONFIG                                                                                \
	"[store]\nretention = 1d\n[source e2b]\npath = /e2b\n"                                     \
	"[notify ops]\nkind = webhook\nurl = http://127.0.0.1:1/\n"                                \
	"[alert failed]\non = execution_failed\nnotify = ops\n"
#define LIFE_SEED 20261123
#define LIFE_BURST 5
#define LIFE_GATHERED 15 /* more than the writer waits for, with what is lost on the way */
#define LIFE_PART 3 /* events */
#define LIFE_ORDERS_MAX 100
#define LIFE_ROUNDS_MAX 60 /* of the writer, for a step to be done */
#define LIFE_BACK_MAX 20 /* of them, until all is well: each may write one part of a slice */
#define LIFE_FAULTS_MAX 16
#define LIFE_SAID_MAX 4000 /* of the log, when one fails */
#define LIFE_NEVER (INT64_C(1) << 40)
#define LIFE_LOG_LIMIT (64 * 4096) /* bytes: every few commits make a checkpoint */

/* What fails, and how. */
struct life_fault {
	const char *name;
	void (*begin)(const struct life_fault *fault, long n, bool stays);
	void (*end)(void);
	long (*failed)(void), (*calls)(void); /* since it began */
	void (*expose)(bool on); /* this thread's calls fail, too; NULL: always */
	unsigned int kinds; /* disk.h */
	int error;
};

struct life {
	const struct life_fault *fault;
	bool stays;
	struct world *world;
	struct writer *writer;
	struct config *config;
	struct orders orders;
	const char *step, *failed_in; /* NULL: nothing failed yet */
	long n_calls; /* while the fault was to come */
	int n_refused; /* starts and deliveries that failed */
	char said[STORAGE_ERROR_MAX]; /* by the store, when it refused the last delivery */
	bool was_set_aside; /* by a start that could not read it, again and again */
};

/* 0: the real one. */
static _Atomic int64_t life_clock_ms;
int64_t __real_clock_mono_ms(void);
int64_t __wrap_clock_mono_ms(void);

int64_t __wrap_clock_mono_ms(void)
{
	int64_t ms = atomic_load(&life_clock_ms);
	return ms ? ms : __real_clock_mono_ms();
}

/* Slices that were begun in memory, between batches. */
static atomic_long life_gathered;
int __real_projector_gather(struct projector *p, int64_t events_min, int64_t budget_us,
			    size_t events_max);
int __wrap_projector_gather(struct projector *p, int64_t events_min, int64_t budget_us,
			    size_t events_max);

int __wrap_projector_gather(struct projector *p, int64_t events_min, int64_t budget_us,
			    size_t events_max)
{
	int r = __real_projector_gather(p, events_min, budget_us, events_max);
	atomic_fetch_add(&life_gathered, p->n_taken > 0);
	return r;
}

/* Slices of a few events are written in parts, too. */
void __real_projector_set_part(struct projector *p, size_t events);
void __wrap_projector_set_part(struct projector *p, size_t events);

void __wrap_projector_set_part(struct projector *p, size_t events)
{
	__real_projector_set_part(p, LIFE_PART);
}

static void life_expose(const struct life *life, bool on)
{
	if (life->fault->expose)
		life->fault->expose(on);
}

static bool life_fails_now(const struct life *life)
{
	return life->fault->failed() > 0;
}

/* The writer's rounds --------------------------------------------------------- */

struct life_task {
	struct writer_task task;
	int (*run)(struct storage *s, void *ctx);
	void *ctx;
	atomic_bool is_running, may_end, is_done;
};

static int life_run_task(struct storage *s, void *ctx)
{
	struct life_task *t = ctx;
	int r = t->run ? t->run(s, t->ctx) : 0;
	atomic_store(&t->is_running, true);
	while (!atomic_load(&t->may_end)) {
		const struct timespec pause = { 0, 20000 };
		(void)nanosleep(&pause, NULL);
	}
	return r;
}

static void life_task_done(struct writer_task *task, int status)
{
	atomic_store(&((struct life_task *)(void *)task)->is_done, true);
}

static void life_wait(const atomic_bool *a, const atomic_bool *b)
{
	for (int i = 0; !atomic_load(a) && !atomic_load(b); i++) {
		const struct timespec pause = { 0, 20000 };
		(void)nanosleep(&pause, NULL);
		assert_true(i < 1500000);
	}
}

static void life_submit_task(struct life *life, struct life_task *t)
{
	t->task = (struct writer_task) { life_run_task, life_task_done, t, NULL };
	assert_int_equal(writer_submit_task(life->writer, &t->task), 0);
}

/* Moves the clock on and has the writer come round. */
static void life_round(struct life *life, int64_t ms)
{
	struct life_task t = { .may_end = true };
	struct writer_health health;
	int64_t now_ms = atomic_fetch_add(&life_clock_ms, ms) + ms;
	life_submit_task(life, &t);
	life_wait(&t.is_done, &t.is_done);
	for (int i = 0; writer_health(life->writer, &health), health.round_mono_ms < now_ms; i++) {
		const struct timespec pause = { 0, 20000 };
		(void)nanosleep(&pause, NULL);
		assert_true(i < 1500000);
	}
}

/* Steps ------------------------------------------------------------------------ */

/* Lends n as one batch, behind a task that holds the writer. */
static void life_lend(struct life *life, size_t n, bool all_shared)
{
	struct life_task gate = { .may_end = false };
	size_t first = life->orders.n;
	life_submit_task(life, &gate);
	life_wait(&gate.is_running, &gate.is_done);
	for (size_t i = 0; i < n; i++) {
		struct order *o = orders_add(&life->orders, all_shared || i % 2, true);
		o->writer = life->writer;
		assert_int_equal(writer_submit(life->writer, &o->job), 0);
	}
	atomic_store(&gate.may_end, true);
	life_wait(&gate.is_done, &gate.is_done);
	for (size_t i = first; i < life->orders.n; i++) {
		const struct order *o = &life->orders.items[i];
		assert_true(order_wait(&life->orders.items[i]));
		life->n_refused += o->job.status < 0;
		if (o->job.status == 0)
			continue;
		/* What the sender is told is 503, and readiness says why. */
		(void)snprintf(life->said, sizeof(life->said), "%s", storage_error(life->world->s));
		assert_true(storage_is_failure(o->job.status));
		assert_true(o->health_error < 0);
	}
}

/* What comes behind the first batch, which is folded at once, is applied in memory and written when
 * the time has come; one more batch is stored in between. */
static void life_deliver(struct life *life)
{
	life_lend(life, LIFE_BURST, false);
	life_lend(life, LIFE_GATHERED, true);
	life_lend(life, LIFE_BURST, false);
	life_round(life, 300);
}

static void life_fold(struct life *life)
{
	struct writer_health health;
	for (int i = 0; i < LIFE_ROUNDS_MAX; i++) {
		life_round(life, 300);
		writer_health(life->writer, &health);
		if (health.folded_seq == health.stored_seq || life_fails_now(life))
			return;
	}
	fail_msg("the ledger stands still");
}

static void life_tick(struct life *life)
{
	life_round(life, 1000);
	life_round(life, 1000);
}

/* As the alerter does: take, then report. */
static int life_send(struct storage *s, void *ctx)
{
	struct storage_notice notice;
	int64_t now_ms = clock_unix_ms() + 3600000;
	int r = alert_seal(s, now_ms);
	if (r == 0)
		r = storage_outbox_take(s, "ops", now_ms, &notice);
	if (r <= 0)
		return r;
	*(bool *)ctx = true;
	const struct storage_outbox_result result = { notice.id, notice.target, STORAGE_SENT,
						      now_ms, "" };
	return storage_outbox_report(s, &result);
}

static void life_outbox(struct life *life)
{
	bool more = true;
	for (int i = 0; i < 4 && more; i++) {
		struct life_task t = { .run = life_send, .ctx = &more, .may_end = true };
		more = false;
		life_submit_task(life, &t);
		life_wait(&t.is_done, &t.is_done);
	}
}

static void life_prune(struct life *life)
{
	struct writer_health health = { .pruning = true };
	writer_request_prune(life->writer);
	for (int i = 0; i < LIFE_ROUNDS_MAX && health.pruning && !life_fails_now(life); i++) {
		life_round(life, 300);
		writer_health(life->writer, &health);
	}
	assert_true(!health.pruning || life_fails_now(life));
}

static void life_rebuild(struct life *life)
{
	struct writer_health health = { .rebuilding = true };
	writer_request_rebuild(life->writer);
	for (int i = 0; i < LIFE_ROUNDS_MAX && health.rebuilding && !life_fails_now(life); i++) {
		life_round(life, 300);
		writer_health(life->writer, &health);
	}
	assert_true(!health.rebuilding || life_fails_now(life));
}

static void life_open(struct life *life)
{
	struct world *w = life->world;
	char error[STORAGE_ERROR_MAX] = "";
	life_expose(life, true);
	int r = storage_open(&w->options, &w->s, error);
	life_expose(life, false);
	life->was_set_aside |= r == 0 && *storage_aside(w->s);
	if (r == 0)
		return;
	life->n_refused++;
	assert_true(life_fails_now(life));
	assert_true(storage_is_failure(r) || r == -EMFILE);
	assert_true(strlen(error) > 0);
	life->fault->end();
	open_store(w);
}

static void life_start(struct life *life)
{
	const struct writer_options options = { 1000, life->config, true };
	struct writer *w = NULL;
	life_expose(life, true);
	int r = writer_new(life->world->s, &options, &w);
	if (r == 0)
		r = writer_start(w);
	life_expose(life, false);
	if (r < 0) {
		writer_free(w);
		w = NULL;
		life->n_refused++;
		assert_true(life_fails_now(life));
		assert_true(storage_is_failure(r));
		life->fault->end();
		assert_int_equal(writer_new(life->world->s, &options, &w), 0);
		assert_int_equal(writer_start(w), 0);
	}
	life->writer = w;
}

static void life_stop(struct life *life)
{
	life_expose(life, true);
	writer_stop(life->writer);
	writer_free(life->writer);
	life_expose(life, false);
	life->writer = NULL;
}

static void life_index(struct life *life)
{
	struct storage *s = life->world->s;
	int r = 0;
	life_expose(life, true);
	do
		r = storage_sqlite_identity_index(s);
	while (r == 0 && storage_wants_upkeep(s) && storage_sqlite_identity_wants_indexing(s));
	life_expose(life, false);
	assert_true(r == 0 || life_fails_now(life));
}

static void life_close(struct life *life)
{
	life_expose(life, true);
	storage_close(life->world->s);
	life_expose(life, false);
	life->world->s = NULL;
}

static void life_copy(const struct world *from, const struct world *to, const char *suffix)
{
	char path[128], command[1024];
	ssize_t n;
	(void)snprintf(path, sizeof(path), "%s%s", from->path, suffix);
	CLEANUP_CLOSE int in = open(path, O_RDONLY | O_CLOEXEC);
	(void)snprintf(path, sizeof(path), "%s%s", to->path, suffix);
	CLEANUP_CLOSE int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	assert_true(out >= 0);
	while ((n = in < 0 ? 0 : read(in, command, sizeof(command))) > 0)
		assert_int_equal(write(out, command, (size_t)n), n);
}

/* The process dies: the next one finds what the kernel has. */
static void life_crash(struct life *life)
{
	void *next;
	(void)begin_world(&next);
	struct world *dead = life->world, *w = next;
	w->options = dead->options;
	w->options.path = w->path;
	life_copy(dead, w, "");
	life_copy(dead, w, "-wal");
	life_close(life);
	next = dead;
	life->world = w;
	(void)nftw(dead->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(dead);
}

static const struct life_step {
	const char *name;
	void (*run)(struct life *life);
} life_steps[] = {
	{ "open", life_open },		{ "start", life_start },
	{ "deliveries", life_deliver }, { "fold", life_fold },
	{ "tick", life_tick },		{ "outbox", life_outbox },
	{ "deliveries", life_deliver }, { "retention", life_prune },
	{ "rebuild", life_rebuild },	{ "deliveries", life_deliver },
	{ "stop", life_stop },		{ "index", life_index },
	{ "crash", life_crash },	{ "open after it", life_open },
	{ "start", life_start },	{ "deliveries", life_deliver },
	{ "fold", life_fold },		{ "tick", life_tick },
	{ "stop", life_stop },		{ "close", life_close },
};

/* The fault has ended: without a delivery, and soon, all is well again. */
static void life_find_back(struct life *life)
{
	struct admin_health health;
	life->fault->end();
	if (!life->writer)
		return;
	for (int i = 0; i < LIFE_BACK_MAX; i++) {
		life_round(life, 1100);
		admin_health_read(life->writer, NULL, 1000, false, &health);
		if (admin_health_is_ready(&health) &&
		    health.writer.folded_seq == health.writer.stored_seq)
			return;
	}
	fail_msg("not ready after the fault, last error %d (%s), folded %lld of %lld",
		 health.writer.last_error, health.writer.last_error_text,
		 (long long)health.writer.folded_seq, (long long)health.writer.stored_seq);
}

static void life_run(struct life *life, long n)
{
	life->fault->begin(life->fault, n, life->stays);
	for (size_t i = 0; i < ARRAY_SIZE(life_steps); i++) {
		life->step = life_steps[i].name;
		life_steps[i].run(life);
		if (!life->failed_in && life_fails_now(life)) {
			life->failed_in = life->step;
			life_find_back(life);
		}
	}
	life->n_calls = life->fault->calls();
	life->fault->end();
}

static void life_init(struct life *life, const struct life_fault *fault, bool stays)
{
	void *world;
	(void)begin_world(&world);
	*life = (struct life) { .fault = fault, .stays = stays, .world = world };
	life->world->options.wal_limit = LIFE_LOG_LIMIT;
	life->world->options.quarantine_rows_max = 1 << 20;
	life->world->options.quarantine_bytes_max = 1 << 24;
	life->world->options.set_damaged_aside = true;
	life->config = load_config(LIFE_CONFIG);
	life->config->store.max_run_ms = 0;
	orders_init(&life->orders, LIFE_SEED, LIFE_ORDERS_MAX);
	atomic_store(&life_clock_ms, 1000000);
}

static void life_finish(struct life *life)
{
	void *world = life->world;
	(void)end_world(&world);
	config_unref(life->config);
	orders_finish(&life->orders);
	atomic_store(&life_clock_ms, 0);
}

/* A store that was opened again: what was acknowledged is there, and everything is in order. */
static void life_judge(struct life *life, struct world *w)
{
	/* Only what cannot be read, however often one tries, is set aside. */
	bool is_unreadable = life->stays && (life->fault->kinds & DISK_READS);
	assert_true(!life->was_set_aside || is_unreadable);
	if (life->was_set_aside)
		return;
	open_store(w);
	assert_int_equal(storage_count_aside(w->path), 0);
	int lost = orders_lost(&life->orders, w);
	if (lost)
		fail_msg("%d acknowledged deliveries are lost", lost);
	begin_ledger(w, LIFE_CONFIG);
	expect_ledger_as_rebuilt(w);
	orders_deliver_again(&life->orders, w);
}

/* Trials ------------------------------------------------------------------------ */

static struct life life; /* the one that runs: life_tell() looks at it */
static long life_n; /* 0: none */
static int life_stderr = -1;

/* Of a test that failed in one. */
static UNUSED int life_tell(void **state)
{
	if (life_stderr >= 0) {
		CLEANUP_FREE char *said = end_listening(life_stderr);
		size_t len = strlen(said); /* why it failed stands at the end of it */
		/* print_error() would cut it. */
		(void)fprintf(stderr, "%s\n",
			      said + (len > LIFE_SAID_MAX ? len - LIFE_SAID_MAX : 0));
	}
	life_stderr = -1;
	if (life_n)
		print_error("%s: call %ld fails %s; in step \"%s\", failed first in \"%s\"; %s\n",
			    life.fault->name, life_n, life.stays ? "and all after it" : "once",
			    life.step, life.failed_in ? life.failed_in : "none", life.said);
	if (life_n)
		life.fault->end();
	life_n = 0;
	return 0;
}

static int life_count_descriptors(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

struct life_sum {
	long length; /* calls of the last one */
	long lives, failed, refused, stored;
	long aside; /* lives whose store was set aside: what it held is not judged */
};

/* One life with the nth call failing, judged; false: it was over before. */
static bool life_try(const struct life_fault *fault, long n, bool stays, struct life_sum *sum)
{
	int descriptors = life_count_descriptors();
	life_n = n;
	atomic_store(&life_gathered, 0);
	life_init(&life, fault, stays);
	life_stderr = begin_listening();
	life_run(&life, n);
	free(end_listening(life_stderr));
	life_stderr = -1;
	life_judge(&life, life.world);
	bool has_failed = life.failed_in;
	assert_true(has_failed || atomic_load(&life_gathered) > 0);
	sum->length = life.n_calls;
	sum->lives++;
	sum->failed += has_failed;
	sum->refused += life.n_refused > 0;
	sum->aside += life.was_set_aside;
	for (size_t i = 0; i < life.orders.n && !life.was_set_aside; i++)
		sum->stored += order_was_acknowledged(&life.orders.items[i]);
	life_finish(&life);
	assert_int_equal(life_count_descriptors(), descriptors);
	life_n = 0;
	return has_failed;
}

struct life_plan {
	const char *only; /* a fault's name; NULL: any */
	uint64_t seed;
	long rounds; /* so many lives at random; 0: every nth call of every kind, once and staying
		      */
	long long_rounds; /* the same with HOOKD_LONG=1 */
	long every, from;
};

static void life_read_plan(struct life_plan *plan, int argc, char **argv)
{
	const char *is_long = getenv("HOOKD_LONG");
	plan->seed = (uint64_t)time(NULL);
	plan->every = plan->from = 1;
	if (is_long && strcmp(is_long, "1") == 0)
		plan->rounds = plan->long_rounds;
	for (int i = 1; i + 1 < argc; i += 2) {
		long n = strtol(argv[i + 1], NULL, 10);
		if (strcmp(argv[i], "--seed") == 0)
			plan->seed = (uint64_t)n;
		else if (strcmp(argv[i], "--rounds") == 0)
			plan->rounds = n;
		else if (strcmp(argv[i], "--every") == 0)
			plan->every = n;
		else if (strcmp(argv[i], "--from") == 0)
			plan->from = n;
		else if (strcmp(argv[i], "--only") == 0)
			plan->only = argv[i + 1];
	}
}

static void life_print(const struct life_sum *sum, const char *what, const char *how)
{
	print_message("%s, %s: %ld lives, something failed in %ld, a start or delivery was refused "
		      "in %ld, the store set aside in %ld; in the others %ld deliveries "
		      "acknowledged, 0 lost\n",
		      what, how, sum->lives, sum->failed, sum->refused, sum->aside, sum->stored);
}

static bool life_is_meant(const struct life_plan *plan, const struct life_fault *fault)
{
	return !plan->only || strcmp(plan->only, fault->name) == 0;
}

/* A life in which nothing fails tells how many calls there are. */
static void life_try_some(const struct life_plan *plan, const struct life_fault *faults, size_t n)
{
	struct life_sum sum = { 0 }, healthy[LIFE_FAULTS_MAX] = { 0 };
	uint64_t random = plan->seed;
	assert_in_range(n, 1, LIFE_FAULTS_MAX);
	for (long i = 0; i < plan->rounds;) {
		size_t which = (size_t)disk_below(&random, n);
		if (!life_is_meant(plan, &faults[which]))
			continue;
		i++;
		if (healthy[which].length == 0)
			assert_false(life_try(&faults[which], LIFE_NEVER, false, &healthy[which]));
		long at = 1 + (long)disk_below(&random, (uint64_t)healthy[which].length);
		(void)life_try(&faults[which], at, disk_below(&random, 2), &sum);
	}
	print_message("seed %llu, ", (unsigned long long)plan->seed);
	life_print(&sum, "calls at random", "once or until mended");
	assert_true(sum.failed > 0);
}

static void life_try_all(const struct life_plan *plan, const struct life_fault *faults, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++) {
		const struct life_fault *fault = &faults[i / 2];
		struct life_sum sum = { 0 };
		long at = plan->from;
		if (!life_is_meant(plan, fault))
			continue;
		while (life_try(fault, at, i % 2, &sum))
			at += plan->every;
		life_print(&sum, fault->name, i % 2 ? "until mended" : "once");
		assert_true(sum.failed > 0 || plan->from > 1);
	}
}

/* A name of none would go through nothing. */
static void life_check_plan(const struct life_plan *plan, const struct life_fault *faults, size_t n)
{
	bool is_any_meant = false;
	for (size_t i = 0; i < n; i++)
		is_any_meant = is_any_meant || life_is_meant(plan, &faults[i]);
	for (size_t i = 0; i < n && !is_any_meant; i++)
		print_error("--only may be: %s\n", faults[i].name);
	assert_true(is_any_meant);
}

static void life_go_through(const struct life_plan *plan, const struct life_fault *faults, size_t n)
{
	life_check_plan(plan, faults, n);
	if (plan->rounds)
		life_try_some(plan, faults, n);
	else
		life_try_all(plan, faults, n);
}
