/* The service manager's protocol, against a real datagram socket that the test binds. */
#include "notify.h"

#include "clock.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

struct manager {
	int fd;
	char directory[32], name[96]; /* name as in NOTIFY_SOCKET */
};

static void bind_as(struct manager *m, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(name);

	(void)snprintf(m->name, sizeof(m->name), "%s", name);
	memcpy(address.sun_path, name, len + 1);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(m->fd >= 0);
	assert_int_equal(
		bind(m->fd, (struct sockaddr *)&address,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] != '@'))),
		0);
	assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
}

static void begin(struct manager *m, bool is_abstract)
{
	char name[96];

	*m = (struct manager) { .fd = -1, .directory = "/tmp/notify-XXXXXX" };
	assert_non_null(mkdtemp(m->directory));
	(void)snprintf(name, sizeof(name), "%s%s/socket", is_abstract ? "@" : "", m->directory);
	bind_as(m, name);
}

static void end(struct manager *m)
{
	(void)close(m->fd);
	if (m->name[0] == '/')
		(void)unlink(m->name);
	(void)rmdir(m->directory);
}

/* A datagram on a unix socket is there when sendto() has returned. */
static const char *heard(struct manager *m, char text[static 1024])
{
	ssize_t n = recv(m->fd, text, 1023, 0);

	if (n < 0) {
		assert_int_equal(errno, EAGAIN);
		return NULL;
	}
	text[n] = '\0';
	return text;
}

static void speaks_to(bool is_abstract)
{
	struct manager m;
	struct notify n;
	char text[1024];

	begin(&m, is_abstract);
	assert_int_equal(notify_init(&n), 0);
	assert_true(notify_is_wanted(&n));
	assert_int_equal(notify_ready(&n, "3 sources"), 0);
	assert_string_equal(heard(&m, text), "READY=1\nSTATUS=3 sources");
	assert_int_equal(notify_status(&n, "busy"), 0);
	assert_string_equal(heard(&m, text), "STATUS=busy");
	assert_int_equal(notify_watchdog(&n), 0);
	assert_string_equal(heard(&m, text), "WATCHDOG=1");
	assert_int_equal(notify_stopping(&n, "draining"), 0);
	assert_string_equal(heard(&m, text), "STOPPING=1\nSTATUS=draining");
	assert_null(heard(&m, text));
	notify_finish(&n);
	end(&m);
}

static void speaks_to_a_socket_with_a_path(void **state)
{
	speaks_to(false);
}

static void speaks_to_a_socket_with_an_abstract_name(void **state)
{
	speaks_to(true);
}

static void a_reload_carries_the_monotonic_time(void **state)
{
	struct manager m;
	struct notify n;
	char text[1024];
	int64_t before = clock_mono_us(), said = 0;

	begin(&m, false);
	assert_int_equal(notify_init(&n), 0);
	assert_int_equal(notify_reloading(&n), 0);
	assert_int_equal(sscanf(heard(&m, text), "RELOADING=1\nMONOTONIC_USEC=%" SCNd64, &said), 1);
	assert_true(said >= before && said <= clock_mono_us());
	notify_finish(&n);
	end(&m);
}

static void a_status_is_one_line_whatever_it_holds(void **state)
{
	struct manager m;
	struct notify n;
	char text[1024], longer[2000];

	begin(&m, false);
	assert_int_equal(notify_init(&n), 0);
	assert_int_equal(notify_status(&n, "disk\nREADY=1\x1b[2J\xff"), 0);
	assert_string_equal(heard(&m, text), "STATUS=disk?READY=1?[2J?");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(notify_ready(&n, longer), 0);
	assert_non_null(heard(&m, text));
	assert_int_equal(strlen(text), NOTIFY_TEXT_MAX - 1);
	notify_finish(&n);
	end(&m);
}

static void without_a_manager_every_call_does_nothing(void **state)
{
	struct notify n;

	(void)unsetenv("NOTIFY_SOCKET");
	assert_int_equal(setenv("WATCHDOG_USEC", "2000000", 1), 0);
	assert_int_equal(notify_init(&n), 0);
	assert_false(notify_is_wanted(&n));
	assert_int_equal(n.watchdog_ms, 0);
	assert_int_equal(notify_ready(&n, "ready"), 0);
	assert_int_equal(notify_watchdog(&n), 0);
	notify_finish(&n);
}

