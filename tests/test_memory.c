/* Memory that runs out while a delivery is judged, a configuration read, a page of metrics made, a
 * client of the control socket served. What comes out is what comes out else, or an error; never
 * something else: a delivery is not refused, quarantined or cut because there was no memory for it.
 * Afterwards it works again.
 *
 * Every nth allocation is tried; of what the writer does for a client ever larger n.
 */
#include "storage_fixture.h"

#include "admin_internal.h"
#include "clock.h"
#include "control.h"
#include "memory.h"
#include "metrics.h"
#include "writer.h"

#include <dirent.h>

#define SECRET "test-signature-secret-0123456789"
#define DIFFERENT 1 /* of an act: it went well and is not what it should be */

static bool is_long;
static int kept_stderr = -1; /* while a test listens */
static char refused[CONTROL_TEXT_MAX]; /* what a client was told last */

static int end_quiet_world(void **state)
{
	if (kept_stderr >= 0)
		free(end_listening(kept_stderr));
	if (kept_stderr >= 0)
		print_error("the last client that was refused: %s\n", refused);
	kept_stderr = -1;
	memory_mend();
	return end_world(state);
}

/* What is done with the nth allocation failing: 0, a negative errno, or DIFFERENT. */
typedef int (*act_fn)(void *ctx);

static int act_failing(act_fn act, void *ctx, long n, bool stays, long *ret_failed)
{
	memory_break(n, stays);
	int r = act(ctx);
	*ret_failed = memory_failed();
	memory_mend();
	return r;
}

/* From n on to the next n: each, or each `growth` times the last. Returns how many failed. */
static long act_at_every_call(act_fn act, void *ctx, long growth)
{
	long n, failed, n_tried = 0;
	assert_int_equal(act(ctx), 0); /* what is made once for the process is made now */
	/* What takes the writer some rounds would wait for memory as long as there is none. */
	for (int stays = 0; stays < (growth > 1 ? 1 : 2); stays++) {
		failed = 1;
		for (n = 1; failed; n = growth > 1 ? n * growth : n + 1) {
			int r = act_failing(act, ctx, n, stays, &failed);
			n_tried += failed > 0;
			bool may_fail = failed && (r == -ENOMEM || r == -EIO);
			if (r != 0 && !may_fail)
				fail_msg("allocation %ld failing %s: %d", n,
					 stays ? "and all after it" : "once", r);
		}
	}
	assert_int_equal(act(ctx), 0);
	return n_tried;
}

/* As this thread does it, and nobody else's business. */
static long expose_at_every_call(act_fn act, void *ctx)
{
	memory_spare(false);
	long n = act_at_every_call(act, ctx, 1);
	memory_spare(true);
	return n;
}

/* Judging ---------------------------------------------------------------------- */

struct judging {
	struct ingest_policy policy;
	struct ingest_delivery delivery;
	struct ingest_result expected;
};

static bool same_span(struct span a, struct span b)
{
	return (!a.s && !b.s) || span_is(a, b);
}

static bool is_as_expected(const struct ingest_result *is, const struct ingest_result *expected)
{
	const struct event *a = &is->event, *b = &expected->event;
	if (is->verdict != expected->verdict || is->reason != expected->reason ||
	    is->has_event != expected->has_event || is->verified != expected->verified)
		return false;
	return !is->has_event ||
	       (strcmp(a->id, b->id) == 0 && a->kind == b->kind &&
		a->time_unix_ns == b->time_unix_ns && same_span(a->type, b->type) &&
		same_span(a->sandbox_id, b->sandbox_id) && same_span(a->run_id, b->run_id) &&
		same_span(a->template_id, b->template_id) && same_span(a->metadata, b->metadata));
}

static int judge(void *ctx)
{
	struct judging *j = ctx;
	CLEANUP(ingest_result_finish) struct ingest_result result = { 0 };
	int r = ingest_judge(&result, &j->policy, NULL, &j->delivery, 0);
	return r < 0 ? r : is_as_expected(&result, &j->expected) ? 0 : DIFFERENT;
}

