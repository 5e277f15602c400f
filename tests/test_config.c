/* What a configuration that loads promises: defaults as documented, every value where it belongs,
 * look-ups, reloads; the example and the reference say what the table says. Faults are in
 * test_config_faults.c, secrets in test_config_secrets.c.
 *
 * config.example.ini and docs/configuration.md are compared byte for byte; with HOOKD_REGENERATE=1
 * in the environment they are written instead.
 */
#include "config_fixture.h"

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
					    "[template mm]\n[template ab]\nalias = zzz\n"
					    "[template b]\nalias = z1\n[template c]\nalias = m\n");
	struct span zz = SPAN_LITERAL("zz"), aa = SPAN_LITERAL("aa"), mm = SPAN_LITERAL("mm");
	const struct config_template *t = config_template_by_id(c, zz);
	assert_string_equal(t->alias, "aa");
	assert_int_equal(t->vcpu, 2);
	assert_int_equal(t->memory_mb, 512);
	assert_ptr_equal(config_template_by_alias(c, aa), t);
	assert_int_equal(config_template_by_id(c, mm)->vcpu, -1);
	assert_null(config_template_by_alias(c, zz));
	for (size_t i = 0; i < c->n_templates; i++) {
		const char *alias = c->templates[i].alias;
		if (alias)
			assert_ptr_equal(
				config_template_by_alias(c, (struct span) { alias, strlen(alias) }),
				&c->templates[i]);
	}
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
	struct config *b =
		must_load("[source other]\npath = /other\npriced = no\n[template t]\nalias = x\n"
			  "[pricing]\nvcpu_second_usd = 0\n[log]\nlevel = debug\nformat = json\n"
			  "[server]\nlisten = 127.0.0.1:9\nmax_connections = 4000\nunix_group = g\n"
			  "trusted_proxies = 10.0.0.0/8\n[admin]\nlisten =\ntoken_file = "
			  "/t\n[store]\npath = /x/y.db\n");
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
		cmocka_unit_test(stays_alive_while_somebody_holds_it),
		cmocka_unit_test(names_what_a_reload_cannot_change),
		cmocka_unit_test(example_file_is_what_the_table_prints),
		cmocka_unit_test(reference_is_what_the_table_prints),
		cmocka_unit_test(the_example_works),
		cmocka_unit_test(defaults_written_out_change_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
