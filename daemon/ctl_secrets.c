/* Secrets of one source, for the commands that sign and verify. Read here and not with the
 * configuration: a source whose secrets this user may not read must not keep another from being
 * used. Everything that held a byte of them is wiped.
 */
#include "ctl_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_MAX 65536
#define PATH_BYTES 4096
#define BOM "\xef\xbb\xbf"

static int refuse(char error[static CTL_ERROR_MAX], int code, const char *name, const char *what)
{
	(void)snprintf(error, CTL_ERROR_MAX, "[source %s] %s", name, what);
	return code;
}

static int locate(const struct config_source *source, char path[static PATH_BYTES],
		  char error[static CTL_ERROR_MAX])
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY"), *value = NULL;
	int n = -1;

	switch (source->secret_from) {
	case CONFIG_SECRET_NONE:
		break;
	case CONFIG_SECRET_FILE:
		n = snprintf(path, PATH_BYTES, "%s", source->secret_name);
		break;
	case CONFIG_SECRET_CREDENTIAL:
		if (!directory)
			return refuse(error, -ENOENT, source->name,
				      "secret_credential: only the unit has it; set "
				      "CREDENTIALS_DIRECTORY to a folder with a copy");
		n = snprintf(path, PATH_BYTES, "%s/%s", directory, source->secret_name);
		break;
	case CONFIG_SECRET_ENV:
		value = getenv(source->secret_name);
		if (!value || *value != '/')
			return refuse(error, -ENOENT, source->name,
				      "secret_env: the variable must be set here, too, to the "
				      "absolute path of a file");
		n = snprintf(path, PATH_BYTES, "%s", value);
		break;
	}
	if (n < 0 || n >= PATH_BYTES)
		return refuse(error, -ENOENT, source->name, "has no secret_file");
	return 0;
}

static int read_all(const char *path, struct ctl_secrets *ret)
{
	/* Not blocking: a FIFO is refused below, not waited for. */
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	ret->text = malloc(TEXT_MAX + 1);
	if (!ret->text)
		return -ENOMEM;
	while (ret->len <= TEXT_MAX) {
		ssize_t n = read(fd, ret->text + ret->len, TEXT_MAX + 1 - ret->len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return 0;
		ret->len += n > 0 ? (size_t)n : 0;
	}
	return -EFBIG;
}

/* As the keyring reads them: a line each, blanks around dropped. */
static void split(struct ctl_secrets *secrets)
{
	const char *s = secrets->text, *end = s + secrets->len;

	if (secrets->len >= 3 && memcmp(s, BOM, 3) == 0)
		s += 3;
	while (s < end && secrets->n < SIGNATURE_SECRETS_MAX) {
		const char *stop = memchr(s, '\n', (size_t)(end - s));
		struct span line = { s, (size_t)((stop ? stop : end) - s) };
		for (; line.len > 0 && memchr(" \t\r", *line.s, 3); line.s++)
			line.len--;
		while (line.len > 0 && memchr(" \t\r", line.s[line.len - 1], 3))
			line.len--;
		if (line.len > 0)
			secrets->items[secrets->n++] = line;
		s = stop ? stop + 1 : end;
	}
}

int ctl_secrets_read(const struct config_source *source, struct ctl_secrets *ret,
		     char error[static CTL_ERROR_MAX])
{
	char path[PATH_BYTES];
	int r;

	*ret = (struct ctl_secrets) { .n = 0 };
	r = locate(source, path, error);
	if (r < 0)
		return r;
	r = read_all(path, ret);
	if (r < 0) {
		ctl_secrets_finish(ret);
		(void)snprintf(error, CTL_ERROR_MAX, "[source %.64s] secrets: %.256s: %s%s",
			       source->name, path,
			       r == -EFBIG    ? "too large"
			       : r == -EINVAL ? "not a regular file"
					      : strerror(-r),
			       r == -EACCES ? ": run this as root or as the daemon's user" : "");
		return r;
	}
	split(ret);
	if (ret->n > 0)
		return 0;
	ctl_secrets_finish(ret);
	return refuse(error, -ENOENT, source->name, "its secret file holds no secret");
}

void ctl_secrets_finish(struct ctl_secrets *secrets)
{
	if (secrets->text)
		explicit_bzero(secrets->text, TEXT_MAX + 1);
	free(secrets->text);
	*secrets = (struct ctl_secrets) { .n = 0 };
}

int ctl_secrets_keyring(const struct config_source *source, const struct ctl_secrets *secrets,
			struct signature_keyring **ret, char error[static CTL_ERROR_MAX])
{
	int r = signature_keyring_new(source->scheme, secrets->text, secrets->len, ret);

	if (r == 0 && signature_keyring_count(*ret) > 0)
		return 0;
	if (r == 0) {
		signature_keyring_free(*ret);
		*ret = NULL;
	}
	return refuse(error, r < 0 ? r : -ENOENT, source->name,
		      "its secret file is not accepted: see e2b-hookctl check-config");
}

static void put_header(struct ctl_signed *s, const char *name, const char *value)
{
	assert(s->n < ARRAY_SIZE(s->headers));
	s->headers[s->n].name = name;
	(void)snprintf(s->headers[s->n].value, sizeof(s->headers[0].value), "%s", value);
	s->n++;
}

static int sign_standard(const struct signature_keyring *keyring, const char *id,
			 const char *timestamp, struct signature_input input,
			 struct ctl_signed *ret)
{
	char made_id[CTL_UUID_MAX + 4] = "msg_", made_time[24], value[SIGNATURE_TEXT_MAX];
	int r = id ? 0 : ctl_make_uuid(made_id + 4);

	if (r < 0)
		return r;
	(void)snprintf(made_time, sizeof(made_time), "%lld", (long long)input.now_unix_s);
	if (!id)
		id = made_id;
	if (!timestamp)
		timestamp = made_time;
	input.id = (struct span) { id, strlen(id) };
	input.timestamp = (struct span) { timestamp, strlen(timestamp) };
	r = signature_sign(keyring, 1, &input, value);
	if (r < 0)
		return r;
	put_header(ret, "webhook-id", id);
	put_header(ret, "webhook-timestamp", timestamp);
	put_header(ret, "webhook-signature", value);
	return 0;
}

int ctl_secrets_sign(const struct config_source *source, const struct signature_keyring *keyring,
		     const char *id, const char *timestamp, struct span body, int64_t now_unix_s,
		     struct ctl_signed *ret)
{
	struct signature_input input = { .body = body, .now_unix_s = now_unix_s };
	char value[SIGNATURE_TEXT_MAX];

	ret->n = 0;
	if (source->scheme == SIGNATURE_STANDARD_WEBHOOKS)
		return sign_standard(keyring, id, timestamp, input, ret);
	int r = signature_sign(keyring, 1, &input, value);
	if (r == 0)
		put_header(ret, source->header, value);
	return r;
}
