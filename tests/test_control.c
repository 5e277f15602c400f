/* The control socket: who is served, what is understood, and that no client can hold up anything
 * but its own connection. The writer and the store behind it are real.
 */
#include "storage_fixture.h"
#include "control.h"
#include "writer.h"

#include "clock.h"
#include "json.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PLAIN "[source e2b]\npath = /e2b\n"
#define LONG_NAME                                                                                  \
	"a-directory-with-a-name-so-long-that-no-socket-address-holds-it-0123456789-0123456789-"   \
	"0123456789-0123456789-0123456789-0123456789"
#define NOBODY 65534

struct house {
	struct world *w;
	struct writer *writer;
	struct control *control;
};

static int open_house_with(struct house *h, struct world *w, const char *store_path,
			   int64_t patience_ms)
{
	char error[CONTROL_TEXT_MAX];
	*h = (struct house) { .w = w };
	w->config = load_config(PLAIN);
	w->config->store.retention_ms = 0;
	const struct writer_options writer_options = { 100, w->config };
	assert_int_equal(writer_new(w->s, &writer_options, &h->writer), 0);
	assert_int_equal(writer_start(h->writer), 0);
	const struct control_options options = {
		.store_path = store_path,
		.writer = h->writer,
		.config = w->config,
		.patience_ms = patience_ms,
	};
	int r = control_new(&options, &h->control, error);
	assert_int_equal(r < 0, error[0] != '\0');
	return r;
}

static void open_house(struct house *h, struct world *w)
{
	assert_int_equal(open_house_with(h, w, w->path, 60000), 0);
}

static void close_house(struct house *h)
{
	control_free(h->control);
	if (h->writer)
		writer_stop(h->writer);
	writer_free(h->writer);
	*h = (struct house) { 0 };
}

#define HOUSE CLEANUP(close_house) struct house

