/* What the configuration refuses, and how it tells: every fault with its line, what is wrong and a
 * way out, the nearest known name, all at once, and nothing that may be a secret.
 */
#include "config_fixture.h"

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
		{ "[server]\nlisten2 = 127.0.0.1:1\n", 2,
		  "(not shown: it could be a secret); did you mean \"listen\"?" },
		{ "[servr]\nfoo = 1\n", 1, "unknown section \"servr\"; did you mean [server]?" },
		{ "[lgo]\nlevel = info\n", 1, "did you mean [log]?" },
		{ "[sources a]\nfoo = 1\n", 1, "did you mean [source NAME]?" },
		{ "[e2b]\napi_key_file = /x\n", 1, "unknown section \"e2b\"" },
		{ "[frobnicate x]\nwhen = 1\n", 1, "unknown section \"frobnicate\"" },
		{ "[fathom x]\nurl = 1\n", 1, "unknown section \"fathom\"" },
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

static void refuses_a_store_path_too_long_to_be_one(void **state)
{
	char text[2048];
	for (int len = 1024; len <= 1025; len++) {
		(void)snprintf(text, sizeof(text), SOURCE "[store]\npath = /%0*d\n", len - 1, 0);
		if (len == 1024)
			config_unref(must_load(text));
		else
			expect_error(text, 4, "longer than 1024 bytes");
	}
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

/* The sender is answered 200 for what a filter refuses, and does not send it again. */
static void warns_of_filters_that_are_most_likely_mistyped(void **state)
{
	static const struct fault faults[] = {
		{ "events = killed, creatd\n", 3,
		  "[source e2b] events: \"creatd\" is no event type or kind that is known; did you "
		  "mean \"created\"?" },
		{ "events = !sandbox.lifecycle.kiled\n", 3,
		  "did you mean \"sandbox.lifecycle.killed\"?" },
		{ "events = sandbx.*\n", 3, "\"sandbx.*\" is no event type or kind that is known" },
		{ "events = e2b-hookd.tst\n", 3, "did you mean \"e2b-hookd.test\"?" },
		{ "templates = tta-ml-minmal\n[template a0]\nalias = tta-ml-minimal\n", 3,
		  "[source e2b] templates: no [template ID] has the id or alias \"tta-ml-minmal\"; "
		  "did you mean \"tta-ml-minimal\"?" },
		{ "[alert x]\non = execution_failed\ntemplates = a0b1c2e3\n[template a0b1c2d3]\n",
		  5, "did you mean \"a0b1c2d3\"?" },
		{ "[alert x]\non = sandbox_failed\nreasons = orphand\n", 5,
		  "[alert x] reasons: \"orphand\" is no kill reason that is known; did you mean "
		  "\"orphaned\"?" },
		{ "[alert x]\non = rejected\nreasons = signature_*, expired\n", 5,
		  "\"expired\" is no reason for a rejection that is known" },
		{ "[alert x]\non = quarantined\nreasons = id_reuse\n", 5, "\"id_reused\"?" },
		{ "[alert x]\non = quarantined\nreasons = signature_wrong\n", 5,
		  "is no reason for quarantine that is known" },
		{ "[notify x]\nkind = slack\n", 3, "nothing is sent to it" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		char text[1024];
		struct config *config;
		CLEANUP(config_report_finish) struct config_report report;
		(void)snprintf(text, sizeof(text), "%s%s", SOURCE, faults[i].text);
		assert_int_equal(load(text, &config, &report), 0);
		if (report.n != 1 || report.items[0].line != faults[i].line ||
		    !strstr(report.items[0].text, faults[i].what))
			fail_msg("%zu findings, first: %s; wanted: %s", report.n,
				 report.n ? report.items[0].text : "-", faults[i].what);
		assert_false(report.items[0].is_error);
		config_unref(config);
	}
}

static void does_not_warn_of_filters_that_may_be_meant(void **state)
{
	static const char *const lists[] = {
		"events = *",
		"events = sandbox.*",
		"events = created, sandbox.code_executed",
		"events = !sandbox.lifecycle.*, !other",
		"events = sandbox.deleted, test",
		"templates = tta-ml-minimal, a1",
		"templates = a2, tta-ml-minimal2, tta-ml-min*",
		"templates = something-else",
		"[alert x]\non = rejected\nreasons = signature_*, not_one_object, body_too_large",
		"[alert x]\non = quarantined\nreasons = not_one_object, bad_*, !stale, id_reused",
		"[alert x]\non = sandbox_failed\nreasons = request, evicted, *_failed",
	};
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		char text[1024];
		(void)snprintf(text, sizeof(text), "%s%s\n[template a1]\nalias = tta-ml-minimal\n",
			       SOURCE, lists[i]);
		config_unref(must_load(text));
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_what_an_unknown_name_was_meant_to_be),
		cmocka_unit_test(suggests_nothing_that_is_far_from_what_was_written),
		cmocka_unit_test(refuses_what_is_given_twice),
		cmocka_unit_test(refuses_values_that_are_not_of_their_kind),
		cmocka_unit_test(refuses_a_store_path_too_long_to_be_one),
		cmocka_unit_test(refuses_listeners_that_cannot_be_meant),
		cmocka_unit_test(wants_a_token_where_others_can_reach_the_admin_listener),
		cmocka_unit_test(refuses_sources_that_cannot_work),
		cmocka_unit_test(warns_of_filters_that_are_most_likely_mistyped),
		cmocka_unit_test(does_not_warn_of_filters_that_may_be_meant),
		cmocka_unit_test(refuses_templates_that_contradict_each_other),
		cmocka_unit_test(refuses_limits_that_contradict_each_other),
		cmocka_unit_test(refuses_names_where_none_belong_and_dates_that_are_none),
		cmocka_unit_test(tells_all_problems_at_once_in_the_order_of_the_file),
		cmocka_unit_test(never_tells_what_may_be_a_pasted_secret),
		cmocka_unit_test(keeps_a_flood_of_problems_bounded),
		cmocka_unit_test(reports_a_file_that_cannot_be_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
