/* The loop: report what came back, take what is due, hand it out, wait for the next of either.
 *
 * Invariant: of a target at most one notification is out, and its slot says so until the writer has
 * been told what became of it. So a crash sends again what was not reported (receivers dedupe by
 * the notification's id), and nothing overtakes within a rule.
 */
#include "alerter.h"

#include "alert.h"
#include "alert_target.h"
#include "clock.h"
#include "config.h"
#include "log.h"
#include "writer.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#define LOOK_EVERY_MS 30000 /* even if nobody said that something is due */
#define RETRY_MS 1000 /* after the store failed */
#define GIVE_UP_MS (INT64_C(24) * 3600 * 1000)
#define LAST_MS 1000 /* when we end, for answers to what is on its way: it would be told again */
#define HOST_MAX 256

/* A notification on its way. Its thread fills in the result and sets is_done. */
struct alerter_slot {
	struct alerter *a;
	struct alert_parcel *parcel; /* NULL: free */
	struct config *config; /* the target is its */
	const struct notify_target *target;
	struct notify_result result;
	pthread_t thread;
	bool is_running, is_done; /* under the lock */
};

struct alerter {
	struct writer *writer;
	struct alert *alert;
	char instance[HOST_MAX];
	atomic_bool stop; /* nothing more is handed out */
	atomic_bool cut; /* nor waited for */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t wake;
	struct config *next_config;
	bool is_woken, task_done;
	int task_status;

	/* alerter thread only, but for what a slot says */
	struct config *config;
	struct alerter_slot slots[CONFIG_NOTIFY_MAX];
	int64_t due_ms; /* unix */
	struct log_limit complaint;
};

/* Asking the writer ------------------------------------------------------------ */

static void task_done(struct writer_task *task, int status)
{
	struct alerter *a = task->ctx;
	(void)pthread_mutex_lock(&a->lock);
	a->task_done = true;
	a->task_status = status;
	(void)pthread_cond_broadcast(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
}

/* Runs on the writer and waits for it: it never takes long, and is not stopped before us. */
static int ask(struct alerter *a, int (*run)(struct storage *s, void *ctx))
{
	struct writer_task task = { .run = run, .done = task_done, .ctx = a };
	a->task_done = false;
	int r = writer_submit_task(a->writer, &task);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&a->lock);
	while (!a->task_done)
		(void)pthread_cond_wait(&a->wake, &a->lock);
	r = a->task_status;
	(void)pthread_mutex_unlock(&a->lock);
	return r;
}

static struct alerter_slot *slot_of(struct alerter *a, const char *target)
{
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		if (a->slots[i].parcel && strcmp(a->slots[i].parcel->notice.target, target) == 0)
			return &a->slots[i];
	return NULL;
}

static struct alerter_slot *free_slot(struct alerter *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		if (!a->slots[i].parcel)
			return &a->slots[i];
	return NULL;
}

static int take_for(struct alerter *a, struct storage *s, const struct config_notify *notify,
		    struct storage_notice *notice, int64_t now_ms)
{
	struct alerter_slot *slot = free_slot(a);
	if (!notify->is_on || slot_of(a, notify->name) || !slot)
		return 0;
	int64_t due_ms;
	int r = storage_outbox_take(s, notify->name, now_ms, notice);
	if (r == 1) {
		r = alert_parcel_new(notice, a->config, a->instance, &slot->parcel);
		slot->target = &notify->target;
		return r;
	}
	if (r == 0)
		r = storage_outbox_due(s, notify->name, &due_ms);
	if (r == 0)
		a->due_ms = base_min_i64(a->due_ms, due_ms);
	return r;
}

/* On the writer thread; ours waits meanwhile. */
static int take(struct storage *s, void *ctx)
{
	struct alerter *a = ctx;
	CLEANUP_FREE struct storage_notice *notice = malloc(sizeof(*notice));
	int64_t now_ms = clock_unix_ms();
	int r = notice ? alert_seal(s, now_ms) : -ENOMEM;
	a->due_ms = INT64_MAX;
	for (size_t i = 0; r == 0 && i < a->config->n_notify; i++)
		r = take_for(a, s, &a->config->notify[i], notice, now_ms);
	return r;
}

static void forget_taken(struct alerter *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++) {
		if (a->slots[i].is_running)
			continue;
		alert_parcel_free(a->slots[i].parcel);
		a->slots[i].parcel = NULL;
	}
}

/* Sending ---------------------------------------------------------------------- */

