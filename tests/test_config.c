/* What the configuration promises, secrets apart (test_config_secrets.c): defaults as documented,
 * every value where it belongs, every fault told with its line and a way out, all at once; the
 * example and the reference say what the table says.
 *
 * config.example.ini and docs/configuration.md are compared byte for byte; with HOOKD_REGENERATE=1
 * in the environment they are written instead.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define SOURCE "[source e2b]\npath = /e2b\n"
#define HMAC_SOURCE SOURCE "signature = hmac-sha256\n"

static int load(const char *text, struct config **ret, struct config_report *report)
{
	return config_load_text("test.ini", text, strlen(text), CONFIG_SECRETS_IGNORED, ret,
				report);
}

/* Loads what must load without a finding. */
static struct config *must_load(const char *text)
{
	struct config *config;
	struct config_report report;
	int rc = load(text, &config, &report);
	if (rc != 0)
		fail_msg("line %u: %s", report.items[0].line, report.items[0].text);
	assert_int_equal(report.n, 0);
	config_report_finish(&report);
	return config;
}

/* Exactly one error, at this line, with this text in it. */
static void expect_error(const char *text, unsigned int line, const char *what)
{
	struct config *config;
	CLEANUP(config_report_finish) struct config_report report;
	int rc = load(text, &config, &report);
	if (rc == 0)
		fail_msg("accepted, but wanted \"%s\": %s", what, text);
	assert_int_equal(rc, CONFIG_BAD);
	assert_null(config);
	if (report.n != 1 || report.n_errors != 1 || report.items[0].line != line ||
	    !strstr(report.items[0].text, what))
		fail_msg("%zu findings, first in line %u: %s; wanted line %u: %s", report.n,
			 report.items[0].line, report.items[0].text, line, what);
}

struct fault {
	const char *text; /* after a source of three lines */
	unsigned int line; /* in text, from 1 */
	const char *what;
};

static void expect_faults(const struct fault *faults, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char text[1024];
		(void)snprintf(text, sizeof(text), "%s\n%s", SOURCE, faults[i].text);
		expect_error(text, faults[i].line + 3, faults[i].what);
	}
}

/* ---- defaults and values ---- */

static void has_the_documented_defaults(void **state)
{
	struct config *c = must_load(SOURCE);
	assert_int_equal(c->server.n_listen, 1);
	assert_int_equal(c->server.listen[0].kind, CONFIG_LISTEN_TCP);
	assert_string_equal(c->server.listen[0].host, "127.0.0.1");
	assert_int_equal(c->server.listen[0].port, 8787);
	assert_int_equal(c->server.unix_mode, 0660);
	assert_null(c->server.unix_group);
	assert_int_equal(c->server.max_connections, 4096);
	assert_int_equal(c->server.max_connections_per_ip, 0);
	assert_int_equal(c->server.header_timeout_ms, 10000);
	assert_int_equal(c->server.request_timeout_ms, 20000);
	assert_int_equal(c->server.drain_timeout_ms, 15000);
	assert_int_equal(c->server.n_trusted_proxies, 0);
	assert_false(c->server.trust_unix);
	assert_true(c->admin.enabled);
	assert_int_equal(c->admin.listen.port, 8788);
	assert_null(c->admin.token_file);
	assert_string_equal(c->store.path, "/var/lib/e2b-hookd/events.db");
	assert_int_equal(c->store.retention_ms, INT64_C(90) * 86400000);
	assert_int_equal(c->store.ledger_retention_ms, INT64_C(730) * 86400000);
	assert_int_equal(c->store.max_size, 0);
	assert_int_equal(c->store.queue_limit, 2048);
	assert_int_equal(c->store.commit_timeout_ms, 5000);
	assert_int_equal(c->store.wal_limit, 256 << 20);
	assert_int_equal(c->store.max_run_ms, 86400000);
	assert_int_equal(c->pricing.n, 1);
	assert_int_equal(c->pricing.entries[0].rates.vcpu_second_femto, INT64_C(14000000000));
	assert_int_equal(c->pricing.entries[0].rates.gib_second_femto, INT64_C(4500000000));
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_int_equal(c->log_format, LOG_FORMAT_TEXT);
	config_unref(c);
}

