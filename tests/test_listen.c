/* Listening sockets: made, named, taken down; and what happens when somebody is there already. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

struct world {
	char directory[64], path[128];
	struct config_listen local;
	struct listen_set set, other;
	char error[LISTEN_ERROR_MAX];
};

static const struct listen_options options = { .unix_mode = 0620, .fd_name = "hook" };

static int open_world(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	(void)snprintf(w->directory, sizeof(w->directory), "/tmp/hookd-test-XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	(void)snprintf(w->path, sizeof(w->path), "%s/sock", w->directory);
	w->local = (struct config_listen) { CONFIG_LISTEN_UNIX, w->path, NULL, 0, w->path, 1 };
	*state = w;
	return 0;
}

static int close_world(void **state)
{
	struct world *w = *state;
	listen_finish(&w->set);
	listen_finish(&w->other);
	(void)unlink(w->path);
	assert_int_equal(rmdir(w->directory), 0);
	free(w);
	return 0;
}

static struct config_listen tcp(const char *host, uint16_t port)
{
	return (struct config_listen) { CONFIG_LISTEN_TCP,
					(char *)(uintptr_t) "the text",
					(char *)(uintptr_t)host,
					port,
					NULL,
					1 };
}

static bool can_connect(const char *path)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	memcpy(a.sun_path, path, strlen(path) + 1);
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static void tells_the_port_that_the_kernel_chose(void **state)
{
	struct world *w = *state;
	struct config_listen l = tcp("127.0.0.1", 0);
	assert_int_equal(listen_open(&w->set, &l, &options, w->error), 0);
	assert_int_equal(w->set.n, 1);
	assert_memory_equal(w->set.items[0].text, "127.0.0.1:", 10);
	assert_true(strtoul(w->set.items[0].text + 10, NULL, 10) > 0);
	assert_true(fcntl(w->set.items[0].fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(w->set.items[0].fd, F_GETFD) & FD_CLOEXEC);
}

static void says_that_another_process_listens_there(void **state)
{
	struct world *w = *state;
	struct config_listen l = tcp("127.0.0.1", 0);
	assert_int_equal(listen_open(&w->set, &l, &options, w->error), 0);
	l.port = (uint16_t)strtoul(w->set.items[0].text + 10, NULL, 10);
	assert_int_equal(listen_open(&w->other, &l, &options, w->error), -EADDRINUSE);
	assert_non_null(strstr(w->error, "another process listens on the text"));
	assert_int_equal(w->other.n, 0);
}

static void listens_on_ipv6_beside_ipv4(void **state)
{
	struct world *w = *state;
	struct config_listen l = tcp("::1", 0);
	int r = listen_open(&w->set, &l, &options, w->error);
	if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
		skip();
	assert_int_equal(r, 0);
	assert_memory_equal(w->set.items[0].text, "[::1]:", 6);
	l = tcp("127.0.0.1", (uint16_t)strtoul(w->set.items[0].text + 6, NULL, 10));
	assert_int_equal(listen_open(&w->set, &l, &options, w->error), 0);
}

static void a_unix_socket_gets_its_mode_and_goes_with_the_set(void **state)
{
	struct world *w = *state;
	struct stat st;
	assert_int_equal(listen_open(&w->set, &w->local, &options, w->error), 0);
	assert_true(w->set.items[0].is_unix);
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0620);
	assert_true(can_connect(w->path));
	listen_finish(&w->set);
	assert_int_equal(lstat(w->path, &st), -1);
}

static void replaces_the_socket_of_a_process_that_died(void **state)
{
	struct world *w = *state;
	assert_int_equal(listen_open(&w->other, &w->local, &options, w->error), 0);
	/* What a kill leaves: the path, and nobody behind it. */
	(void)close(w->other.items[0].fd);
	w->other.items[0].fd = -1;
	assert_false(can_connect(w->path));
	assert_int_equal(listen_open(&w->set, &w->local, &options, w->error), 0);
	assert_true(can_connect(w->path));
}

static void leaves_a_socket_that_answers_alone(void **state)
{
	struct world *w = *state;
	assert_int_equal(listen_open(&w->set, &w->local, &options, w->error), 0);
	assert_int_equal(listen_open(&w->other, &w->local, &options, w->error), -EADDRINUSE);
	assert_true(can_connect(w->path));
}