static long judge_body(enum signature_scheme scheme, struct span body, bool is_forged)
{
	struct judging j = { 0 };
	char signature[SIGNATURE_TEXT_MAX];
	j.delivery.received_unix_ms = RECEIVED_MS;
	j.delivery.signed_part = (struct signature_input) {
		.id = SPAN_LITERAL("msg_1"),
		.timestamp = SPAN_LITERAL("1795194000"),
		.body = body,
		.now_unix_s = RECEIVED_MS / 1000,
	};
	assert_int_equal(signature_keyring_new(scheme, SECRET, strlen(SECRET), &j.policy.keyring),
			 0);
	assert_int_equal(signature_sign(j.policy.keyring, 1, &j.delivery.signed_part, signature),
			 0);
	if (is_forged)
		j.delivery.signed_part.body.len--;
	j.delivery.signed_part.signature = (struct span) { signature, strlen(signature) };
	assert_int_equal(ingest_judge(&j.expected, &j.policy, NULL, &j.delivery, 0), 0);
	assert_int_equal(j.expected.verdict == INGEST_REJECT, is_forged);
	long calls = expose_at_every_call(judge, &j);
	ingest_result_finish(&j.expected);
	signature_keyring_free(j.policy.keyring);
	return calls;
}

static void judges_right_or_not_at_all(void **state)
{
	static const char *const names[] = {
		"01-v2-created",	  "05-v2-updated-network-egress", "24-v2-unicode-metadata",
		"51-code-executed-error", "55-code-executed-with-cost",	  "31-camel-v2-killed",
	};
	static const char *const not_events[] = { "[]", "{\"id\":1}", "{\"id\":\"x\",\"id\":\"y\"}",
						  "{\"type\":\"sandbox.created\"}" };
	long calls = 0;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		PARCEL p;
		init_story(&p, names[i]);
		struct span body = { p.body, strlen(p.body) };
		calls += judge_body((enum signature_scheme)(i % 3), body, false);
		calls += judge_body((enum signature_scheme)(i % 3), body, true);
	}
	for (size_t i = 0; i < ARRAY_SIZE(not_events); i++)
		calls += judge_body(SIGNATURE_HMAC_SHA256,
				    (struct span) { not_events[i], strlen(not_events[i]) }, false);
	print_message("%ld times without memory\n", calls);
}

/* Configuration ------------------------------------------------------------------ */

#define CONFIG                                                                                     \
	"[server]\nlisten = 127.0.0.1:8787\nlisten = unix:/run/x\ntrusted_proxies = 10.0.0.0/8\n"  \
	"[store]\npath = /var/lib/x/events.db\nretention = 30d\n"                                  \
	"[source e2b]\npath = /e2b\nevents = created, !other\ntemplates = a*, base\n"              \
	"[source other]\npath = /other\nsignature = hmac-sha256\nheader = x-other\n"               \
	"[template tpl-a]\nalias = base\nvcpu = 2\nmemory_mb = 512\n"                              \
	"[template tpl-b]\nvcpu = 4\nmemory_mb = 1024\n"                                           \
	"[pricing]\nvcpu_second_usd = 0.000014\n"                                                  \
	"[pricing 2026-01-01]\ngib_second_usd = 0.0000045\nvcpu_second_usd = 0.00002\n"            \
	"[notify ops]\nkind = webhook\nurl = http://127.0.0.1:1/\n"                                \
	"[alert failed]\non = execution_failed\nnotify = ops\ntemplates = base\n"

struct reading {
	const char *text;
	size_t n_errors;
	struct config *known;
};