static void gives_a_source_the_documented_defaults(void **state)
{
	struct config *c = must_load(SOURCE);
	const struct config_source *s = config_source_by_name(c, "e2b");
	assert_non_null(s);
	assert_ptr_equal(s, config_source_by_path(c, "/e2b"));
	assert_null(config_source_by_path(c, "/e2b/"));
	assert_null(config_source_by_name(c, "E2B"));
	assert_int_equal(s->scheme, SIGNATURE_E2B);
	assert_string_equal(s->header, signature_default_header(SIGNATURE_E2B));
	assert_true(s->priced);
	assert_int_equal(s->max_body, 1 << 20);
	assert_int_equal(s->line, 1);
	assert_true(glob_list_match(&s->policy.events, SPAN_LITERAL("sandbox.lifecycle.created")));
	assert_true(glob_list_match(&s->policy.templates, SPAN_ABSENT));
	assert_true(glob_list_match(&s->policy.teams, SPAN_ABSENT));
	assert_null(s->policy.keyring);
	config_unref(c);
}

static void reads_every_form_of_listener(void **state)
{
	struct config *c = must_load(SOURCE "[server]\nlisten = 0.0.0.0:80\nlisten = [::1]:0\n"
					    "listen = localhost:65535\nlisten = unix:/run/x.sock\n"
					    "listen = systemd\nlisten = [::1]:0\n"
					    "[admin]\nlisten = unix:/run/admin.sock\n");
	const struct config_listen *l = c->server.listen;
	assert_int_equal(c->server.n_listen, 6);
	assert_string_equal(l[0].host, "0.0.0.0");
	assert_string_equal(l[0].text, "0.0.0.0:80");
	assert_int_equal(l[0].line, 4);
	assert_int_equal(c->admin.listen.line, 11);
	assert_string_equal(l[1].host, "::1");
	assert_int_equal(l[1].port, 0);
	assert_string_equal(l[2].host, "localhost");
	assert_int_equal(l[2].port, 65535);
	assert_int_equal(l[3].kind, CONFIG_LISTEN_UNIX);
	assert_string_equal(l[3].path, "/run/x.sock");
	assert_int_equal(l[4].kind, CONFIG_LISTEN_SYSTEMD);
	assert_int_equal(c->admin.listen.kind, CONFIG_LISTEN_UNIX);
	config_unref(c);
}

static void turns_the_admin_listener_off_when_it_is_empty(void **state)
{
	struct config *c = must_load(SOURCE "[admin]\nlisten =\n");
	assert_false(c->admin.enabled);
	assert_null(c->admin.listen.text);
	config_unref(c);
}

static void reads_sizes_durations_modes_and_zero(void **state)
{
	struct config *c = must_load(
		SOURCE "max_body = 64KiB\n[store]\nmax_size = 2GiB\nwal_limit = 1048576\n"
		       "retention = 0\nledger_retention = 0\nmax_run = 36h\n"
		       "commit_timeout = 250ms\n[server]\nunix_mode = 600\ndrain_timeout = 0\n"
		       "unix_group = www-data\n");
	assert_int_equal(c->sources[0].max_body, 65536);
	assert_int_equal(c->store.max_size, INT64_C(2) << 30);
	assert_int_equal(c->store.wal_limit, 1 << 20);
	assert_int_equal(c->store.retention_ms, 0);
	assert_int_equal(c->store.ledger_retention_ms, 0);
	assert_int_equal(c->store.max_run_ms, INT64_C(36) * 3600000);
	assert_int_equal(c->store.commit_timeout_ms, 250);
	assert_int_equal(c->server.unix_mode, 0600);
	assert_int_equal(c->server.drain_timeout_ms, 0);
	assert_string_equal(c->server.unix_group, "www-data");
	config_unref(c);
}

static void reads_networks_addresses_and_the_word_unix(void **state)
{
	static const uint8_t v4[16] = { [10] = 0xff, 0xff, 10, 1 };
	static const uint8_t v6[16] = { 0x20, 0x01, 0x0d, 0xb8 };
	struct config *c = must_load(
		SOURCE
		"[server]\ntrusted_proxies = 10.1.0.0/16, unix ,2001:db8::/32,127.0.0.1,::1\n");
	const struct config_cidr *p = c->server.trusted_proxies;
	assert_int_equal(c->server.n_trusted_proxies, 4);
	assert_true(c->server.trust_unix);
	assert_memory_equal(p[0].address, v4, 16);
	assert_int_equal(p[0].prefix, 112);
	assert_memory_equal(p[1].address, v6, 16);
	assert_int_equal(p[1].prefix, 32);
	assert_int_equal(p[2].prefix, 128);
	assert_int_equal(p[3].prefix, 128);
	config_unref(c);
}

static void does_not_trust_unix_peers_unless_told(void **state)
{
	struct config *c = must_load(SOURCE "[server]\nlisten = unix:/run/x.sock\n");
	assert_false(c->server.trust_unix);
	config_unref(c);
}