static int connect_raw(const struct world *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s.control", w->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Everything until the daemon closes. */
static void read_all(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;
	while (len < size - 1 && (n = recv(fd, buf + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	buf[len] = '\0';
}

static void expect_answer(const char *path, const char *request, int outcome, const char *answer)
{
	CLEANUP_FREE char *is = NULL;
	int r = control_call(path, request, NULL, NULL, &is);
	if (r != outcome || !is || !strstr(is, answer))
		fail_msg("%s: %d, %s", request, r, is ? is : "-");
}

/* Commands ------------------------------------------------------------------------------ */

static void free_doc(struct json_doc **doc)
{
	json_doc_free(*doc);
}

static void answers_status_as_json(void **state)
{
	struct world *w = *state;
	HOUSE h;
	(void)put_told(w, (struct told) { .id = "1",
					  .type = "sandbox.created",
					  .time = "2026-11-20T09:00:00Z",
					  .sandbox = "sb1" });
	open_house(&h, w);
	CLEANUP_FREE char *answer = NULL;
	assert_int_equal(control_call(w->path, "status", NULL, NULL, &answer), 0);
	CLEANUP(free_doc) struct json_doc *doc = NULL;
	assert_int_equal(json_parse(answer, strlen(answer), &doc), 0);
	static const char *const names[] = {
		"pid",	      "uptime_s",	"queued",	 "last_commit_age_ms",
		"stored_seq", "folded_seq",	"wal_bytes",	 "database_bytes",
		"free_bytes", "rebuilding",	"rebuild_seq",	 "rebuild_target_seq",
		"pruning",    "prune_waits",	"last_error",	 "version",
		"requeuing",  "rebuild_failed", "pruned_events",
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!json_member(json_root(doc), names[i]))
			fail_msg("no %s in %s", names[i], answer);
	int64_t stored;
	assert_true(json_integer(json_member(json_root(doc), "stored_seq"), &stored));
	assert_int_equal(stored, 1);
}

static void remember(void *ctx, const char *text)
{
	(void)snprintf(ctx, CONTROL_TEXT_MAX, "%s", text);
}

static void answers_when_the_rebuild_is_done(void **state)
{
	struct world *w = *state;
	HOUSE h;
	(void)put_told(w, (struct told) { .id = "1",
					  .type = "sandbox.created",
					  .time = "2026-11-20T09:00:00Z",
					  .sandbox = "sb1" });
	open_house(&h, w);
	int kept = begin_listening();
	char told[CONTROL_TEXT_MAX] = "";
	CLEANUP_FREE char *answer = NULL;
	int r = control_call(w->path, "rebuild", remember, told, &answer);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_int_equal(r, 0);
	assert_non_null(strstr(answer, "\"folded_seq\":1,"));
	assert_non_null(strstr(told, "folded "));
	assert_non_null(strstr(said, "command=rebuild"));
	assert_non_null(strstr(said, "the ledger was rebuilt"));
}

static void answers_when_it_has_pruned(void **state)
{
	HOUSE h;
	struct world *w = *state;
	open_house(&h, w);
	int kept = begin_listening();
	expect_answer(w->path, "prune", 0, "{\"pruned_events\":0,\"pruned_sandboxes\":0}");
	free(end_listening(kept));
}

static void requeues_by_the_configuration_of_now(void **state)
{
	struct world *w = *state;
	HOUSE h;
	PARCEL p;
	init_told(&p, (struct told) { .id = "1",
				      .type = "sandbox.created",
				      .time = "2026-11-20T09:00:00Z",
				      .sandbox = "sb1" });
	p.judged.verdict = INGEST_QUARANTINE;
	p.judged.reason = INGEST_REASON_BAD_ID;
	assert_int_equal(put(w, &p), STORAGE_QUARANTINED);
	open_house(&h, w);
	struct config *next = load_config(PLAIN "events = killed\n");
	control_set_config(h.control, next, "");
	config_unref(next);
	int kept = begin_listening();
	expect_answer(w->path, "requeue source=e2b what=quarantine", 0,
		      "{\"stored\":0,\"duplicate\":0,\"filtered\":1,\"quarantined\":0,");
	free(end_listening(kept));
	expect_rows(w, "SELECT count(*) FROM quarantine", "0");
}

static void refuses_with_a_sentence(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	expect_answer(w->path, "dance", CONTROL_REFUSED, "one of status, rebuild, prune, requeue");
	int kept = begin_listening();
	expect_answer(w->path, "requeue source=none", CONTROL_REFUSED, "no such source");
	free(end_listening(kept));
}

/* Clients ------------------------------------------------------------------------------- */

static void cuts_a_client_that_says_nothing(void **state)
{
	struct world *w = *state;
	HOUSE h;
	assert_int_equal(open_house_with(&h, w, w->path, 20), 0);
	char answer[64];
	CLEANUP_CLOSE UNUSED int fd = connect_raw(w);
	assert_int_equal(send(fd, "stat", 4, 0), 4); /* a word that never ends is as good as none */
	read_all(fd, answer, sizeof(answer));
	assert_string_equal(answer, "");
}

static void serves_others_while_one_says_nothing(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	CLEANUP_CLOSE UNUSED int silent = connect_raw(w);
	CLEANUP_CLOSE UNUSED int other = connect_raw(w);
	expect_answer(w->path, "status", 0, "\"queued\":0");
}

static void refuses_a_request_of_more_than_4_kib(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	char request[CONTROL_REQUEST_MAX], answer[256];
	memset(request, 'x', sizeof(request));
	CLEANUP_CLOSE UNUSED int fd = connect_raw(w);
	assert_int_equal(send(fd, request, sizeof(request), 0), sizeof(request));
	read_all(fd, answer, sizeof(answer));
	assert_string_equal(answer, "error a request has at most 4 KiB\n");
}

static void takes_a_request_in_pieces(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	char answer[256];
	CLEANUP_CLOSE UNUSED int fd = connect_raw(w);
	for (const char *p = "nothing\n"; *p; p++)
		assert_int_equal(send(fd, p, 1, 0), 1);
	read_all(fd, answer, sizeof(answer));
	assert_non_null(strstr(answer, "error unknown command"));
}

/* Its patience is a minute: it must not be waited for. */
static void does_not_wait_for_clients_at_the_end(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	CLEANUP_CLOSE UNUSED int fd = connect_raw(w);
	/* Once another is answered, this one is most likely being listened to. */
	expect_answer(w->path, "status", 0, "queued");
	int64_t begun_ms = clock_mono_ms();
	close_house(&h);
	assert_true(clock_mono_ms() - begun_ms < 30000);
}

/* Beyond the file's mode: asks the kernel who it is. */
static void serves_no_other_user(void **state)
{
	struct world *w = *state;
	HOUSE h;
	if (geteuid() != 0)
		skip(); /* only root can become somebody else */
	open_house(&h, w);
	char path[128];
	(void)snprintf(path, sizeof(path), "%s.control", w->path);
	assert_int_equal(chmod(w->dir, 0755), 0);
	assert_int_equal(chmod(path, 0666), 0);
	pid_t child = fork();
	if (child == 0) {
		char answer[256];
		if (setuid(NOBODY) != 0)
			_exit(2);
		int fd = connect_raw(w);
		(void)!send(fd, "status\n", 7, MSG_NOSIGNAL);
		read_all(fd, answer, sizeof(answer));
		_exit(strncmp(answer, "error only root", 15) == 0 ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* The socket ---------------------------------------------------------------------------- */

static void is_for_its_owner_alone(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	char path[128];
	struct stat st;
	(void)snprintf(path, sizeof(path), "%s.control", w->path);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	close_house(&h);
	assert_int_equal(lstat(path, &st), -1);
}

static void may_lie_deeper_than_an_address_can_say(void **state)
{
	struct world *w = *state;
	HOUSE h;
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/" LONG_NAME, w->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/" LONG_NAME "/" LONG_NAME ".db", w->dir);
	assert_int_equal(open_house_with(&h, w, path, 60000), 0);
	expect_answer(path, "status", 0, "queued");
}

static void replaces_a_stale_socket(void **state)
{
	struct world *w = *state;
	HOUSE h;
	open_house(&h, w);
	char path[128], away[128];
	(void)snprintf(path, sizeof(path), "%s.control", w->path);
	(void)snprintf(away, sizeof(away), "%s.away", w->path);
	assert_int_equal(rename(path, away), 0); /* so that its end does not remove it */
	control_free(h.control);
	h.control = NULL;
	assert_int_equal(rename(away, path), 0);
	CLEANUP_FREE char *answer = NULL;
	assert_int_equal(control_call(w->path, "status", NULL, NULL, &answer), CONTROL_NO_DAEMON);
	char error[CONTROL_TEXT_MAX];
	const struct control_options options = { w->path, h.writer, w->config, 0 };
	assert_int_equal(control_new(&options, &h.control, error), 0);
	expect_answer(w->path, "status", 0, "queued");
}

static void replaces_nothing_but_a_socket(void **state)
{
	struct world *w = *state;
	HOUSE h;
	char path[128];
	struct stat st;
	(void)snprintf(path, sizeof(path), "%s.control", w->path);
	CLEANUP_CLOSE UNUSED int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(open_house_with(&h, w, w->path, 0), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
}

static void removes_no_socket_of_another(void **state)
{
	struct world *w = *state;
	HOUSE h, other;
	open_house(&h, w);
	struct control *first = h.control;
	char error[CONTROL_TEXT_MAX];
	const struct control_options options = { w->path, h.writer, w->config, 0 };
	other = h;
	assert_int_equal(control_new(&options, &other.control, error), 0);
	control_free(first);
	h.control = other.control;
	other = (struct house) { 0 };
	expect_answer(w->path, "status", 0, "queued");
}

static void says_that_no_daemon_is_there(void **state)
{
	struct world *w = *state;
	CLEANUP_FREE char *answer = NULL;
	assert_int_equal(control_call(w->path, "status", NULL, NULL, &answer), CONTROL_NO_DAEMON);
	assert_null(answer);
}

/* Reading requests ---------------------------------------------------------------------- */

static void reads_what_to_requeue(void **state)
{
	static const struct {
		const char *line, *source;
		unsigned int what;
		enum ingest_reason reason;
	} cases[] = {
		{ "requeue", "", REQUEUE_ALL, INGEST_REASON_NONE },
		{ "  requeue   what=all ", "", REQUEUE_ALL, INGEST_REASON_NONE },
		{ "requeue what=rejections source=e2b", "e2b", REQUEUE_REJECTIONS,
		  INGEST_REASON_NONE },
		{ "requeue reason=id_reused what=quarantine", "", REQUEUE_QUARANTINE,
		  INGEST_REASON_ID_REUSED },
		{ "requeue what=skipped", "", REQUEUE_SKIPPED, INGEST_REASON_NONE },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct control_request request;
		char error[CONTROL_TEXT_MAX];
		assert_int_equal(
			control_parse(cases[i].line, strlen(cases[i].line), &request, error), 0);
		assert_int_equal(request.command, CONTROL_REQUEUE);
		assert_string_equal(request.source, cases[i].source);
		assert_int_equal(request.what, cases[i].what);
		assert_int_equal(request.reason, cases[i].reason);
	}
}

static void refuses_what_it_does_not_understand(void **state)
{
	static const char *const lines[] = {
		"",
		" ",
		"Status",
		"statu",
		"status now",
		"rebuild what=all",
		"requeue what",
		"requeue what=",
		"requeue what=everything",
		"requeue what=all what=all",
		"requeue reason=templates", /* filtered: nothing was kept */
		"requeue reason=signature",
		"requeue when=now",
		"requeue =",
		"requeue what=skipped reason=bad_id",
		"status\r",
		"status\t",
		"requeue source=\xc3\xa9",
		"requeue source=0123456789012345678901234567890123456789012345678901234567890123x",
	};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct control_request request;
		char error[CONTROL_TEXT_MAX];
		if (control_parse(lines[i], strlen(lines[i]), &request, error) !=
			    CONTROL_BAD_REQUEST ||
		    error[0] == '\0')
			fail_msg("accepted: %s", lines[i]);
	}
}

static void tells_which_reasons_there_are(void **state)
{
	static const char line[] = "requeue reason=nope";
	struct control_request request;
	char error[CONTROL_TEXT_MAX];
	assert_int_equal(control_parse(line, strlen(line), &request, error), CONTROL_BAD_REQUEST);
	for (int i = INGEST_REASON_NOT_ONE_OBJECT; i < INGEST_N_REASONS; i++)
		assert_non_null(strstr(error, ingest_reason_name((enum ingest_reason)i)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_status_as_json),
		TEST(answers_when_the_rebuild_is_done),
		TEST(answers_when_it_has_pruned),
		TEST(requeues_by_the_configuration_of_now),
		TEST(refuses_with_a_sentence),
		TEST(cuts_a_client_that_says_nothing),
		TEST(serves_others_while_one_says_nothing),
		TEST(refuses_a_request_of_more_than_4_kib),
		TEST(takes_a_request_in_pieces),
		TEST(does_not_wait_for_clients_at_the_end),
		TEST(serves_no_other_user),
		TEST(is_for_its_owner_alone),
		TEST(may_lie_deeper_than_an_address_can_say),
		TEST(replaces_a_stale_socket),
		TEST(replaces_nothing_but_a_socket),
		TEST(removes_no_socket_of_another),
		TEST(says_that_no_daemon_is_there),
		cmocka_unit_test(reads_what_to_requeue),
		cmocka_unit_test(refuses_what_it_does_not_understand),
		cmocka_unit_test(tells_which_reasons_there_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
