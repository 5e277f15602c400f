/* The files that hold secrets: found, read, judged, and turned into keyrings and the admin token.
 *
 * Invariant: no byte of a file leaves this module except into a keyring or the token; buffers are
 * wiped. Every message names the file and what to do about it. What only the service manager
 * provides (a credential, a variable of the unit) cannot be judged by a check outside of it: that
 * is a warning there, and an error in the daemon.
 */
#include "config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define OWNER_ADVICE "chown root:e2b-hookd and chmod 0640 make it so"

/* A file's bytes, wiped when they go. */
struct secret_text {
	char *bytes;
	size_t len;
};

static void secret_text_finish(struct secret_text *text)
{
	if (text->bytes)
		explicit_bzero(text->bytes, text->len);
	free(text->bytes);
}

/* Reads until the end or `size`; the count or -errno. */
static ssize_t secrets_read(int fd, char *bytes, size_t size)
{
	size_t len = 0;
	while (len < size) {
		ssize_t n = read(fd, bytes + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

int config_secrets_read_file(const char *path, size_t max, char **ret, size_t *ret_len,
			     struct stat *ret_stat)
{
	/* Not blocking: a FIFO must not hold the daemon. */
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, ret_stat) < 0)
		return -errno;
	if (!S_ISREG(ret_stat->st_mode))
		return -EINVAL;
	char *bytes = malloc(max + 1);
	if (!bytes)
		return -ENOMEM;
	ssize_t n = secrets_read(fd, bytes, max + 1);
	if (n < 0 || (size_t)n > max) {
		explicit_bzero(bytes, max + 1);
		free(bytes);
		return n < 0 ? (int)n : -EFBIG;
	}
	*ret = bytes;
	*ret_len = (size_t)n;
	return 0;
}

/* Where a message goes. */
struct secret_place {
	struct config_reading *r;
	const struct config_instance *instance;
	const char *key;
	unsigned int line;
	const char *path;
};

static void secrets_complain(const struct secret_place *place, bool is_error, const char *what)
{
	char quoted[CONFIG_QUOTE_MAX];
	config_read_complain(place->r, is_error, place->line, place->instance, "%s: %s %s",
			     place->key, config_report_quote(quoted, place->path), what);
}

static void secrets_complain_unreadable(const struct secret_place *place, int rc)
{
	char what[CONFIG_WHY_MAX];

	if (rc == -EFBIG)
		(void)snprintf(what, sizeof(what), "is larger than %d KiB: not a file of secrets",
			       CONFIG_SECRET_FILE_MAX / 1024);
	else if (rc == -EINVAL)
		(void)snprintf(what, sizeof(what), "is not a regular file");
	else if (rc == -ENOENT || rc == -ENOTDIR)
		(void)snprintf(what, sizeof(what),
			       "does not exist: create it, readable for the daemon; " OWNER_ADVICE);
	else
		(void)snprintf(what, sizeof(what),
			       "cannot be read (%s): the daemon must be able to; " OWNER_ADVICE,
			       strerror(-rc));
	secrets_complain(place, true, what);
}

/* True with the text, or reports (in the report, or place->r->rc for memory). */
static bool secrets_load(const struct secret_place *place, struct secret_text *ret)
{
	struct stat st = { 0 };
	int rc = config_secrets_read_file(place->path, CONFIG_SECRET_FILE_MAX, &ret->bytes,
					  &ret->len, &st);
	if (rc == -ENOMEM) {
		place->r->rc = rc;
		return false;
	}
	if (rc < 0) {
		secrets_complain_unreadable(place, rc);
		return false;
	}
	assert(ret->bytes);
	if (st.st_mode & S_IWOTH)
		secrets_complain(place, false, "can be written by every user: chmod 0640");
	else if (st.st_mode & S_IROTH)
		secrets_complain(place, false, "can be read by every user: chmod 0640");
	return true;
}

/* ---- where ---- */

static void secrets_not_here(struct config_reading *r, const struct config_instance *instance,
			     const char *key, const char *what)
{
	bool is_check = r->secrets == CONFIG_SECRETS_CHECK;
	config_read_complain(r, !is_check, config_read_line_of(instance, key), instance, "%s: %s%s",
			     key, is_check ? "not checkable here: " : "", what);
}

/* `$CREDENTIALS_DIRECTORY/name`. */
static void secrets_locate_credential(struct config_reading *r, struct config_instance *instance)
{
	struct config_source *source = instance->target;
	const char *directory = getenv("CREDENTIALS_DIRECTORY");

	if (!directory || directory[0] != '/') {
		secrets_not_here(r, instance, "secret_credential",
				 "CREDENTIALS_DIRECTORY is not set; the unit sets it where it says "
				 "LoadCredential=");
		return;
	}
	if (asprintf(&source->secret_path, "%s/%s", directory, source->secret_name) < 0) {
		source->secret_path = NULL;
		r->rc = -ENOMEM;
	}
}

static void secrets_locate_variable(struct config_reading *r, struct config_instance *instance)
{
	struct config_source *source = instance->target;
	const char *path = getenv(source->secret_name);

	if (!path || *path == '\0') {
		secrets_not_here(r, instance, "secret_env",
				 "the variable is not set; it must hold the path of a file");
		return;
	}
	/* Not quoted: it may hold the secret itself. */
	if (path[0] != '/') {
		config_read_complain(r, true, config_read_line_of(instance, "secret_env"), instance,
				     "secret_env: the variable must hold the absolute path of a "
				     "file, not a secret");
		return;
	}
	source->secret_path = strdup(path);
	if (!source->secret_path)
		r->rc = -ENOMEM;
}

/* The key that was given; NULL if none. Sets secret_path if there is one here. */
static const char *secrets_locate(struct config_reading *r, struct config_instance *instance)
{
	struct config_source *source = instance->target;

	switch (source->secret_from) {
	case CONFIG_SECRET_NONE:
		return NULL;
	case CONFIG_SECRET_FILE:
		source->secret_path = strdup(source->secret_name);
		if (!source->secret_path)
			r->rc = -ENOMEM;
		return "secret_file";
	case CONFIG_SECRET_CREDENTIAL:
		secrets_locate_credential(r, instance);
		return "secret_credential";
	case CONFIG_SECRET_ENV:
		secrets_locate_variable(r, instance);
		return "secret_env";
	}
	return NULL;
}

/* ---- what ---- */

static void secrets_judge(const struct secret_place *place, const struct signature_keyring *keyring)
{
	char what[CONFIG_WHY_MAX];

	if (signature_keyring_count(keyring) == 0) {
		secrets_complain(
			place, true,
			"holds no secret: refusing to start without one; write one a line");
		return;
	}
	if (signature_keyring_shortest(keyring) >= SIGNATURE_SECRET_ADVISED)
		return;
	(void)snprintf(what, sizeof(what),
		       "holds a secret shorter than %d bytes, which can be guessed from a single "
		       "delivery: use a longer, random one",
		       SIGNATURE_SECRET_ADVISED);
	secrets_complain(place, false, what);
}

static void secrets_fill_keyring(const struct secret_place *place, struct config_source *source)
{
	CLEANUP(secret_text_finish) struct secret_text text = { 0 };
	char what[CONFIG_WHY_MAX];

	if (!secrets_load(place, &text))
		return;
	int rc = signature_keyring_new(source->scheme, text.bytes, text.len,
				       &source->policy.keyring);
	if (rc == 0) {
		secrets_judge(place, source->policy.keyring);
	} else if (rc == -E2BIG) {
		(void)snprintf(what, sizeof(what),
			       "holds more than %d secrets: remove those no longer in use",
			       SIGNATURE_SECRETS_MAX);
		secrets_complain(place, true, what);
	} else if (rc == -EINVAL) {
		(void)snprintf(what, sizeof(what),
			       "is not text with one secret a line: over %d bytes, control "
			       "characters, or whsec_ that is not followed by base64",
			       SIGNATURE_SECRET_MAX);
		secrets_complain(place, true, what);
	} else {
		place->r->rc = rc;
	}
}

static void secrets_resolve_source(struct config_reading *r, struct config_instance *instance)
{
	struct config_source *source = instance->target;
	const char *key = secrets_locate(r, instance);
	if (!source->secret_path)
		return;
	const struct secret_place place = { r, instance, key, config_read_line_of(instance, key),
					    source->secret_path };
	secrets_fill_keyring(&place, source);
}

/* The one line of the token file, without blanks around; NULL after a report. */
static char *secrets_read_token(const struct secret_place *place, const struct secret_text *text)
{
	const char *s = text->bytes, *end = s + text->len;

	while (s < end && strchr(" \t\r\n", *s) && *s)
		s++;
	while (end > s && strchr(" \t\r\n", end[-1]) && end[-1])
		end--;
	for (const char *c = s; c < end; c++)
		if (*c < 0x21 || *c > 0x7e) {
			secrets_complain(place, true,
					 "must hold one token: printable ASCII without blanks");
			return NULL;
		}
	if (s == end) {
		secrets_complain(place, true, "is empty: write a long, random token into it");
		return NULL;
	}
	if (end - s < SIGNATURE_SECRET_ADVISED)
		secrets_complain(place, false,
				 "holds a short token: use 32 random characters or more");
	char *token = strndup(s, (size_t)(end - s));
	if (!token)
		place->r->rc = -ENOMEM;
	return token;
}

static void secrets_resolve_token(struct config_reading *r)
{
	struct config_instance *instance = config_read_only(r, "admin");
	struct config_admin *admin = instance->target;
	if (!admin->token_file)
		return;
	CLEANUP(secret_text_finish) struct secret_text text = { 0 };
	const struct secret_place place = { r, instance, "token_file",
					    config_read_line_of(instance, "token_file"),
					    admin->token_file };
	if (secrets_load(&place, &text))
		admin->token = secrets_read_token(&place, &text);
}

/* The one line of a url_file; judged as `url` is. */
static void secrets_read_url(struct config_reading *r, struct config_instance *instance)
{
	struct config_notify *notify = instance->target;
	CLEANUP(secret_text_finish) struct secret_text text = { 0 };
	const struct secret_place place = { r, instance, "url_file",
					    config_read_line_of(instance, "url_file"),
					    notify->url_file };
	const struct config_key key = { .type = CONFIG_TYPE_URL,
					.offset = offsetof(struct config_notify, read_url) };
	char why[CONFIG_WHY_MAX], what[CONFIG_WHY_MAX + 32];
	if (!secrets_load(&place, &text))
		return;
	size_t len = text.len;
	while (len > 0 && strchr(" \t\r\n", text.bytes[len - 1]) && text.bytes[len - 1])
		len--;
	text.bytes[len] = '\0'; /* there is room behind the last byte */
	int rc = strlen(text.bytes) == len ? config_value_parse(&key, notify, text.bytes, why)
					   : -EILSEQ;
	if (rc == -EINVAL || rc == -EILSEQ) {
		(void)snprintf(what, sizeof(what), "does not hold one URL: it %s",
			       rc == -EINVAL ? why : "holds a NUL");
		secrets_complain(&place, true, what);
	} else if (rc < 0) {
		r->rc = rc;
	}
}

static void secrets_read_signing(struct config_reading *r, struct config_instance *instance)
{
	struct config_notify *notify = instance->target;
	CLEANUP(secret_text_finish) struct secret_text text = { 0 };
	const struct secret_place place = { r, instance, "secret_file",
					    config_read_line_of(instance, "secret_file"),
					    notify->secret_file };
	if (!secrets_load(&place, &text))
		return;
	int rc = signature_keyring_new(SIGNATURE_STANDARD_WEBHOOKS, text.bytes, text.len,
				       &notify->keyring);
	if (rc == 0)
		secrets_judge(&place, notify->keyring);
	else if (rc == -E2BIG || rc == -EINVAL)
		secrets_complain(&place, true,
				 "is not text with one secret a line, whsec_ and base64 or plain");
	else
		r->rc = rc;
}

static void secrets_resolve_notify(struct config_reading *r, struct config_instance *instance)
{
	const struct config_notify *notify = instance->target;
	if (notify->url_file)
		secrets_read_url(r, instance);
	if (notify->secret_file)
		secrets_read_signing(r, instance);
}

void config_secrets_resolve(struct config_reading *r)
{
	struct config_instance *instance;

	if (r->secrets == CONFIG_SECRETS_IGNORED)
		return;
	secrets_resolve_token(r);
	for (size_t i = 0; (instance = config_read_next(r, "source", &i));)
		secrets_resolve_source(r, instance);
	for (size_t i = 0; (instance = config_read_next(r, "notify", &i));)
		secrets_resolve_notify(r, instance);
}

void config_secrets_release(const char *section, void *target)
{
	if (strcmp(section, "source") == 0) {
		struct config_source *source = target;
		signature_keyring_free(source->policy.keyring);
		source->policy.keyring = NULL;
		free(source->secret_path);
		source->secret_path = NULL;
	} else if (strcmp(section, "notify") == 0) {
		struct config_notify *notify = target;
		signature_keyring_free(notify->keyring);
		notify->keyring = NULL;
		if (notify->read_url)
			explicit_bzero(notify->read_url, strlen(notify->read_url));
		free(notify->read_url);
		notify->read_url = NULL;
	} else if (strcmp(section, "admin") == 0) {
		struct config_admin *admin = target;
		if (admin->token)
			explicit_bzero(admin->token, strlen(admin->token));
		free(admin->token);
		admin->token = NULL;
	}
}
