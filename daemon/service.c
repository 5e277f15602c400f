#include "service.h"

#include "admin_server.h"
#include "alerter.h"
#include "check.h"
#include "clock.h"
#include "config.h"
#include "control.h"
#include "exit_code.h"
#include "hook_server.h"
#include "listen.h"
#include "log.h"
#include "metrics.h"
#include "service_watch.h"
#include "storage.h"
#include "writer.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

/* Intake begins when everything behind it stands, and ends before anything behind it falls: an
 * acknowledged delivery has always met a whole daemon.
 */

#define SIDE_ROWS_MAX 10000
#define SIDE_BYTES_MAX (INT64_C(64) * 1024 * 1024)
#define REJECTION_AGE_MAX_MS (INT64_C(30) * 24 * 3600 * 1000)
#define TICK_MS 1000 /* so soon it is seen that a new start is needed */
#define SPARE_FDS 256 /* beside connections: those of [admin], store, epoll, stderr, libraries */

struct service {
	struct config *config; /* as of the last good load */
	struct config *running; /* what the parts that need a restart were started with */
	struct storage *storage;
	struct writer *writer;
	struct alerter *alerter; /* NULL: its thread could not be made */
	struct hook_server *hooks;
	struct admin_server *admin; /* NULL: off */
	struct control *control; /* NULL: the socket could not be made */
	struct service_watch watch;
	bool stopping, wants_end;
	int64_t drain_since_ms;
};

/* --- configuration --- */

static void log_report(const char *path, const struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		const struct config_problem *p = &report->items[i];
		enum log_level level = p->is_error ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING;

		if (p->line > 0)
			log_say(level, "%s:%u: %s", path, p->line, p->text);
		else
			log_say(level, "%s: %s", path, p->text);
	}
}

/* What is said of a configuration is said in the form that it asks for, where it is whole. */
static int load(const char *path, struct config **ret)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	int r = config_load(path, CONFIG_SECRETS_REQUIRED, ret, &report);

	if (r == 0)
		log_configure((*ret)->log_level, (*ret)->log_format);
	log_report(path, &report);
	if (r < 0) {
		log_say(LOG_LEVEL_ERROR, "out of memory");
		return EX_OSERR;
	}
	return r == 0 ? 0 : EX_CONFIG;
}

static void read_health(const struct service *s, struct admin_health *ret)
{
	admin_health_read(s->writer, s->hooks, (size_t)s->running->store.queue_limit, s->stopping,
			  ret);
}

static void take_over(struct service *s, struct config *next)
{
	char names[CONTROL_TEXT_MAX] = "";
	size_t n = config_restart_needed(s->running, next, names, sizeof(names));

	metrics_set(METRICS_RESTART_NEEDED, (int64_t)n);
	if (n > 0)
		log_line(LOG_LEVEL_WARNING, "a changed setting needs a restart",
			 LOG_TEXT("settings", names));
	hook_server_set_config(s->hooks, next);
	writer_set_config(s->writer, next);
	if (s->admin)
		admin_server_set_config(s->admin, next);
	if (s->alerter)
		alerter_set_config(s->alerter, next);
	if (s->control)
		control_set_config(s->control, next, names);
	config_unref(s->config);
	s->config = next;
	metrics_set(METRICS_CONFIG_LOADED_MS, clock_unix_ms());
	log_line(LOG_LEVEL_NOTICE, "reloaded", LOG_TEXT("config", next->path),
		 LOG_NUM("sources", next->n_sources));
}

void service_reload(struct service *s)
{
	struct admin_health health;
	struct config *next = NULL;
	bool refused;

	service_watch_reloading(&s->watch);
	refused = load(s->config->path, &next) != 0;
	metrics_set(METRICS_RELOAD_FAILED, refused);
	if (refused)
		log_say(LOG_LEVEL_ERROR, "reload refused: the configuration stays as it was");
	else
		take_over(s, next);
	read_health(s, &health);
	service_watch_ready(&s->watch, &health);
}

/* --- up --- */

static void raise_fd_limit(const struct config *config)
{
	rlim_t wanted = (rlim_t)config->server.max_connections + SPARE_FDS;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= wanted)
		return;
	log_line(LOG_LEVEL_WARNING,
		 "too few file descriptors for max_connections; raise LimitNOFILE or lower "
		 "max_connections",
		 LOG_NUM("limit", limit.rlim_cur), LOG_NUM("wanted", wanted));
}

static void tell_aside(const struct service *s)
{
	const char *aside = storage_aside(s->storage);
	int64_t n = storage_count_aside(s->config->store.path);

	metrics_set(METRICS_CORRUPT_STORES, n);
	if (*aside)
		log_line(LOG_LEVEL_ERROR,
			 "THE STORE WAS DAMAGED: it was set aside and an empty one begun; put a "
			 "backup in its place with e2b-hookctl restore",
			 LOG_TEXT("aside", aside), LOG_TEXT("found", storage_error(s->storage)));
	else if (n > 0)
		log_line(LOG_LEVEL_WARNING,
			 "damaged stores lie beside this one: look into them, then move them away",
			 LOG_NUM("stores", n), LOG_TEXT("store", s->config->store.path));
}