static void refuses_a_name_that_is_no_unix_socket(void **state)
{
	static const char *const names[] = { "relative", "vsock:2:1234", "@", "/" };
	char longer[200];
	struct notify n;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(setenv("NOTIFY_SOCKET", names[i], 1), 0);
		assert_int_equal(notify_init(&n), -EINVAL);
		assert_false(notify_is_wanted(&n));
	}
	memset(longer, 'x', sizeof(longer) - 1);
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(setenv("NOTIFY_SOCKET", longer, 1), 0);
	assert_int_equal(notify_init(&n), -EINVAL);
	assert_int_equal(notify_ready(&n, "ready"), 0);
}

static int64_t watchdog_ms(const char *usec, const char *pid)
{
	struct manager m;
	struct notify n;
	int64_t ms;

	begin(&m, false);
	assert_int_equal(setenv("WATCHDOG_USEC", usec, 1), 0);
	(void)unsetenv("WATCHDOG_PID");
	if (pid)
		assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
	assert_int_equal(notify_init(&n), 0);
	ms = n.watchdog_ms;
	assert_null(getenv("NOTIFY_SOCKET"));
	assert_null(getenv("WATCHDOG_USEC"));
	assert_null(getenv("WATCHDOG_PID"));
	notify_finish(&n);
	end(&m);
	return ms;
}

static void takes_a_watchdog_that_is_meant_for_this_process(void **state)
{
	char pid[32];

	(void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	assert_int_equal(watchdog_ms("30000000", NULL), 30000);
	assert_int_equal(watchdog_ms("30000000", pid), 30000);
	assert_int_equal(watchdog_ms("30000000", "1"), 0);
	assert_int_equal(watchdog_ms("30000000", "x"), 0);
	assert_int_equal(watchdog_ms("500", NULL), 1);
	assert_int_equal(watchdog_ms("0", NULL), 0);
	assert_int_equal(watchdog_ms("-5", NULL), 0);
	assert_int_equal(watchdog_ms("30s", NULL), 0);
	assert_int_equal(watchdog_ms("99999999999999999999", NULL), 0);
}

static void tells_when_the_manager_is_gone_and_finds_its_successor(void **state)
{
	struct manager m;
	struct notify n;
	char text[1024], name[96];

	begin(&m, false);
	assert_int_equal(notify_init(&n), 0);
	(void)snprintf(name, sizeof(name), "%s", m.name);
	(void)close(m.fd);
	assert_int_equal(notify_watchdog(&n), -ECONNREFUSED);
	(void)unlink(name);
	assert_int_equal(notify_watchdog(&n), -ENOENT);
	bind_as(&m, name);
	assert_int_equal(notify_watchdog(&n), 0);
	assert_string_equal(heard(&m, text), "WATCHDOG=1");
	notify_finish(&n);
	end(&m);
}

static void never_waits_for_a_manager_that_does_not_read(void **state)
{
	struct manager m;
	struct notify n;
	int r = 0;

	begin(&m, false);
	assert_int_equal(notify_init(&n), 0);
	for (int i = 0; r == 0 && i < 100000; i++)
		r = notify_watchdog(&n);
	assert_int_equal(r, -EAGAIN);
	notify_finish(&n);
	end(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(speaks_to_a_socket_with_a_path),
		cmocka_unit_test(speaks_to_a_socket_with_an_abstract_name),
		cmocka_unit_test(a_reload_carries_the_monotonic_time),
		cmocka_unit_test(a_status_is_one_line_whatever_it_holds),
		cmocka_unit_test(without_a_manager_every_call_does_nothing),
		cmocka_unit_test(refuses_a_name_that_is_no_unix_socket),
		cmocka_unit_test(takes_a_watchdog_that_is_meant_for_this_process),
		cmocka_unit_test(tells_when_the_manager_is_gone_and_finds_its_successor),
		cmocka_unit_test(never_waits_for_a_manager_that_does_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
