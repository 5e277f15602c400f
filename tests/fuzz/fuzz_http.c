/* One connection's conversation with the hook listener, in this thread: real sockets, real
 * libmicrohttpd, our loop, handler and deadlines; the writer and the clock are the input's. The
 * first byte says how the writer behaves. Then the bytes are sent as they are, but for 0xff, which
 * begins a command of two bytes: the rounds that happen between bytes, time that passes, a commit,
 * pieces that bytes alone would not find (a body that is signed, its signature).
 *
 * Every request that began gets one answer at most, and one exactly where the sender stayed and
 * time went on; no `stored`, `duplicate` or `quarantined` is answered that the writer did not say,
 * and no `filtered` that was not judged so; when all is over nothing is held any more.
 */
#include "fuzz_input.h"

#include "clock.h"
#include "hook_internal.h"
#include "httpd_internal.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECRET "hook-server-test-secret-0123456789"
#define HEARD_MAX 65536
#define COMMAND 0xff
#define CONFIG                                                                                     \
	"[server]\nlisten = unix:/nowhere\n[admin]\nlisten =\n[store]\npath = /nowhere\n"          \
	"queue_limit = 4\n"                                                                        \
	"[source e2b]\npath = /hook\nsecret_file = /nowhere\nmax_body = 4KiB\n"                    \
	"templates = !other\n"

static const char *const bodies[] = {
	"{\"id\":\"11111111-2222-4333-8444-555555555555\",\"version\":\"v2\","
	"\"type\":\"sandbox.lifecycle.created\",\"timestamp\":\"2026-11-01T10:00:00Z\","
	"\"sandbox_id\":\"isb1\",\"sandbox_template_id\":\"tpl-a\"}",
	"{\"id\":\"quarantined\"}",
	"{\"id\":\"f\",\"type\":\"sandbox.lifecycle.created\",\"timestamp\":\"2026-11-01T10:00:"
	"00Z\""
	",\"sandbox_id\":\"isb1\",\"sandbox_template_id\":\"other\"}",
	"{} and more",
};

enum mood { AT_ONCE, HOLD, REFUSE, FAIL, DUPLICATE, FULL, N_MOODS };

/* What the writer said, and what the sender heard of it. */
enum word { STORED, DUPLICATES, QUARANTINED, FILTERED, N_WORDS };

static struct {
	struct hook_server *server;
	struct httpd_loop *loop;
	struct config *config;
	struct httpd_handler handler; /* the server's own, behind ours */
	char signatures[ARRAY_SIZE(bodies)][SIGNATURE_TEXT_MAX];
	int listen_fd;
	struct sockaddr_un address;
	socklen_t address_len;
} world;

static int64_t now_ms;

static struct talk {
	int fd;
	enum mood mood;
	struct writer_job *held[8];
	size_t n_held;
	size_t said[N_WORDS];
	size_t n_begun, n_answers;
	bool left; /* the sender has ended its side */
	char heard[HEARD_MAX];
	size_t n_heard, n_read;
} talk;

int64_t __wrap_clock_mono_ms(void);

int64_t __wrap_clock_mono_ms(void)
{
	return now_ms;
}

/* --- the writer --- */

static void finish_job(struct writer_job *job)
{
	enum ingest_verdict verdict = job->delivery.judged->verdict;
	job->status = talk.mood == FAIL ? -ENOSPC : 0;
	job->reason = job->delivery.judged->reason;
	switch (verdict) {
	case INGEST_STORE:
		job->outcome = talk.mood == DUPLICATE ? STORAGE_DUPLICATE : STORAGE_STORED;
		break;
	case INGEST_QUARANTINE:
		job->outcome = talk.mood == FULL ? STORAGE_QUARANTINE_FULL : STORAGE_QUARANTINED;
		break;
	case INGEST_FILTERED:
		job->outcome = STORAGE_FILTERED;
		break;
	case INGEST_REJECT:
		job->outcome = STORAGE_REJECTED;
		break;
	}
	if (job->status == 0) {
		talk.said[STORED] += job->outcome == STORAGE_STORED;
		talk.said[DUPLICATES] += job->outcome == STORAGE_DUPLICATE;
		talk.said[QUARANTINED] += job->outcome == STORAGE_QUARANTINED;
	}
	job->done(job);
	if (job->waker)
		job->waker->wake(job->waker->ctx);
}

static void finish_held(void)
{
	for (size_t i = 0; i < talk.n_held; i++)
		finish_job(talk.held[i]);
	talk.n_held = 0;
}

static int submit(void *ctx, struct writer_job *job)
{
	(void)ctx;
	/* What filtered is, is judged; the writer only counts. */
	talk.said[FILTERED] += job->delivery.judged->verdict == INGEST_FILTERED;
	if (talk.mood == REFUSE)
		return -EAGAIN;
	if (talk.mood == HOLD && talk.n_held < ARRAY_SIZE(talk.held))
		talk.held[talk.n_held++] = job;
	else
		finish_job(job);
	return 0;
}