static int load(void *ctx)
{
	const struct reading *reading = ctx;
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	char changed[256];
	int r = config_load_text("test.ini", reading->text, strlen(reading->text),
				 CONFIG_SECRETS_IGNORED, &config, &report);
	if (r < 0)
		return r;
	if (r == CONFIG_BAD)
		return report.n_errors == reading->n_errors && report.n == report.n_errors
			       ? 0
			       : DIFFERENT;
	bool same = reading->n_errors == 0 && config->n_sources == 2 && config->n_alerts == 1 &&
		    config->n_notify == 1 && config_same_terms(config, reading->known) &&
		    config_template_by_alias(config, SPAN_LITERAL("base")) &&
		    config_restart_needed(reading->known, config, changed, sizeof(changed)) == 0;
	config_unref(config);
	return same ? 0 : DIFFERENT;
}

static void reads_a_configuration_whole_or_not_at_all(void **state)
{
	struct reading reading = { CONFIG, 0, load_config(CONFIG) };
	print_message("%ld times without memory\n", expose_at_every_call(load, &reading));
	config_unref(reading.known);
}

static void tells_mistakes_of_a_configuration_and_none_of_its_own(void **state)
{
	struct reading reading = {
		"[server]\nlistn = 1\n[store]\nretention = x\n[source a]\npath = /a\n"
		"[source b]\npath = /a\n[alert x]\non = nothing\n[nonsense]\n",
		0, NULL
	};
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	assert_int_equal(config_load_text("test.ini", reading.text, strlen(reading.text),
					  CONFIG_SECRETS_IGNORED, &config, &report),
			 CONFIG_BAD);
	reading.n_errors = report.n_errors;
	assert_true(reading.n_errors >= 5);
	print_message("%ld times without memory\n", expose_at_every_call(load, &reading));
}

/* A secret that could not be read for want of memory is no empty one. */
static int load_secret(void *ctx)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	int r = config_load_text("test.ini", ctx, strlen(ctx), CONFIG_SECRETS_REQUIRED, &config,
				 &report);
	if (r != 0)
		return r < 0 ? r : DIFFERENT;
	const struct config_source *source = config_source_by_name(config, "e2b");
	bool same = source->policy.keyring && signature_keyring_count(source->policy.keyring) == 2;
	config_unref(config);
	return same ? 0 : DIFFERENT;
}

static void reads_secrets_or_says_that_it_could_not(void **state)
{
	const struct world *w = *state;
	char path[128], text[512];
	(void)snprintf(path, sizeof(path), "%s/secret", w->dir);
	CLEANUP_FILE FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(SECRET "\nanother-secret-of-the-source-0123456789\n", f) > 0);
	assert_int_equal(fflush(f), 0);
	assert_int_equal(fchmod(fileno(f), 0600), 0);
	(void)snprintf(text, sizeof(text),
		       "[store]\npath = %s\n[source e2b]\npath = /e2b\n"
		       "secret_file = %s\n",
		       w->path, path);
	print_message("%ld times without memory\n", expose_at_every_call(load_secret, text));
}

/* Metrics ---------------------------------------------------------------------- */

struct page {
	struct admin_health health;
	struct config *config;
	size_t lines; /* 0: not known yet */
};

static size_t count_lines(const struct buffer *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->len; i++)
		n += b->data[i] == '\n';
	return n;
}

static int write_page(void *ctx)
{
	struct page *page = ctx;
	struct admin_text t;
	admin_text_init(&t);
	admin_metrics_put(&t, &page->health, NULL, page->config);
	if (t.error == 0)
		t.error = admin_health_text(&page->health, &t.out);
	size_t lines = t.error == 0 ? count_lines(&t.out) : 0;
	if (page->lines == 0)
		page->lines = lines;
	int r = t.error < 0 ? t.error : lines == page->lines ? 0 : DIFFERENT;
	admin_text_finish(&t);
	return r;
}

static void writes_a_page_of_metrics_whole_or_not_at_all(void **state)
{
	struct page page = { .config = load_config(CONFIG), .health = { .stopping = true } };
	(void)metrics_source("e2b");
	print_message("%ld times without memory\n", expose_at_every_call(write_page, &page));
	assert_true(page.lines > 50);
	config_unref(page.config);
}

