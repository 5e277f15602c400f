#include "admin_server.h"

#include "admin_internal.h"
#include "clock.h"
#include "hook_server.h"
#include "httpd.h"
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Routes by table. A page that needs the store is suspended, answered when the reading that it
 * asked for is done, or with the figures of before when that takes too long.
 *
 * The list of those that wait belongs to the loop's thread; the reader's thread only posts to it.
 */

#define CONNECTIONS_MAX 64
#define WAIT_MAX_MS 1500 /* for the store's figures: scrapers give up after 10 s, people sooner */
#define TEXT_TYPE "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define PROBLEM_TYPE "application/problem+json"

/* A request between begin and finish. */
struct visit {
	struct admin_server *server;
	struct httpd_request *request;
	const struct route *route; /* NULL: none of that path */
	bool is_method_wrong, is_denied;
	bool is_waiting;
	uint64_t reading;
	int64_t since_ms;
	struct visit *prev, *next;
};

struct admin_server {
	struct config_server limits; /* of this listener; its texts are first_config's */
	struct config *first_config;
	struct writer *writer;
	const struct hook_server *hooks;
	struct httpd *httpd;
	struct admin_store *store;
	atomic_bool stopping;

	pthread_mutex_t config_lock; /* guards the pointer */
	struct config *config;

	atomic_bool is_posted; /* `post` is on its way */
	struct httpd_post post;
	struct visit *waiting; /* loop's thread */
};

struct route {
	const char *path;
	bool is_open; /* without the token */
	void (*serve)(struct visit *v);
};

/* --- answers --- */

static void send_text(struct visit *v, unsigned int status, const char *type, const char *body,
		      size_t len)
{
	httpd_send(v->request, &(struct httpd_content) {
				       .status = status,
				       .type = type,
				       .body = body,
				       .len = len,
				       .headers = { { "Cache-Control", "no-store" } },
			       });
}

static void send_problem(struct visit *v, unsigned int status, const char *title,
			 const char *detail, const char *header, const char *value)
{
	char body[512];
	int len = snprintf(body, sizeof(body),
			   "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,"
			   "\"detail\":\"%s\"}\n",
			   title, status, detail);

	assert(len > 0 && (size_t)len < sizeof(body));
	httpd_send(v->request,
		   &(struct httpd_content) {
			   .status = status,
			   .type = PROBLEM_TYPE,
			   .body = body,
			   .len = (size_t)len,
			   .headers = { { "Cache-Control", "no-store" }, { header, value } },
		   });
}

static void send_failure(struct visit *v)
{
	send_problem(v, 500, "Internal Server Error", "The daemon is out of memory.", NULL, NULL);
}

/* --- pages --- */

static void read_health(const struct admin_server *s, struct admin_health *ret)
{
	admin_health_read(s->writer, s->hooks, (size_t)s->first_config->store.queue_limit,
			  atomic_load(&s->stopping), ret);
}

static void serve_alive(struct visit *v)
{
	send_text(v, 200, TEXT_TYPE, "ok\n", 3);
}

static void serve_ready(struct visit *v)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(4096);
	struct admin_health health;

	read_health(v->server, &health);
	if (admin_health_text(&health, &text) < 0)
		send_failure(v);
	else
		send_text(v, admin_health_is_ready(&health) ? 200 : 503, TEXT_TYPE, text.data,
			  text.len);
}

static void send_metrics(struct visit *v)
{
	struct admin_server *s = v->server;
	CLEANUP(admin_text_finish) struct admin_text text;
	struct admin_health health;
	bool failed = v->reading > admin_store_read(s->store), unread = false;

	admin_text_init(&text);
	read_health(s, &health);
	admin_metrics_put(&text, &health, s->hooks, s->first_config);
	admin_process_put(&text);
	admin_store_put(s->store, &text, &unread);
	admin_text_one(&text, "e2b_hookd_store_read_failed", ADMIN_GAUGE,
		       "1: figures from the store are older than this page, or missing.",
		       failed || unread, 0);
	if (text.error < 0)
		send_failure(v);
	else
		send_text(v, 200, METRICS_TYPE, text.out.data, text.out.len);
}