static void *send_one(void *ctx)
{
	struct alerter_slot *slot = ctx;
	struct alerter *a = slot->a;
	alert_target_send(slot->target, &slot->parcel->message, &a->cut, &slot->result);
	(void)pthread_mutex_lock(&a->lock);
	slot->is_done = true;
	(void)pthread_cond_broadcast(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
	return NULL;
}

static void hand_out(struct alerter *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++) {
		struct alerter_slot *slot = &a->slots[i];
		if (!slot->parcel || slot->is_running)
			continue;
		slot->a = a;
		slot->config = config_ref(a->config);
		slot->is_done = false;
		slot->result = (struct notify_result) { .outcome = NOTIFY_TEMPORARY };
		slot->is_running = true;
		if (pthread_create(&slot->thread, NULL, send_one, slot) == 0)
			continue;
		slot->is_running = false;
		config_unref(slot->config);
		a->due_ms = clock_unix_ms() + RETRY_MS;
	}
	forget_taken(a); /* what found no thread: it is still in the outbox */
}

/* What came of it --------------------------------------------------------------- */

static struct storage_outbox_result judge(const struct alerter_slot *slot, int64_t now_ms)
{
	const struct storage_notice *n = &slot->parcel->notice;
	struct storage_outbox_result x = { n->id, n->target, STORAGE_SENT, now_ms, "" };
	uint32_t random = 0;
	if (slot->result.outcome == NOTIFY_SENT)
		return x;
	x.error = slot->result.reason;
	x.status = STORAGE_FAILED;
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	if (slot->result.outcome == NOTIFY_TEMPORARY && now_ms - n->since_ms < GIVE_UP_MS) {
		x.status = STORAGE_WAITING;
		x.at_ms += base_max_i64(alert_rule_backoff_ms(n->attempts, random),
					slot->result.retry_after_ms);
	}
	return x;
}

static void tell(struct alerter *a, const struct alerter_slot *slot,
		 const struct storage_outbox_result *x)
{
	const struct storage_notice *n = &slot->parcel->notice;
	alert_count_sending(a->alert, x->status);
	if (x->status == STORAGE_SENT)
		log_line(LOG_LEVEL_NOTICE, "notification sent", LOG_TEXT("target", n->target),
			 LOG_TEXT("rule", n->alert.rule), LOG_TEXT("id", n->notification_id),
			 LOG_NUM("attempt", n->attempts));
	else if (x->status == STORAGE_FAILED)
		log_line(LOG_LEVEL_ERROR,
			 "notification given up; e2b-hookctl alerts retry sends it again",
			 LOG_TEXT("target", n->target), LOG_TEXT("rule", n->alert.rule),
			 LOG_TEXT("id", n->notification_id), LOG_TEXT("error", x->error));
	else if (log_limit_allows(&a->complaint, NULL))
		log_line(LOG_LEVEL_WARNING, "notification not sent yet",
			 LOG_TEXT("target", n->target), LOG_TEXT("rule", n->alert.rule),
			 LOG_NUM("attempt", n->attempts), LOG_TEXT("error", x->error),
			 LOG_NUM("again_in_ms", x->at_ms - clock_unix_ms()));
}

static bool is_back(struct alerter *a, const struct alerter_slot *slot)
{
	(void)pthread_mutex_lock(&a->lock);
	bool back = slot->is_running && slot->is_done;
	(void)pthread_mutex_unlock(&a->lock);
	return back;
}

/* On the writer thread. */
static int report(struct storage *s, void *ctx)
{
	struct alerter *a = ctx;
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(a->slots); i++) {
		if (!is_back(a, &a->slots[i]))
			continue;
		const struct storage_outbox_result x = judge(&a->slots[i], clock_unix_ms());
		r = storage_outbox_report(s, &x);
	}
	return r;
}

static void free_slot_of(struct alerter_slot *slot)
{
	(void)pthread_join(slot->thread, NULL);
	alert_parcel_free(slot->parcel);
	slot->parcel = NULL;
	config_unref(slot->config);
	slot->is_running = false;
}

/* Not reported, it is sent again: what was cut by our own end is neither counted nor told. */
static int collect(struct alerter *a)
{
	bool back[ARRAY_SIZE(a->slots)], any = false;
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		any = (back[i] = is_back(a, &a->slots[i])) || any;
	if (!any)
		return 0;
	int r = ask(a, report);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++) {
		if (!back[i])
			continue;
		const struct storage_outbox_result x = judge(&a->slots[i], clock_unix_ms());
		tell(a, &a->slots[i], &x);
		free_slot_of(&a->slots[i]);
	}
	a->due_ms = 0; /* its target is free again */
	return 0;
}

/* The loop ---------------------------------------------------------------------- */

static bool has_news(struct alerter *a)
{
	bool news = a->is_woken || a->next_config || atomic_load(&a->stop);
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		news = news || (a->slots[i].is_running && a->slots[i].is_done);
	return news;
}

static struct timespec in_ms(int64_t ms)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
	until.tv_sec += ms / 1000 + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	return until;
}