/* The store ---------------------------------------------------------------------- */

/* The statement that rolls back is made when it is first needed. */
static void begins_again_after_a_rollback_without_memory(void **state)
{
	struct world *w = *state;
	assert_int_equal(storage_begin(w->s, true), 0);
	memory_spare(false);
	memory_break(1, true);
	storage_rollback(w->s);
	memory_mend();
	memory_spare(true);
	assert_true(memory_failed() > 0);
	put_story(w, "01-v2-created");
	expect_rows(w, "SELECT count(*) FROM events", "1");
}

/* The control socket -------------------------------------------------------------- */

struct client {
	const struct world *w;
	struct writer *writer;
	const char *request;
};

/* What an earlier client asked for goes on when there is memory again. */
static void wait_for_rest(struct writer *w)
{
	struct writer_health health;
	int64_t until_ms = clock_mono_ms() + 20000;
	for (;;) {
		writer_health(w, &health);
		if (!health.rebuilding && !health.pruning)
			return;
		assert_true(clock_mono_ms() < until_ms);
		(void)usleep(1000);
	}
}

/* The threads that serve, and the writer's, run out of memory; the client does not. */
static int ask(void *ctx)
{
	const struct client *client = ctx;
	CLEANUP_FREE char *answer = NULL;
	wait_for_rest(client->writer);
	int r = control_call(client->w->path, client->request, NULL, NULL, &answer);
	if (r != 0)
		(void)snprintf(refused, sizeof(refused), "%s: %d %s", client->request, r,
			       answer ? answer : "");
	if (r == CONTROL_REFUSED && answer && *answer)
		return -ENOMEM;
	if (r == -ECONNRESET || r == -EPROTO)
		return -ENOMEM;
	return r == 0 && answer && *answer == '{' ? 0 : DIFFERENT;
}

static void serves_clients_or_tells_them_why_not(void **state)
{
	static const char *const requests[] = { "status", "rebuild", "prune", "requeue",
						"alert-test name=ops" };
	struct world *w = *state;
	struct writer *writer = NULL;
	struct control *control = NULL;
	char error[CONTROL_TEXT_MAX];
	w->config = load_config(CONFIG);
	put_story(w, "01-v2-created");
	const struct writer_options options = { 100, w->config };
	assert_int_equal(writer_new(w->s, &options, &writer), 0);
	assert_int_equal(writer_start(writer), 0);
	const struct control_options control_options = { .store_path = w->path,
							 .writer = writer,
							 .config = w->config };
	assert_int_equal(control_new(&control_options, &control, error), 0);
	long calls = 0;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct client client = { w, writer, requests[i] };
		kept_stderr = begin_listening();
		calls += act_at_every_call(ask, &client, i == 0 ? 1 : is_long ? 2 : 64);
		free(end_listening(kept_stderr));
		kept_stderr = -1;
	}
	control_free(control);
	writer_stop(writer);
	writer_free(writer);
	print_message("%ld times without memory\n", calls);
	expect_rows(w, "SELECT stored_seq, folded_seq, skipped FROM ledger_state", "1|1|0");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_quiet_world)

int main(void)
{
	const char *word = getenv("HOOKD_LONG");
	is_long = word && strcmp(word, "1") == 0;
	memory_install();
	memory_spare(true); /* the test's own */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_right_or_not_at_all),
		cmocka_unit_test(reads_a_configuration_whole_or_not_at_all),
		cmocka_unit_test(tells_mistakes_of_a_configuration_and_none_of_its_own),
		TEST(reads_secrets_or_says_that_it_could_not),
		cmocka_unit_test(writes_a_page_of_metrics_whole_or_not_at_all),
		TEST(begins_again_after_a_rollback_without_memory),
		TEST(serves_clients_or_tells_them_why_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