static int open_store(struct service *s)
{
	const struct config_store *store = &s->config->store;
	const struct storage_options options = {
		.path = store->path,
		.wal_limit = store->wal_limit,
		.quarantine_rows_max = SIDE_ROWS_MAX,
		.quarantine_bytes_max = SIDE_BYTES_MAX,
		.rejection_rows_max = SIDE_ROWS_MAX,
		.rejection_bytes_max = SIDE_BYTES_MAX,
		.rejection_age_max_ms = REJECTION_AGE_MAX_MS,
		.set_damaged_aside = store->set_damaged_aside,
	};
	char error[STORAGE_ERROR_MAX] = "";
	int r = storage_open(&options, &s->storage, error);

	if (r == 0) {
		tell_aside(s);
		return 0;
	}
	log_line(LOG_LEVEL_ERROR, error[0] ? error : strerror(-r), LOG_TEXT("store", store->path));
	return exit_code_of_store(r);
}

static int start_writer(struct service *s)
{
	const struct writer_options options = {
		.queue_limit = (size_t)s->config->store.queue_limit,
		.config = s->config,
		.ends_when_damaged = s->config->store.set_damaged_aside,
	};
	int r = writer_new(s->storage, &options, &s->writer);

	if (r == 0 && (r = writer_start(s->writer)) != 0) {
		writer_free(s->writer);
		s->writer = NULL;
	}
	if (r == 0)
		return 0;
	log_line(LOG_LEVEL_ERROR, "the writer does not start", LOG_TEXT("error", strerror(-r)));
	return EX_OSERR;
}

/* `name`: what systemd calls the sockets of this purpose, and the log. */
static int open_listeners(const struct config_server *server, const char *name,
			  const struct config_listen *listen, size_t n, struct listen_set *set)
{
	const struct listen_options options = {
		.unix_mode = server->unix_mode,
		.unix_group = server->unix_group,
		.fd_name = name,
	};
	char error[LISTEN_ERROR_MAX] = "";

	for (size_t i = 0; i < n; i++) {
		int r = listen_open(set, &listen[i], &options, error);

		if (r != 0) {
			log_say(LOG_LEVEL_ERROR, "%s", error);
			return exit_code_of_listener(r);
		}
	}
	return 0;
}

/* What was opened, told once it is served: the server takes the set over. */
struct told {
	char texts[LISTEN_SOCKETS_MAX][LISTEN_TEXT_MAX];
	size_t n;
};

static void remember(struct told *told, const struct listen_set *set)
{
	told->n = set->n;
	for (size_t i = 0; i < set->n; i++)
		memcpy(told->texts[i], set->items[i].text, LISTEN_TEXT_MAX);
}

static void tell_listening(const struct told *told, const char *name)
{
	for (size_t i = 0; i < told->n; i++)
		log_line(LOG_LEVEL_NOTICE, "listening", LOG_TEXT("address", told->texts[i]),
			 LOG_TEXT("for", name));
}

static int start_hooks(struct service *s)
{
	CLEANUP(listen_finish) struct listen_set set = { 0 };
	struct hook_server_options options = {
		.config = s->config,
		.sink = hook_server_sink_of(s->writer),
	};
	const struct config_server *server = &s->config->server;
	struct told told;
	int r = open_listeners(server, "hook", server->listen, server->n_listen, &set);

	if (r != 0)
		return r;
	remember(&told, &set);
	r = hook_server_new(&options, &set, &s->hooks);
	if (r == 0)
		r = hook_server_start(s->hooks);
	if (r != 0) {
		log_line(LOG_LEVEL_ERROR, "the hook listener does not start",
			 LOG_TEXT("error", strerror(-r)));
		return EX_OSERR;
	}
	tell_listening(&told, "hook");
	return 0;
}

static int start_admin(struct service *s)
{
	CLEANUP(listen_finish) struct listen_set set = { 0 };
	const struct admin_server_options options = {
		.config = s->config,
		.writer = s->writer,
		.hooks = s->hooks,
	};
	struct told told;
	int r;

	if (!s->config->admin.enabled)
		return 0;
	r = open_listeners(&s->config->server, "admin", &s->config->admin.listen, 1, &set);
	if (r != 0)
		return r;
	remember(&told, &set);
	r = admin_server_new(&options, &set, &s->admin);
	if (r == 0)
		r = admin_server_start(s->admin);
	if (r != 0) {
		log_line(LOG_LEVEL_ERROR, "the admin listener does not start",
			 LOG_TEXT("error", strerror(-r)));
		return EX_OSERR;
	}
	tell_listening(&told, "admin");
	return 0;
}

/* Intake does without it: a tool that cannot reach the daemon is no reason to refuse deliveries. */
static void start_control(struct service *s)
{
	const struct control_options options = {
		.store_path = s->config->store.path,
		.writer = s->writer,
		.config = s->config,
		.hooks = s->hooks,
	};
	char error[CONTROL_TEXT_MAX] = "";

	if (control_new(&options, &s->control, error) != 0)
		log_line(LOG_LEVEL_ERROR,
			 "no control socket: rebuild, prune and requeue cannot reach this daemon",
			 LOG_TEXT("error", error));
}