static void count_secret(void *ctx, const char *source, unsigned int position,
			 const char *fingerprint, int64_t now_unix_ms)
{
	(void)ctx;
	check(strcmp(source, "e2b") == 0 && position == 1 && strlen(fingerprint) == 8 &&
	      now_unix_ms > 0);
}

static int64_t horizon(void *ctx)
{
	(void)ctx;
	return 0;
}

/* --- the server --- */

static void on_begin(void *ctx, struct httpd_request *r)
{
	talk.n_begun++;
	world.handler.begin(ctx, r);
}

static void make_config(void)
{
	struct config_report report;
	check(config_load_text("fuzz.ini", CONFIG, strlen(CONFIG), CONFIG_SECRETS_IGNORED,
			       &world.config, &report) == 0);
	config_report_finish(&report);
	struct signature_keyring *keyring = NULL;
	check(signature_keyring_new(SIGNATURE_E2B, SECRET, strlen(SECRET), &keyring) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		const struct signature_input input = { .body = { bodies[i], strlen(bodies[i]) } };
		check(signature_sign(keyring, 1, &input, world.signatures[i]) == 0);
	}
	world.config->sources[0].policy.keyring = keyring;
}

/* A unix socket without a path: the kernel names it. */
static void listen_somewhere(struct listen_set *set)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	world.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	check(world.listen_fd >= 0);
	check(bind(world.listen_fd, (struct sockaddr *)&any, sizeof(any.sun_family)) == 0);
	check(listen(world.listen_fd, 16) == 0);
	world.address_len = sizeof(world.address);
	check(getsockname(world.listen_fd, (struct sockaddr *)&world.address, &world.address_len) ==
	      0);
	*set = (struct listen_set) { .n = 1 };
	set->items[0] = (struct listen_socket) { .fd = world.listen_fd, .is_unix = true };
}

static void make_world(void)
{
	struct listen_set set;
	now_ms = 1000000;
	log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
	make_config();
	listen_somewhere(&set);
	const struct hook_server_options options = {
		.config = world.config,
		.sink = { submit, count_secret, horizon, NULL },
		.n_loops = 1,
	};
	check(hook_server_new(&options, &set, &world.server) == 0);
	world.loop = httpd_loop_at(world.server->httpd, 0);
	world.handler = world.server->httpd->handler;
	world.server->httpd->handler.begin = on_begin;
}

/* --- the sender --- */

static size_t length_of_body(const char *head, const char *end)
{
	const char *length = memmem(head, (size_t)(end - head), "\r\nContent-Length: ", 18);
	return length ? strtoul(length + 18, NULL, 10) : 0;
}

static bool has(const char *body, size_t len, const char *word)
{
	return memmem(body, len, word, strlen(word)) != NULL;
}

static void check_answer(unsigned int status, const char *body, size_t len)
{
	static const char *const words[N_WORDS] = {
		"\"status\":\"stored\"",
		"\"status\":\"duplicate\"",
		"\"status\":\"quarantined\"",
		"\"status\":\"filtered\"",
	};
	check(status == 200 || (status >= 400 && status <= 599));
	bool is_known = status != 200 || (len == 2 && memcmp(body, "ok", 2) == 0) || len == 0;
	for (size_t i = 0; i < N_WORDS; i++) {
		if (!has(body, len, words[i]))
			continue;
		check(status == 200 && talk.said[i] > 0); /* not without the writer, nor twice */
		talk.said[i]--;
		is_known = true;
	}
	check(is_known);
	talk.n_answers++;
	/* libmicrohttpd refuses what it cannot read before it becomes a request, a length that it
	 * cannot take twice, and closes; and the deadline may pass while it does. */
	check(talk.n_answers <= talk.n_begun || status >= 400);
	check(talk.n_answers <= talk.n_begun + 3);
}

/* Takes whole answers off what was heard. A HEAD's answer has no body, only its length: that is
 * seen when another answer follows, or when it was the last. */
static void read_answers(bool is_all)
{
	for (;;) {
		const char *at = talk.heard + talk.n_read;
		size_t len = talk.n_heard - talk.n_read;
		const char *end = memmem(at, len, "\r\n\r\n", 4);
		if (!end)
			return;
		check(memcmp(at, "HTTP/1.", 7) == 0);
		unsigned int status = (unsigned int)strtoul(at + 9, NULL, 10);
		size_t head = (size_t)(end + 4 - at), body = length_of_body(at, end);
		bool is_bare = len >= head + 7 && memcmp(at + head, "HTTP/1.", 7) == 0;
		if (status == 100 || is_bare || (is_all && len == head))
			body = 0;
		if (len < head + body)
			return;
		talk.n_read += head + body;
		if (status != 100)
			check_answer(status, at + head, body);
	}
}