static void reads_a_source_that_says_everything(void **state)
{
	struct config *c = must_load(
		HMAC_SOURCE "header = X-Hub-Signature-256\nevents = code_*, !*.paused\n"
			    "templates = !tmp-*\nteams = t1\npriced = no\nmax_body = 1KiB\n"
			    "secret_credential = hook\n");
	const struct config_source *s = &c->sources[0];
	assert_int_equal(s->scheme, SIGNATURE_HMAC_SHA256);
	assert_string_equal(s->header, "x-hub-signature-256");
	assert_int_equal(s->secret_from, CONFIG_SECRET_CREDENTIAL);
	assert_string_equal(s->secret_name, "hook");
	assert_false(s->priced);
	assert_true(glob_list_match(&s->policy.events, SPAN_LITERAL("code_executed")));
	assert_false(glob_list_match(&s->policy.events, SPAN_LITERAL("created")));
	assert_true(glob_list_match(&s->policy.templates, SPAN_LITERAL("prod")));
	assert_false(glob_list_match(&s->policy.templates, SPAN_LITERAL("tmp-1")));
	config_unref(c);
}

static void gives_each_scheme_its_own_header(void **state)
{
	struct config *c = must_load(HMAC_SOURCE "[source w]\npath = /w\n"
						 "signature = standard-webhooks\n");
	assert_string_equal(c->sources[0].header, "x-signature-256");
	assert_string_equal(c->sources[0].header, signature_default_header(SIGNATURE_HMAC_SHA256));
	assert_string_equal(c->sources[1].header,
			    signature_default_header(SIGNATURE_STANDARD_WEBHOOKS));
	config_unref(c);
}

/* ---- templates and prices ---- */

static void finds_templates_by_id_and_by_alias(void **state)
{
	struct config *c = must_load(SOURCE "[template zz]\nalias = aa\nvcpu = 2\nmemory_mb = 512\n"
					    "[template mm]\n[template ab]\nalias = zzz\n");
	struct span zz = SPAN_LITERAL("zz"), aa = SPAN_LITERAL("aa"), mm = SPAN_LITERAL("mm");
	const struct config_template *t = config_template_by_id(c, zz);
	assert_string_equal(t->alias, "aa");
	assert_int_equal(t->vcpu, 2);
	assert_int_equal(t->memory_mb, 512);
	assert_ptr_equal(config_template_by_alias(c, aa), t);
	assert_int_equal(config_template_by_id(c, mm)->vcpu, -1);
	assert_null(config_template_by_alias(c, zz));
	assert_null(config_template_by_id(c, (struct span) { "zzz", 1 }));
	assert_null(config_template_by_id(c, (struct span) { "zz\0z", 4 }));
	assert_null(config_template_by_id(c, SPAN_ABSENT));
	assert_string_equal(c->lookup.id_of(c->lookup.ctx, aa), "zz");
	assert_string_equal(c->lookup.alias_of(c->lookup.ctx, zz), "aa");
	assert_null(c->lookup.alias_of(c->lookup.ctx, mm));
	assert_null(c->lookup.id_of(c->lookup.ctx, mm));
	config_unref(c);
}

static void inherits_prices_in_the_order_of_time_not_of_the_file(void **state)
{
	struct config *c =
		must_load(SOURCE "[pricing 2027-01-01]\nvcpu_second_usd = 0.2\n"
				 "[pricing 2026-01-01]\ngib_second_usd = 0.5\n"
				 "[pricing]\nvcpu_second_usd = 0.1\ngib_second_usd = 0\n");
	const struct pricing_entry *e = c->pricing.entries;
	const int64_t tenth = INT64_C(100000000000000);
	assert_int_equal(c->pricing.n, 3);
	assert_int_equal(e[0].rates.vcpu_second_femto, tenth);
	assert_int_equal(e[0].rates.gib_second_femto, 0);
	assert_int_equal(e[1].from_unix_s, 1767225600);
	assert_int_equal(e[1].rates.vcpu_second_femto, tenth);
	assert_int_equal(e[1].rates.gib_second_femto, 5 * tenth);
	assert_int_equal(e[2].from_unix_s, 1798761600);
	assert_int_equal(e[2].rates.vcpu_second_femto, 2 * tenth);
	assert_int_equal(e[2].rates.gib_second_femto, 5 * tenth);
	config_unref(c);
}

static void takes_as_many_templates_as_it_says_and_not_one_more(void **state)
{
	static char text[CONFIG_TEMPLATES_MAX * 24 + 256];
	size_t len = (size_t)snprintf(text, sizeof(text), SOURCE);
	for (unsigned int i = 0; i < CONFIG_TEMPLATES_MAX; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "[template t%u]\n", i);
	struct config *c = must_load(text);
	assert_int_equal(c->n_templates, CONFIG_TEMPLATES_MAX);
	config_unref(c);
	(void)snprintf(text + len, sizeof(text) - len, "[template x]\nvcpu = 1\n");
	expect_error(text, 3 + CONFIG_TEMPLATES_MAX, "more than 4096 sections [template]");
}