static void serve_metrics(struct visit *v)
{
	struct admin_server *s = v->server;

	v->is_waiting = true;
	v->since_ms = clock_mono_ms();
	v->prev = NULL;
	v->next = s->waiting;
	if (v->next)
		v->next->prev = v;
	s->waiting = v;
	httpd_suspend(v->request);
	v->reading = admin_store_ask(s->store);
}

static void end_waiting(struct visit *v)
{
	if (!v->is_waiting)
		return;
	v->is_waiting = false;
	*(v->prev ? &v->prev->next : &v->server->waiting) = v->next;
	if (v->next)
		v->next->prev = v->prev;
}

/* Answers all whose reading is done, or who waited long enough. */
static void answer_waiting(struct admin_server *s)
{
	uint64_t read;
	int64_t limit = clock_mono_ms() - WAIT_MAX_MS;

	if (!s->waiting) /* so it is once the loop has stopped, and then there is no store */
		return;
	read = admin_store_read(s->store);
	for (struct visit *v = s->waiting, *next; v; v = next) {
		next = v->next;
		if (v->reading > read && v->since_ms > limit)
			continue;
		end_waiting(v);
		send_metrics(v);
	}
}

static void come_back(struct httpd_post *post)
{
	struct admin_server *s =
		(struct admin_server *)(void *)((char *)post - offsetof(struct admin_server, post));

	/* Before looking: what is read from now on posts anew. */
	atomic_store(&s->is_posted, false);
	answer_waiting(s);
}

/* On the reader's thread. */
static void store_was_read(void *ctx)
{
	struct admin_server *s = ctx;
	struct httpd_loop *loop = httpd_loop_at(s->httpd, 0);

	if (atomic_exchange(&s->is_posted, true))
		return;
	s->post.run = come_back;
	httpd_post(loop, &s->post);
	httpd_wake(loop);
}

/* --- requests --- */

static const struct route routes[] = {
	{ "/healthz", true, serve_alive },
	{ "/livez", true, serve_alive },
	{ "/readyz", true, serve_ready },
	{ "/metrics", false, serve_metrics },
};

static const struct route *find_route(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (strcmp(routes[i].path, path) == 0)
			return &routes[i];
	}
	return NULL;
}

/* `Bearer TOKEN`, the scheme in any case (RFC 9110); compared in constant time. */
static bool has_token(struct httpd_request *r, const char *token)
{
	static const char scheme[] = "bearer ";
	const size_t len = sizeof(scheme) - 1;
	struct span given = httpd_header(r, "authorization");

	if (!given.s || given.len <= len || !screen_name_is((struct span) { given.s, len }, scheme))
		return false;
	given.s += len;
	given.len -= len;
	while (given.len > 0 && *given.s == ' ') {
		given.s++;
		given.len--;
	}
	return signature_equal(given, (struct span) { token, strlen(token) });
}

static bool is_allowed(struct admin_server *s, struct httpd_request *r)
{
	bool allowed;

	(void)pthread_mutex_lock(&s->config_lock);
	struct config *config = config_ref(s->config);
	(void)pthread_mutex_unlock(&s->config_lock);
	allowed = !config->admin.token || has_token(r, config->admin.token);
	config_unref(config);
	return allowed;
}