static void hear(void)
{
	ssize_t n;
	while ((n = recv(talk.fd, talk.heard + talk.n_heard, HEARD_MAX - 1 - talk.n_heard,
			 MSG_DONTWAIT)) > 0) {
		talk.n_heard += (size_t)n;
		talk.heard[talk.n_heard] = '\0';
		read_answers(false);
		memmove(talk.heard, talk.heard + talk.n_read, talk.n_heard - talk.n_read);
		talk.n_heard -= talk.n_read;
		talk.n_read = 0;
	}
}

static void come_round(unsigned int n)
{
	while (n-- > 0) {
		world.loop->hurry = true;
		httpd_loop_round(world.loop);
	}
	hear();
}

static void pass_time(int64_t ms)
{
	now_ms += ms;
	come_round(2);
}

/* What finds no room is lost: behind a commit that is held the server reads no further. */
static void say(const char *bytes, size_t len)
{
	for (int tries = 0; len > 0 && !talk.left && tries < 32; tries++) {
		ssize_t n = send(talk.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			return; /* the other side has closed: what follows is nobody's */
		if (n < 0)
			come_round(1);
		bytes += base_max_i64(n, 0);
		len -= (size_t)base_max_i64(n, 0);
	}
}

static void say_text(const char *text)
{
	say(text, strlen(text));
}

/* A whole delivery, signed. */
static void say_delivery(size_t which)
{
	char head[512];
	(void)snprintf(head, sizeof(head),
		       "POST /hook HTTP/1.1\r\nHost: h\r\ne2b-signature: %s\r\n"
		       "Content-Length: %zu\r\n\r\n",
		       world.signatures[which], strlen(bodies[which]));
	say_text(head);
	say_text(bodies[which]);
}

static void obey(uint8_t command)
{
	size_t which = command & 3;
	switch (command >> 2) {
	case 'D' >> 2: /* DEFG */
		say_delivery(which);
		break;
	case 'P' >> 2: /* PQRS */
		say_text(bodies[which]);
		break;
	case 'T' >> 2: /* TUVW */
		say_text(world.signatures[which]);
		break;
	case 'd' >> 2: /* d: the commit; e: the end of the sender's side */
		if (command == 'd')
			finish_held();
		else if (command == 'e' && !talk.left)
			talk.left = shutdown(talk.fd, SHUT_WR) == 0;
		come_round(1);
		break;
	case 't' >> 2: /* time: 0.2, 3, 6 and 30 s */
		pass_time((const int64_t[]) { 200, 3000, 6000, 30000 }[which]);
		break;
	default:
		come_round(1 + (command & 1));
		break;
	}
}

static void converse(struct fuzz_input *in)
{
	while (in->len > 0) {
		const uint8_t *command = memchr(in->at, COMMAND, in->len);
		size_t len = command ? (size_t)(command - in->at) : in->len;
		say((const char *)in->at, len);
		in->at += len;
		in->len -= len;
		if (command) {
			(void)fuzz_byte(in);
			obey(fuzz_byte(in));
		}
	}
	come_round(2);
}

static void dial(void)
{
	talk.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(talk.fd >= 0);
	check(connect(talk.fd, (struct sockaddr *)&world.address, world.address_len) == 0);
	come_round(1);
}

/* Until nothing happens any more: of pipelined requests a round takes one step of one. */
static void come_to_rest(void)
{
	size_t before;
	do {
		before = talk.n_begun + talk.n_answers;
		come_round(3);
	} while (talk.n_begun + talk.n_answers != before);
}

/* The sender stays until every deadline has passed: so every request has its answer. */
static void wait_for_answers(void)
{
	if (talk.mood == HOLD)
		talk.mood = AT_ONCE;
	finish_held();
	come_to_rest();
	pass_time(30000);
	come_to_rest();
	read_answers(true);
	talk.n_heard -= talk.n_read;
	if (!talk.left)
		check(talk.n_answers >= talk.n_begun);
	if (talk.n_answers > talk.n_begun)
		check(recv(talk.fd, talk.heard, 1, MSG_DONTWAIT) == 0);
	check(talk.n_heard == 0 || talk.left);
}

static void check_all_let_go(void)
{
	for (int i = 0; i < 16 && world.loop->n_conns > 0; i++) {
		now_ms += 3000;
		world.loop->hurry = true;
		httpd_loop_round(world.loop);
	}
	check(world.loop->n_conns == 0 && hook_server_connections(world.server) == 0);
	check(hook_server_waiting(world.server) == 0);
	check(hook_server_body_memory(world.server) == 0);
	check(atomic_load(&world.server->n_rejections) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	if (!world.server)
		make_world();
	talk.mood = (enum mood)(fuzz_byte(&in) % N_MOODS);
	talk.n_held = talk.n_begun = talk.n_answers = talk.n_heard = talk.n_read = 0;
	talk.left = false;
	memset(talk.said, 0, sizeof(talk.said));
	dial();
	converse(&in);
	wait_for_answers();
	(void)close(talk.fd);
	check_all_let_go();
	return 0;
}
