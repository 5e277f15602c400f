/* Spawn, read, wait, end.
 *
 * The input lies in a memory file: the program may read it or not, at its own pace, and we never
 * block on it nor get a SIGPIPE. A process is reaped only after its group was ended: until then its
 * id, and so the group's, cannot be given to anybody else.
 */
#include "command.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define LOOK_MS 20
#define GRACE_MS 1000 /* from SIGTERM to SIGKILL */
#define GRACE_STOPPED_MS 100
#define KILL_WAIT_MS 1000 /* for the kernel to end what sleeps in it */

static const char *const environment[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LANG=C.UTF-8",
	NULL,
};

/* Descriptors 0 to 2 are where the child's own go. */
static int above_standard(int fd)
{
	if (fd < 0)
		return -errno;
	if (fd > STDERR_FILENO)
		return fd;
	int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	int r = higher < 0 ? -errno : higher;
	(void)close(fd);
	return r;
}

/* A descriptor from which the input is read, or a negative errno. */
static int open_input(struct span input)
{
	CLEANUP_CLOSE int fd = above_standard(memfd_create("notification", MFD_CLOEXEC));

	if (fd < 0)
		return fd;
	for (size_t done = 0; done < input.len;) {
		ssize_t n = pwrite(fd, input.s + done, input.len - done, (off_t)done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	int ret = fd;
	fd = -1;
	return ret;
}

static int open_output(int *ret_read, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = above_standard(fds[0]);
	*ret_write = above_standard(fds[1]);
	if (*ret_read < 0 || *ret_write < 0)
		return *ret_read < 0 ? *ret_read : *ret_write;
	return fcntl(*ret_read, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* 0 or a positive errno, as posix_spawn has it. */
static int set_up_files(posix_spawn_file_actions_t *actions, int input, int output)
{
	int r = posix_spawn_file_actions_adddup2(actions, input, STDIN_FILENO);

	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, output, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, output, STDERR_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
	if (r == 0)
		r = posix_spawn_file_actions_addchdir_np(actions, "/");
	return r;
}

static int set_up_process(posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	int r = posix_spawnattr_setflags(
		attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	if (r == 0)
		r = posix_spawnattr_setpgroup(attributes, 0);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attributes, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attributes, &all);
	return r;
}

static int spawn(const char *path, int input, int output, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *const argv[] = { (char *)(uintptr_t)path, NULL };
	int r = posix_spawn_file_actions_init(&actions);

	if (r != 0)
		return r;
	r = posix_spawnattr_init(&attributes);
	if (r == 0) {
		r = set_up_files(&actions, input, output);
		if (r == 0)
			r = set_up_process(&attributes);
		if (r == 0)
			r = posix_spawn(ret_pid, path, &actions, &attributes, argv,
					(char *const *)(uintptr_t)environment);
		(void)posix_spawnattr_destroy(&attributes);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Takes what there is. False once nobody can write any more. */
static bool take_output(int fd, struct command_result *ret)
{
	char chunk[4096];

	/* Bounded: a program that prints without end must not keep us from its deadline. */
	for (int i = 0; i < 64; i++) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n == 0)
			return false;
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		size_t take = base_min_size((size_t)n, COMMAND_OUTPUT_MAX - ret->output_len);
		memcpy(ret->output + ret->output_len, chunk, take);
		ret->output_len += take;
	}
	return true;
}

/* Has it ended? It stays to be reaped. Also true when it is not ours to wait for. */
static bool has_ended(pid_t pid)
{
	siginfo_t info = { 0 };
	int r = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);

	return r < 0 ? errno != EINTR : info.si_pid == pid;
}

/* Until it ends (0), its time is up or it is to stop. */
static int watch(pid_t pid, int output, int64_t deadline_mono_ms, const atomic_bool *stop,
		 struct command_result *ret)
{
	struct pollfd p = { .fd = output, .events = POLLIN };

	for (;;) {
		bool ended = has_ended(pid);
		if (p.fd >= 0 && !take_output(p.fd, ret))
			p.fd = -1; /* poll(2) then only waits */
		if (ended)
			return 0;
		if (stop && atomic_load(stop))
			return COMMAND_STOPPED;
		int64_t left_ms = deadline_mono_ms - clock_mono_ms();
		if (left_ms <= 0)
			return COMMAND_TIMEOUT;
		(void)poll(&p, 1, (int)base_min_i64(left_ms, LOOK_MS));
	}
}

static int reap(pid_t pid, struct command_result *ret)
{
	int status = 0;
	pid_t r;

	do
		r = waitpid(pid, &status, WNOHANG);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	ret->code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
	return r > 0 && WIFSIGNALED(status) ? COMMAND_SIGNALLED : 0;
}

int command_run(const char *path, struct span input, int64_t timeout_ms, const atomic_bool *stop,
		struct command_result *ret)
{
	CLEANUP_CLOSE int in = -1, out_read = -1, out_write = -1;
	int64_t deadline_mono_ms = clock_mono_ms() + timeout_ms;
	pid_t pid = -1;

	*ret = (struct command_result) { 0 };
	in = open_input(input);
	if (in < 0)
		return in;
	int r = open_output(&out_read, &out_write);
	if (r < 0)
		return r;
	ret->error = spawn(path, in, out_write, &pid);
	if (ret->error != 0)
		return COMMAND_NOT_RUN;
	(void)close(out_write);
	out_write = -1;
	int outcome = watch(pid, out_read, deadline_mono_ms, stop, ret);
	if (outcome != 0) {
		int64_t grace_ms = outcome == COMMAND_STOPPED ? GRACE_STOPPED_MS : GRACE_MS;
		(void)kill(-pid, SIGTERM);
		(void)watch(pid, out_read, clock_mono_ms() + grace_ms, NULL, ret);
	}
	(void)kill(-pid, SIGKILL);
	(void)watch(pid, out_read, clock_mono_ms() + KILL_WAIT_MS, NULL, ret);
	r = reap(pid, ret);
	return outcome != 0 ? outcome : r;
}