/* ---- faults ---- */

static void names_what_an_unknown_name_was_meant_to_be(void **state)
{
	static const struct fault faults[] = {
		{ "[server]\nlisen = 127.0.0.1:1\n", 2,
		  "unknown key \"lisen\" in [server]; did you mean \"listen\"?" },
		{ "[server]\nlitsen = 127.0.0.1:1\n", 2, "did you mean \"listen\"?" },
		{ "[server]\nMax-Connections = 1\n", 2, "did you mean \"max_connections\"?" },
		{ "[server]\nlevel = debug\n", 2, "\"level\" in [server]; it belongs in [log]" },
		{ "[store]\nalias = a\n", 2, "it belongs in [template ID]" },
		{ "[log]\nretentoin = 1d\n", 2, "did you mean \"retention\" of [store]?" },
		{ "[source x]\npath = /x\nsecret = abc\n", 3,
		  "unknown key \"secret\" in [source x]; did you mean \"secret_file\"?" },
		{ "[servr]\nfoo = 1\n", 1, "unknown section \"servr\"; did you mean [server]?" },
		{ "[sources a]\nfoo = 1\n", 1, "did you mean [source NAME]?" },
		{ "[e2b]\napi_key_file = /x\n", 1, "unknown section \"e2b\"" },
		{ "[alert x]\nwhen = 1\n", 1, "unknown section \"alert\"" },
		{ "[notify x]\nurl = 1\n", 1, "unknown section \"notify\"" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void suggests_nothing_that_is_far_from_what_was_written(void **state)
{
	struct config *c;
	CLEANUP(config_report_finish) struct config_report report;
	assert_int_equal(load(SOURCE "[server]\nfrobnicate = 1\n[zebra]\n", &c, &report),
			 CONFIG_BAD);
	assert_string_equal(report.items[0].text, "unknown key \"frobnicate\" in [server]");
	assert_string_equal(report.items[1].text, "unknown section \"zebra\"");
}

static void refuses_what_is_given_twice(void **state)
{
	static const struct fault faults[] = {
		{ "[store]\nmax_run = 1h\nmax_run = 1h\n", 3,
		  "[store] max_run is given twice (first in line 5); keep one" },
		{ "[log]\n[store]\n[log]\nlevel = info\n", 3, "[log] is given twice" },
		{ "[source e2b]\npriced = no\n", 1,
		  "[source e2b] is given twice (first in line 1)" },
		{ "[template a]\n[template a]\n", 2, "[template a] is given twice" },
		{ "[pricing 2027-01-01]\n[pricing 2027-01-01]\n", 2, "is given twice" },
		{ "[server]\nlisten = 127.0.0.1:1\nlisten = 127.0.0.1:1\n", 3, "is given twice" },
		{ "[server]\nlisten = systemd\nlisten = systemd\n", 3, "is given twice" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void refuses_values_that_are_not_of_their_kind(void **state)
{
	static const struct fault faults[] = {
		{ "[server]\nmax_connections = -1\n", 2, "\"-1\" is not a whole number" },
		{ "[server]\nmax_connections = 1e3\n", 2, "is not a whole number" },
		{ "[server]\nmax_connections =\n", 2, "max_connections: is empty" },
		{ "[server]\nmax_connections = 99999999999999999999\n", 2,
		  "is out of range (2 to 1000000)" },
		{ "[server]\nunix_mode = 0888\n", 2, "is not an octal mode" },
		{ "[server]\nunix_mode = 1777\n", 2, "is out of range (at most 0777)" },
		{ "[server]\nunix_group = a b\n", 2, "is no group name" },
		{ "[store]\nretention = 90\n", 2, "is not a duration; write for example 15s" },
		{ "[store]\nretention = 90d # long\n", 2, "(a comment needs a line of its own)" },
		{ "[store]\nmax_run = 0\n", 2, "is out of range (1s to 3650d)" },
		{ "[store]\nmax_size = 1MB\n", 2, "is not a size" },
		{ "[store]\nmax_size = 500\n", 2, "(1MiB to 64TiB, or 0: no limit)" },
		{ "[store]\nmax_size = 9223372036854775807KiB\n", 2, "is out of range" },
		{ "[store]\npath = events.db\n", 2, "is not the absolute path of a file" },
		{ "[store]\npath = /var/lib/\n", 2, "is not the absolute path of a file" },
		{ "[pricing]\nvcpu_second_usd = 1.000001\n", 2, "at most 1 USD per second" },
		{ "[pricing]\nvcpu_second_usd = -0.1\n", 2, "is not a price" },
		{ "[pricing]\nvcpu_second_usd = 1e-5\n", 2, "is not a price" },
		{ "[log]\nlevel = verbose\n", 2, "write error, warning, notice, info or debug" },
		{ "[log]\nformat = \"json\"\n", 2, "(values stand without quotes)" },
		{ "[admin]\ntoken_file = token\n", 2, "must be the absolute path of a file" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void refuses_listeners_that_cannot_be_meant(void **state)
{
	static const struct fault faults[] = {
		{ "[server]\nlisten = example.org:80\n", 2, "no numeric address" },
		{ "[server]\nlisten = *:80\n", 2, "no numeric address" },
		{ "[server]\nlisten = 8787\n", 2, "has no port" },
		{ "[server]\nlisten = 127.0.0.1\n", 2, "has no port" },
		{ "[server]\nlisten = 127.0.0.1:\n", 2, "has no port" },
		{ "[server]\nlisten = 127.0.0.1:65536\n", 2, "has no port" },
		{ "[server]\nlisten = 127.0.0.1:+1\n", 2, "has no port" },
		{ "[server]\nlisten = ::1:80\n", 2, "without brackets" },
		{ "[server]\nlisten = [127.0.0.1]:80\n", 2, "no numeric address" },
		{ "[server]\nlisten = [localhost]:80\n", 2, "no numeric address" },
		{ "[server]\nlisten = [fe80::1%eth0]:80\n", 2, "no numeric address" },
		{ "[server]\nlisten = unix:run.sock\n", 2, "needs an absolute path" },
		{ "[server]\nlisten =\n", 2, "is empty" },
		{ "[server]\ntrusted_proxies = 10.0.0.1/8\n", 2, "has bits set behind its prefix" },
		{ "[server]\ntrusted_proxies = 10.0.0.0/33\n", 2, "has a bad prefix length" },
		{ "[server]\ntrusted_proxies = 10.0.0.0/\n", 2, "has a bad prefix length" },
		{ "[server]\ntrusted_proxies = ::/129\n", 2, "has a bad prefix length" },
		{ "[server]\ntrusted_proxies = 127.0.0.1,\n", 2, "is neither an address" },
		{ "[server]\ntrusted_proxies = 127.0.0.1 ::1\n", 2, "is neither an address" },
		{ "[server]\ntrusted_proxies = nginx\n", 2, "is neither an address" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void wants_a_token_where_others_can_reach_the_admin_listener(void **state)
{
	static const struct fault faults[] = {
		{ "[admin]\nlisten = 0.0.0.0:8788\n", 2, "set token_file" },
		{ "[admin]\nlisten = [::]:8788\n", 2, "set token_file" },
		{ "[admin]\nlisten = [::ffff:10.0.0.1]:8788\n", 2, "set token_file" },
		{ "[admin]\nlisten = systemd\n", 2, "set token_file" },
		{ "[admin]\nlisten = 127.0.0.1:8787\n", 2, "is the address of [server] too" },
	};
	static const char *const local[] = { "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/x",
					     "[::ffff:127.0.0.1]:1" };
	expect_faults(faults, ARRAY_SIZE(faults));
	for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
		char text[128];
		(void)snprintf(text, sizeof(text), SOURCE "[admin]\nlisten = %s\n", local[i]);
		config_unref(must_load(text));
	}
	config_unref(must_load(SOURCE "[admin]\nlisten = 0.0.0.0:1\ntoken_file = /etc/token\n"));
}

static void refuses_sources_that_cannot_work(void **state)
{
	static const struct fault faults[] = {
		{ "[source]\npath = /x\n", 1, "[source] needs a name" },
		{ "[source a b]\npath = /x\n", 1, "needs a name of 1 to 64 letters" },
		{ "[source a/b]\npath = /x\n", 1, "needs a name of 1 to 64 letters" },
		{ "[source x]\n", 1, "[source x] needs a path" },
		{ "[source x]\npath = /e2b\n", 2, "path is that of [source e2b] too" },
		{ "[source x]\npath = x\n", 2, "does not begin with /" },
		{ "[source x]\npath = /x?y\n", 2, "holds a query" },
		{ "[source x]\npath = /healthz\n", 2, "taken by the health check" },
		{ "[source x]\npath = /a%20b\n", 2, "does not stand for itself" },
		{ "[source x]\npath = /a b\n", 2, "does not stand for itself" },
		{ "[source x]\npath = /a//b\n", 2, "an empty, . or .. segment" },
		{ "[source x]\npath = /a/../b\n", 2, "an empty, . or .. segment" },
		{ "[source x]\npath = /x\nsignature = hmac\n", 3, "write e2b, hmac-sha256 or" },
		{ "[source x]\npath = /x\nheader = x-sig\n", 3,
		  "for signature = hmac-sha256 only" },
		{ "[source x]\npath = /x\nsignature = hmac-sha256\nheader = a b\n", 4,
		  "is no header name" },
		{ "[source x]\npath = /x\nevents =\n", 3, "needs at least one pattern" },
		{ "[source x]\npath = /x\nevents = a,,b\n", 3, "is no list of patterns" },
		{ "[source x]\npath = /x\ntemplates = a b\n", 3, "\"a b\"" },
		{ "[source x]\npath = /x\nteams = \"t\"\n", 3, "can match nothing" },
		{ "[source x]\npath = /x\npriced = true\n", 3, "is neither yes nor no" },
		{ "[source x]\npath = /x\nmax_body = 1023\n", 3, "(1KiB to 64MiB)" },
		{ "[source x]\npath = /x\nmax_body = 65MiB\n", 3, "(1KiB to 64MiB)" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
	expect_error("[log]\nlevel = info\n", 0, "no [source NAME]");
}

static void refuses_templates_that_contradict_each_other(void **state)
{
	static const struct fault faults[] = {
		{ "[template]\nvcpu = 1\nmemory_mb = 1\n", 1, "[template] needs a name" },
		{ "[template a b]\n", 1, "needs a template id as its name" },
		{ "[template a/../b]\n", 1, "needs a template id as its name" },
		{ "[template a]\nalias = b c\n", 2, "is no name that an event can carry" },
		{ "[template a]\nalias =\n", 2, "is empty" },
		{ "[template a]\nvcpu = 2\n", 2, "given both or not at all" },
		{ "[template a]\nmemory_mb = 512\n", 2, "given both or not at all" },
		{ "[template a]\nvcpu = 0\nmemory_mb = 512\n", 2, "(1 to 1024)" },
		{ "[template a]\nvcpu = 1025\nmemory_mb = 1\n", 2, "(1 to 1024)" },
		{ "[template a]\nvcpu = 1\nmemory_mb = 16777217\n", 3, "(1 to 16777216)" },
		{ "[template a]\nalias = x\n[template b]\nalias = x\n", 4,
		  "[template b] alias is the alias of [template a] too" },
		{ "[template b]\nalias = a\n[template a]\n", 2, "alias is the id of [template a]" },
		{ "[template a]\n[template b]\nalias = a\n", 3, "alias is the id of [template a]" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void refuses_limits_that_contradict_each_other(void **state)
{
	static const struct fault faults[] = {
		{ "[server]\nmax_connections = 2048\n", 2,
		  "[store] queue_limit must be below [server] max_connections; queue_limit is 2048 "
		  "unless set" },
		{ "[store]\nqueue_limit = 4096\n", 2, "must be below" },
		{ "[server]\nheader_timeout = 21s\n", 2, "header_timeout must not be above" },
		{ "[server]\nrequest_timeout = 9s\n", 2, "header_timeout must not be above" },
		{ "[store]\ncommit_timeout = 21s\n", 2, "commit_timeout must not be above" },
		{ "[store]\nledger_retention = 89d\n", 2, "retention must not be above" },
		{ "[store]\nretention = 0\n", 2, "ledger_retention is 730d unless set" },
		{ "[store]\nretention = 731d\n", 2, "retention must not be above" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
	config_unref(must_load(SOURCE "[store]\nledger_retention = 0\n"));
	config_unref(must_load(SOURCE "[store]\nretention = 5d\nledger_retention = 5d\n"
				      "commit_timeout = 20s\n[server]\nheader_timeout = 20s\n"));
}

static void refuses_names_where_none_belong_and_dates_that_are_none(void **state)
{
	static const struct fault faults[] = {
		{ "[server x]\nmax_connections = 4000\n", 1, "[server] takes no name" },
		{ "[pricing 2027-02-30]\nvcpu_second_usd = 0\n", 1, "needs a date" },
		{ "[pricing tomorrow]\nvcpu_second_usd = 0\n", 1, "needs a date" },
	};
	expect_faults(faults, ARRAY_SIZE(faults));
}

static void tells_all_problems_at_once_in_the_order_of_the_file(void **state)
{
	static const struct {
		unsigned int line;
		const char *what;
	} wanted[] = {
		{ 2, "did you mean" },	  { 5, "neither yes nor no" }, { 7, "is the id of" },
		{ 10, "not a duration" }, { 11, "neither [section]" }, { 12, "must not be above" },
		{ 13, "needs a path" },	  { 14, "takes no name" },
	};
	struct config *c;
	CLEANUP(config_report_finish) struct config_report report;
	int rc = load("[server]\nlisen = 1\n[source a]\npath = /x\npriced = 1\n"
		      "[template t]\nalias = u\n[template u]\n[store]\nretention = x\n"
		      "nonsense\ncommit_timeout = 30s\n[source b]\n[log x]\n",
		      &c, &report);
	assert_int_equal(rc, CONFIG_BAD);
	assert_int_equal(report.n, ARRAY_SIZE(wanted));
	for (size_t i = 0; i < report.n; i++) {
		assert_int_equal(report.items[i].line, wanted[i].line);
		assert_non_null(strstr(report.items[i].text, wanted[i].what));
	}
}

static void never_tells_what_may_be_a_pasted_secret(void **state)
{
	static const char secret[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
	static const char *const places[] = { "secret_file = %s\n",
					      "secret_credential = %s=\n",
					      "secret_env = %s=\n",
					      "secret = %s\n",
					      "%s=\n",
					      "%s\n" };
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct config *c;
		CLEANUP(config_report_finish) struct config_report report;
		char text[256];
		(void)snprintf(text, sizeof(text), SOURCE "PLACE");
		char *place = strstr(text, "PLACE");
		const char *mark = strstr(places[i], "%s");
		(void)snprintf(place, sizeof(text) - sizeof(SOURCE), "%.*s%s%s",
			       (int)(mark - places[i]), places[i], secret, mark + 2);
		assert_int_equal(load(text, &c, &report), CONFIG_BAD);
		for (size_t k = 0; k < report.n; k++)
			assert_null(strstr(report.items[k].text, "MfKQ"));
	}
}

static void keeps_a_flood_of_problems_bounded(void **state)
{
	static char text[20000];
	size_t len = (size_t)snprintf(text, sizeof(text), SOURCE "[log]\n");
	for (int i = 0; i < 1000; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "k = v\n");
	struct config *c;
	CLEANUP(config_report_finish) struct config_report report;
	assert_int_equal(load(text, &c, &report), CONFIG_BAD);
	assert_int_equal(report.n_errors, 1000);
	assert_int_equal(report.n, 200);
}

static void reports_a_file_that_cannot_be_read(void **state)
{
	static const char *const paths[] = { "/nonexistent/config.ini", "/", "/dev/null" };
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct config *c;
		CLEANUP(config_report_finish) struct config_report report;
		assert_int_equal(config_load(paths[i], CONFIG_SECRETS_IGNORED, &c, &report),
				 CONFIG_BAD);
		assert_null(c);
		assert_int_equal(report.n_errors, 1);
		assert_int_equal(report.items[0].line, 0);
	}
}

/* ---- living with it ---- */

static void stays_alive_while_somebody_holds_it(void **state)
{
	struct config *c = must_load(SOURCE);
	struct config *second = config_ref(c);
	config_unref(c);
	assert_string_equal(second->sources[0].path, "/e2b");
	config_unref(second);
	config_unref(NULL);
}

static void names_what_a_reload_cannot_change(void **state)
{
	struct config *a = must_load(SOURCE);
	struct config *b = must_load(
		"[source other]\npath = /other\npriced = no\n[template t]\nalias = x\n"
		"[pricing]\nvcpu_second_usd = 0\n[log]\nlevel = debug\nformat = json\n"
		"[server]\nlisten = 127.0.0.1:9\nmax_connections = 4000\nunix_group = g\n"
		"trusted_proxies = 10.0.0.0/8\n[admin]\nlisten =\n[store]\npath = /x/y.db\n");
	char text[256], little[12];
	assert_int_equal(config_restart_needed(a, a, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	assert_int_equal(config_restart_needed(a, b, text, sizeof(text)), 6);
	assert_string_equal(text, "server.listen, server.unix_group, server.max_connections, "
				  "server.trusted_proxies, admin.listen, store.path");
	assert_int_equal(config_restart_needed(a, b, little, sizeof(little)), 6);
	assert_string_equal(little, "server.list");
	config_unref(a);
	config_unref(b);
}

/* ---- the example and the reference ---- */

static char *printed(void (*print)(FILE *f), size_t *ret_len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_len);
	assert_non_null(f);
	print(f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void compare_file(const char *name, void (*print)(FILE *f))
{
	const char *root = getenv("HOOKD_SOURCE_ROOT");
	size_t len;
	CLEANUP_FREE char *text = printed(print, &len);
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s/%s", root ? root : ".", name);
	if (getenv("HOOKD_REGENERATE")) {
		CLEANUP_FILE FILE *out = fopen(path, "wb");
		assert_non_null(out);
		assert_int_equal(fwrite(text, 1, len, out), len);
		return;
	}
	CLEANUP_FREE char *file = calloc(1, len + 2);
	CLEANUP_FILE FILE *in = fopen(path, "rb");
	assert_non_null(in);
	assert_int_equal(fread(file, 1, len + 1, in), len);
	assert_memory_equal(file, text, len);
}

static void example_file_is_what_the_table_prints(void **state)
{
	compare_file("config.example.ini", config_print_example);
}

static void reference_is_what_the_table_prints(void **state)
{
	compare_file("docs/configuration.md", config_print_reference);
}

static void the_example_works(void **state)
{
	size_t len;
	CLEANUP_FREE char *text = printed(config_print_example, &len);
	struct config *c = must_load(text);
	assert_int_equal(c->n_sources, 2);
	assert_string_equal(c->sources[0].secret_name, "/etc/e2b-hookd/e2b.secret");
	assert_int_equal(c->sources[0].scheme, SIGNATURE_E2B);
	assert_int_equal(c->sources[1].scheme, SIGNATURE_HMAC_SHA256);
	assert_int_equal(c->n_templates, 1);
	config_unref(c);
}

/* A default that the example shows behind `#` is the one that holds when the key is absent. */
static void defaults_written_out_change_nothing(void **state)
{
	size_t len;
	CLEANUP_FREE char *text = printed(config_print_example, &len);
	struct config *before = must_load(text);
	char *to = text;
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		next = next ? next + 1 : NULL;
		size_t line_len = next ? (size_t)(next - line) : strlen(line);
		const char *equals = memchr(line, '=', line_len);
		bool is_default = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z' && equals &&
				  equals[1] == ' ' && strncmp(line, "#header", 7) != 0;
		bool is_heading = line[0] == '#' && line[1] == '[';
		line += is_default || is_heading ? 1 : 0;
		line_len -= is_default || is_heading ? 1 : 0;
		memmove(to, line, line_len);
		to += line_len;
	}
	*to = '\0';
	struct config *after = must_load(text);
	char differing[256];
	assert_int_equal(config_restart_needed(before, after, differing, sizeof(differing)), 0);
	assert_int_equal(before->server.listen[0].line, 0);
	assert_int_not_equal(after->server.listen[0].line, 0);
	assert_int_equal(before->sources[0].max_body, after->sources[0].max_body);
	assert_int_equal(before->sources[0].priced, after->sources[0].priced);
	assert_int_equal(before->log_level, after->log_level);
	assert_int_equal(before->log_format, after->log_format);
	config_unref(before);
	config_unref(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_the_documented_defaults),
		cmocka_unit_test(gives_a_source_the_documented_defaults),
		cmocka_unit_test(reads_every_form_of_listener),
		cmocka_unit_test(turns_the_admin_listener_off_when_it_is_empty),
		cmocka_unit_test(reads_sizes_durations_modes_and_zero),
		cmocka_unit_test(reads_networks_addresses_and_the_word_unix),
		cmocka_unit_test(does_not_trust_unix_peers_unless_told),
		cmocka_unit_test(reads_a_source_that_says_everything),
		cmocka_unit_test(gives_each_scheme_its_own_header),
		cmocka_unit_test(finds_templates_by_id_and_by_alias),
		cmocka_unit_test(inherits_prices_in_the_order_of_time_not_of_the_file),
		cmocka_unit_test(takes_as_many_templates_as_it_says_and_not_one_more),
		cmocka_unit_test(names_what_an_unknown_name_was_meant_to_be),
		cmocka_unit_test(suggests_nothing_that_is_far_from_what_was_written),
		cmocka_unit_test(refuses_what_is_given_twice),
		cmocka_unit_test(refuses_values_that_are_not_of_their_kind),
		cmocka_unit_test(refuses_listeners_that_cannot_be_meant),
		cmocka_unit_test(wants_a_token_where_others_can_reach_the_admin_listener),
		cmocka_unit_test(refuses_sources_that_cannot_work),
		cmocka_unit_test(refuses_templates_that_contradict_each_other),
		cmocka_unit_test(refuses_limits_that_contradict_each_other),
		cmocka_unit_test(refuses_names_where_none_belong_and_dates_that_are_none),
		cmocka_unit_test(tells_all_problems_at_once_in_the_order_of_the_file),
		cmocka_unit_test(never_tells_what_may_be_a_pasted_secret),
		cmocka_unit_test(keeps_a_flood_of_problems_bounded),
		cmocka_unit_test(reports_a_file_that_cannot_be_read),
		cmocka_unit_test(stays_alive_while_somebody_holds_it),
		cmocka_unit_test(names_what_a_reload_cannot_change),
		cmocka_unit_test(example_file_is_what_the_table_prints),
		cmocka_unit_test(reference_is_what_the_table_prints),
		cmocka_unit_test(the_example_works),
		cmocka_unit_test(defaults_written_out_change_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