static void never_removes_a_file_that_is_no_socket(void **state)
{
	struct world *w = *state;
	struct stat st;
	FILE *f = fopen(w->path, "w");
	assert_non_null(f);
	(void)fclose(f);
	assert_int_equal(listen_open(&w->set, &w->local, &options, w->error), -EEXIST);
	assert_non_null(strstr(w->error, "not a socket"));
	assert_int_equal(stat(w->path, &st), 0);
}

static void does_not_take_down_a_path_that_somebody_else_took_over(void **state)
{
	struct world *w = *state;
	assert_int_equal(listen_open(&w->set, &w->local, &options, w->error), 0);
	assert_int_equal(unlink(w->path), 0);
	assert_int_equal(listen_open(&w->other, &w->local, &options, w->error), 0);
	listen_finish(&w->set);
	assert_true(can_connect(w->path));
}

static void names_a_group_that_does_not_exist(void **state)
{
	struct world *w = *state;
	const struct listen_options wrong = { .unix_mode = 0660, .unix_group = "no-such-group-x" };
	struct stat st;
	assert_int_equal(listen_open(&w->set, &w->local, &wrong, w->error), -ENOENT);
	assert_non_null(strstr(w->error, "no-such-group-x"));
	assert_int_equal(lstat(w->path, &st), -1);
}

/* Descriptors 3 and 4 as systemd passes them; what was there is put back. */
static void takes_the_systemd_sockets_of_its_name(void **state)
{
	struct world *w = *state;
	struct config_listen l = tcp("127.0.0.1", 0), systemd = { .kind = CONFIG_LISTEN_SYSTEMD };
	char pid[32];
	int saved[2] = { fcntl(3, F_DUPFD_CLOEXEC, 100), fcntl(4, F_DUPFD_CLOEXEC, 100) };
	assert_int_equal(listen_open(&w->other, &l, &options, w->error), 0);
	assert_int_equal(listen_open(&w->other, &l, &options, w->error), 0);
	int copies[2] = { fcntl(w->other.items[0].fd, F_DUPFD_CLOEXEC, 100),
			  fcntl(w->other.items[1].fd, F_DUPFD_CLOEXEC, 100) };
	(void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	assert_int_equal(setenv("LISTEN_PID", pid, 1), 0);
	assert_int_equal(setenv("LISTEN_FDS", "2", 1), 0);
	assert_int_equal(setenv("LISTEN_FDNAMES", "admin:hook", 1), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(dup2(copies[i], 3 + i), 3 + i);
	int r = listen_open(&w->set, &systemd, &options, w->error);
	(void)setenv("LISTEN_FDNAMES", "admin:other", 1);
	struct listen_set none = { 0 };
	int missing = listen_open(&none, &systemd, &options, w->error);
	for (int i = 0; i < 2; i++) {
		(void)close(3 + i);
		if (saved[i] >= 0) {
			(void)dup2(saved[i], 3 + i);
			(void)close(saved[i]);
		}
		(void)close(copies[i]);
	}
	(void)unsetenv("LISTEN_PID");
	/* 3 and 4 may have been the other set's own. */
	w->other.n = 0;
	assert_int_equal(r, 0);
	assert_int_equal(w->set.n, 1);
	assert_true(w->set.items[0].inherited);
	assert_string_equal(w->set.items[0].text, w->other.items[1].text);
	assert_int_equal(missing, -ENOENT);
	assert_non_null(strstr(w->error, "FileDescriptorName=hook"));
	assert_int_equal(listen_open(&none, &systemd, &options, w->error), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(tells_the_port_that_the_kernel_chose),
		TEST(says_that_another_process_listens_there),
		TEST(listens_on_ipv6_beside_ipv4),
		TEST(a_unix_socket_gets_its_mode_and_goes_with_the_set),
		TEST(replaces_the_socket_of_a_process_that_died),
		TEST(leaves_a_socket_that_answers_alone),
		TEST(never_removes_a_file_that_is_no_socket),
		TEST(does_not_take_down_a_path_that_somebody_else_took_over),
		TEST(names_a_group_that_does_not_exist),
		TEST(takes_the_systemd_sockets_of_its_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