/* Until something is due, or `pause_ms` after a failure. */
static void wait(struct alerter *a, int64_t pause_ms)
{
	int64_t ms = base_min_i64(a->due_ms - clock_unix_ms(), LOOK_EVERY_MS);
	ms = base_max_i64(ms, pause_ms);
	struct timespec until = in_ms(base_max_i64(ms, 0));
	(void)pthread_mutex_lock(&a->lock);
	while (ms > 0 && !(pause_ms ? atomic_load(&a->stop) : has_news(a)))
		if (pthread_cond_timedwait(&a->wake, &a->lock, &until) == ETIMEDOUT)
			break;
	if (a->is_woken || a->next_config)
		a->due_ms = 0;
	a->is_woken = false;
	if (a->next_config) {
		config_unref(a->config);
		a->config = a->next_config;
		a->next_config = NULL;
	}
	(void)pthread_mutex_unlock(&a->lock);
}

static int step(struct alerter *a)
{
	int r = collect(a);
	if (r < 0 || a->due_ms > clock_unix_ms() || atomic_load(&a->stop))
		return r;
	r = ask(a, take);
	if (r < 0)
		forget_taken(a);
	else
		hand_out(a);
	return r;
}

static void *run(void *ctx)
{
	struct alerter *a = ctx;
	while (!atomic_load(&a->stop)) {
		int r = step(a);
		if (r < 0) {
			a->due_ms = 0;
			if (log_limit_allows(&a->complaint, NULL))
				log_line(LOG_LEVEL_ERROR, "the outbox of alerts cannot be used",
					 LOG_TEXT("error", strerror(-r)));
		}
		wait(a, r < 0 ? RETRY_MS : 0);
	}
	return NULL;
}

static void wake_up(void *ctx)
{
	alerter_wake(ctx);
}

void alerter_wake(struct alerter *a)
{
	(void)pthread_mutex_lock(&a->lock);
	a->is_woken = true;
	(void)pthread_cond_broadcast(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
}

void alerter_set_config(struct alerter *a, const struct config *config)
{
	(void)pthread_mutex_lock(&a->lock);
	config_unref(a->next_config);
	a->next_config = config_ref((struct config *)config);
	(void)pthread_cond_broadcast(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
}

int alerter_new(struct writer *writer, const struct config *config, struct alerter **ret)
{
	struct alerter *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->writer = writer;
	a->alert = writer_alert(writer);
	a->config = config_ref((struct config *)config);
	a->complaint.burst = 10;
	if (gethostname(a->instance, sizeof(a->instance) - 1) < 0)
		(void)snprintf(a->instance, sizeof(a->instance), "localhost");
	(void)pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&a->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	int r = -pthread_create(&a->thread, NULL, run, a);
	a->started = r == 0;
	if (r < 0) {
		alerter_free(a);
		return r;
	}
	alert_set_waker(a->alert, wake_up, a);
	*ret = a;
	return 0;
}

static bool is_sending(const struct alerter *a)
{
	bool is = false;
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		is = is || (a->slots[i].is_running && !a->slots[i].is_done);
	return is;
}

static void wait_for_answers(struct alerter *a)
{
	struct timespec until = in_ms(LAST_MS);
	(void)pthread_mutex_lock(&a->lock);
	while (is_sending(a))
		if (pthread_cond_timedwait(&a->wake, &a->lock, &until) == ETIMEDOUT)
			break;
	(void)pthread_mutex_unlock(&a->lock);
	atomic_store(&a->cut, true);
}

/* The last reports are the writer's to hear: what was sent must not be sent again. */
static void finish_sending(struct alerter *a)
{
	wait_for_answers(a);
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++) {
		struct alerter_slot *slot = &a->slots[i];
		(void)pthread_mutex_lock(&a->lock);
		while (slot->is_running && !slot->is_done)
			(void)pthread_cond_wait(&a->wake, &a->lock);
		/* Cut short: nothing to report. */
		if (slot->is_running && slot->result.outcome != NOTIFY_SENT)
			slot->is_done = false;
		(void)pthread_mutex_unlock(&a->lock);
	}
	if (collect(a) < 0)
		log_say(LOG_LEVEL_WARNING, "what was sent last may be sent again");
	for (size_t i = 0; i < ARRAY_SIZE(a->slots); i++)
		if (a->slots[i].is_running)
			free_slot_of(&a->slots[i]);
}

void alerter_free(struct alerter *a)
{
	if (!a)
		return;
	alert_set_waker(a->alert, NULL, NULL);
	atomic_store(&a->stop, true);
	if (a->started) {
		alerter_wake(a);
		(void)pthread_join(a->thread, NULL);
		finish_sending(a);
	}
	config_unref(a->config);
	config_unref(a->next_config);
	(void)pthread_cond_destroy(&a->wake);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}