/* Alerts wait in the outbox then, and are seen in the views. */
static void start_alerter(struct service *s)
{
	int r = alerter_new(s->writer, s->config, &s->alerter);
	if (r < 0)
		log_line(LOG_LEVEL_ERROR, "no alerts are sent: their thread does not start",
			 LOG_TEXT("error", strerror(-r)));
}

static void log_sources(const struct config *config)
{
	for (size_t i = 0; i < config->n_sources; i++)
		log_line(LOG_LEVEL_NOTICE, "source", LOG_TEXT("name", config->sources[i].name),
			 LOG_TEXT("path", config->sources[i].path),
			 LOG_TEXT("signature", signature_scheme_name(config->sources[i].scheme)));
}

static void tell_ready(struct service *s)
{
	struct admin_health health;

	read_health(s, &health);
	service_watch_begin(&s->watch, s->writer);
	service_watch_ready(&s->watch, &health);
	log_line(LOG_LEVEL_NOTICE, "ready", LOG_TEXT("version", HOOKD_VERSION),
		 LOG_TEXT("config", s->config->path), LOG_TEXT("store", s->config->store.path),
		 LOG_NUM("sources", s->config->n_sources));
}

static int bring_up(struct service *s, const char *config_path)
{
	int r = load(config_path, &s->config);

	if (r != 0)
		return r;
	s->running = config_ref(s->config);
	metrics_set(METRICS_CONFIG_LOADED_MS, clock_unix_ms());
	raise_fd_limit(s->config);
	/* The admin listener before the hook listener would report on what is not there yet. */
	if ((r = open_store(s)) != 0 || (r = start_writer(s)) != 0 || (r = start_hooks(s)) != 0 ||
	    (r = start_admin(s)) != 0)
		return r;
	start_alerter(s);
	start_control(s);
	log_sources(s->config);
	tell_ready(s);
	return 0;
}

int64_t service_tick(struct service *s)
{
	struct admin_health health;
	int64_t ms;

	read_health(s, &health);
	s->wants_end = health.writer.wants_end;
	ms = service_watch_tick(&s->watch, &health, hook_server_stalled_ms(s->hooks));
	return s->wants_end ? 0 : base_min_i64(ms, TICK_MS);
}

bool service_wants_end(const struct service *s)
{
	return s->wants_end;
}

/* --- down --- */

static void take_down(struct service *s)
{
	if (s->hooks)
		hook_server_drain(s->hooks);
	admin_server_free(s->admin);
	control_free(s->control);
	alerter_free(s->alerter);
	if (s->writer)
		writer_stop(s->writer);
	if (s->hooks)
		hook_server_stop(s->hooks);
	hook_server_free(s->hooks);
	writer_free(s->writer);
	if (s->storage)
		storage_close(s->storage);
	config_unref(s->config);
	config_unref(s->running);
	service_watch_finish(&s->watch);
	free(s);
}

int service_start(const char *config_path, struct service **ret)
{
	struct service *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return EX_OSERR;
	metrics_set(METRICS_STARTED_MS, clock_unix_ms());
	log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT); /* looks where lines go */
	service_watch_init(&s->watch);
	r = bring_up(s, config_path);
	if (r != 0) {
		take_down(s);
		return r;
	}
	*ret = s;
	return 0;
}

void service_begin_stop(struct service *s)
{
	s->drain_since_ms = clock_mono_ms();
	s->stopping = true;
	service_watch_stopping(&s->watch, hook_server_connections(s->hooks));
	if (s->admin)
		admin_server_begin_stop(s->admin);
	log_line(LOG_LEVEL_NOTICE, "stopping",
		 LOG_NUM("connections", hook_server_connections(s->hooks)),
		 LOG_NUM("waiting", hook_server_waiting(s->hooks)));
	hook_server_drain(s->hooks);
}

bool service_has_drained(const struct service *s)
{
	return hook_server_connections(s->hooks) == 0 ||
	       clock_mono_ms() - s->drain_since_ms >= s->running->server.drain_timeout_ms;
}

void service_finish(struct service *s)
{
	size_t cut = hook_server_connections(s->hooks);

	take_down(s);
	log_line(LOG_LEVEL_NOTICE, "stopped", LOG_NUM("stored", metrics_read(METRICS_STORED)),
		 LOG_NUM("duplicate", metrics_read(METRICS_DUPLICATE)),
		 LOG_NUM("filtered", metrics_read(METRICS_FILTERED)),
		 LOG_NUM("quarantined", metrics_read(METRICS_QUARANTINED)),
		 LOG_NUM("rejected", metrics_read(METRICS_UNAUTHORIZED)),
		 LOG_NUM("unavailable", metrics_read(METRICS_UNAVAILABLE)),
		 LOG_NUM("connections_cut", cut));
}