static void on_begin(void *ctx, struct httpd_request *r)
{
	static const char *const once[] = { "authorization" };
	static const struct httpd_answer wrong_method = { .kind = REPLY_METHOD_NOT_ALLOWED,
							  .allow = "GET, HEAD" };
	struct admin_server *s = ctx;
	struct visit *v;

	if (!httpd_screen(r, once, ARRAY_SIZE(once)))
		return;
	/* GET and HEAD carry no body, the screen sees to that: all others end here. */
	if (strcmp(httpd_method(r), "GET") != 0 && strcmp(httpd_method(r), "HEAD") != 0) {
		httpd_reply(r, &wrong_method);
		return;
	}
	v = calloc(1, sizeof(*v));
	if (!v) {
		httpd_reply(r, &(struct httpd_answer) { .kind = REPLY_UNAVAILABLE });
		return;
	}
	v->server = s;
	v->request = r;
	v->route = find_route(httpd_path(r));
	v->is_denied = !(v->route && v->route->is_open) && !is_allowed(s, r);
	httpd_set_data(r, v);
}

static void on_body(void *ctx, struct httpd_request *r, const char *bytes, size_t len)
{
	(void)ctx;
	(void)r;
	(void)bytes;
	(void)len;
}

/* Who has no token learns nothing, not even which paths there are. */
static void on_complete(void *ctx, struct httpd_request *r)
{
	struct visit *v = httpd_data(r);

	(void)ctx;
	if (v->is_denied)
		send_problem(v, 401, "Unauthorized", "This path wants the bearer token of [admin].",
			     "WWW-Authenticate", "Bearer realm=\"e2b-hookd\"");
	else if (!v->route)
		send_problem(v, 404, "Not Found",
			     "Served here: /healthz, /livez, /readyz, /metrics.", NULL, NULL);
	else
		v->route->serve(v);
}

static void on_finish(void *ctx, struct httpd_request *r, bool answered)
{
	struct visit *v = httpd_data(r);

	(void)ctx;
	(void)answered;
	end_waiting(v);
	free(v);
}

static void on_tick(void *ctx, struct httpd_loop *loop)
{
	(void)loop;
	answer_waiting(ctx);
}

/* --- lifecycle --- */

static int make(struct admin_server *s, struct listen_set *sockets)
{
	const struct httpd_options options = {
		.config = &s->limits,
		.n_loops = 1,
		.uncounted = true,
		.handler = { on_begin, on_body, on_complete, on_finish, on_tick, s },
	};
	int r = httpd_new(&options, sockets, &s->httpd);

	if (r == 0)
		r = admin_store_new(s->first_config->store.path, s->first_config, store_was_read, s,
				    &s->store);
	return r;
}

int admin_server_new(const struct admin_server_options *options, struct listen_set *sockets,
		     struct admin_server **ret)
{
	struct admin_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->first_config = config_ref(options->config);
	s->config = config_ref(options->config);
	s->limits = s->first_config->server;
	s->limits.max_connections = CONNECTIONS_MAX;
	s->limits.max_connections_per_ip = 0;
	s->writer = options->writer;
	s->hooks = options->hooks;
	(void)pthread_mutex_init(&s->config_lock, NULL);
	r = make(s, sockets);
	if (r < 0) {
		admin_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int admin_server_start(struct admin_server *s)
{
	return httpd_start(s->httpd);
}

void admin_server_set_config(struct admin_server *s, struct config *config)
{
	struct config *old;

	admin_store_set_config(s->store, config);
	(void)pthread_mutex_lock(&s->config_lock);
	old = s->config;
	s->config = config_ref(config);
	(void)pthread_mutex_unlock(&s->config_lock);
	config_unref(old);
}

void admin_server_begin_stop(struct admin_server *s)
{
	atomic_store(&s->stopping, true);
}

/* The loop asks the reader, the reader posts to the loop: one ends, then the other, then both go.
 */
void admin_server_free(struct admin_server *s)
{
	if (!s)
		return;
	if (s->httpd)
		httpd_stop(s->httpd);
	admin_store_free(s->store);
	httpd_free(s->httpd);
	config_unref(s->config);
	config_unref(s->first_config);
	(void)pthread_mutex_destroy(&s->config_lock);
	free(s);
}
