/* Log lines, built whole in one array on the stack and written with one write(2).
 *
 * Invariant: a line is one line. Whatever comes from outside is escaped unit by unit (a character
 * or its escape, never half of one), and what exceeds LOG_LINE_MAX is cut at such a border, marked,
 * and still closed properly: a cut JSON line parses. Lines are shorter than PIPE_BUF, so those of
 * two threads do not mix. Nobody waits here for anything but the kernel's write, and a line that
 * cannot be written is lost: there is no place to report it.
 */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "clock.h"

#define LINE_TAIL 24 /* kept free for the closing quote, the mark of a cut and the newline */
#define LIMIT_WINDOW_MS 10000

static_assert(LOG_LINE_MAX <= 4096, "a longer line would not be one write into a pipe");

struct line {
	char text[LOG_LINE_MAX];
	size_t len;
	bool cut;
};

static const struct {
	const char *name;
	int priority; /* of syslog(3) */
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", 3 },   [LOG_LEVEL_WARNING] = { "warning", 4 },
	[LOG_LEVEL_NOTICE] = { "notice", 5 }, [LOG_LEVEL_INFO] = { "info", 6 },
	[LOG_LEVEL_DEBUG] = { "debug", 7 },
};

static atomic_int level_now = LOG_LEVEL_INFO;
static atomic_int format_now = LOG_FORMAT_TEXT;
static atomic_bool journald;
static pthread_mutex_t limit_lock = PTHREAD_MUTEX_INITIALIZER; /* all struct log_limit */

/* The variable is inherited by children whose standard error went elsewhere, so it names the stream
 * by device and inode (systemd.exec(5)). */
static bool stderr_is_journald(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat st;
	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	char ours[64];
	(void)snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, ours) == 0;
}

void log_configure(enum log_level level, enum log_format format)
{
	atomic_store(&level_now, (int)level);
	atomic_store(&format_now, (int)format);
	atomic_store(&journald, stderr_is_journald());
}

bool log_level_from_name(const char *name, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(name, levels[i].name) != 0)
			continue;
		*ret_level = (enum log_level)i;
		return true;
	}
	return false;
}

/* All of it or, from then on, nothing. */
static bool put(struct line *line, const char *unit, size_t len)
{
	if (line->cut || line->len + len > sizeof(line->text) - LINE_TAIL) {
		line->cut = true;
		return false;
	}
	memcpy(line->text + line->len, unit, len);
	line->len += len;
	return true;
}

static void PRINTF_LIKE(2, 3) putf(struct line *line, const char *fmt, ...)
{
	char unit[128];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(unit, sizeof(unit), fmt, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof(unit))
		line->cut = true;
	else
		(void)put(line, unit, (size_t)n);
}

static void put_tail(struct line *line, const char *text)
{
	size_t len = strlen(text);
	assert(len <= sizeof(line->text) - line->len);
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

/* Length of the well-formed UTF-8 sequence (RFC 3629) at `s`, 0 if there is none. A NUL ends it. */
static size_t take_utf8(const char *s, uint32_t *ret_code)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char)s[0];
	size_t len = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	if (len == 0 || first > 0xf4)
		return 0;
	uint32_t code = len == 1 ? first : first & (0xffU >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		if ((c & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (c & 0x3f);
	}
	if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return len;
}

/* Characters that act on a terminal or a viewer instead of being seen: C0, DEL, C1, line and
 * paragraph separators, changes of writing direction. */
static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x061c || code == 0x200e ||
	       code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069);
}

/* A control character, or a byte that is not UTF-8 (len 0): told in text, replaced in JSON, which
 * has no escape for it. */
static bool put_escape(struct line *line, enum log_format format, unsigned char byte, size_t len,
		       uint32_t code)
{
	char unit[12];
	if (byte == '\n')
		(void)snprintf(unit, sizeof(unit), "\\n");
	else if (len <= 1 && format == LOG_FORMAT_TEXT)
		(void)snprintf(unit, sizeof(unit), "\\x%02x", (unsigned int)byte);
	else
		(void)snprintf(unit, sizeof(unit), "\\u%04" PRIx32, len == 0 ? 0xfffd : code);
	return put(line, unit, strlen(unit));
}

/* `special`: the printable characters that need a backslash here. */
static void put_escaped(struct line *line, enum log_format format, const char *s,
			const char *special)
{
	bool room = true;
	while (*s && room) {
		uint32_t code = 0;
		size_t len = take_utf8(s, &code);
		if (len == 0 || is_control(code))
			room = put_escape(line, format, (unsigned char)*s, len, code);
		else if (len == 1 && strchr(special, *s))
			room = put(line, (const char[]) { '\\', *s }, 2);
		else
			room = put(line, s, len);
		s += len ? len : 1;
	}
}

static bool can_be_bare(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || strchr("\"\\=", *s))
			return false;
	return true;
}

static void put_quoted(struct line *line, enum log_format format, const char *s)
{
	if (!put(line, "\"", 1))
		return;
	put_escaped(line, format, s, "\"\\");
	put_tail(line, "\"");
}

static void put_field(struct line *line, enum log_format format, const struct log_field *field)
{
	bool json = format == LOG_FORMAT_JSON;
	if (!field->is_number && !field->text)
		return;
	size_t before = line->len;
	putf(line, json ? ",\"%s\":" : " %s=", field->key);
	if (field->is_number)
		putf(line, "%" PRId64, field->number);
	else if (!json && can_be_bare(field->text))
		put_escaped(line, format, field->text, "");
	else
		put_quoted(line, format, field->text);
	/* No key without the beginning of a value. */
	if (line->cut && line->text[line->len - 1] == (json ? ':' : '='))
		line->len = before;
}

static void build_text(struct line *line, enum log_level level, const char *message,
		       const struct log_field *fields, size_t n)
{
	char time[CLOCK_TEXT_MAX];
	if (atomic_load(&journald))
		putf(line, "<%d>%s ", levels[level].priority, levels[level].name);
	else
		putf(line, "%s %s ", clock_format_ms(clock_unix_ms(), time), levels[level].name);
	put_escaped(line, LOG_FORMAT_TEXT, message, "");
	for (size_t i = 0; i < n; i++)
		put_field(line, LOG_FORMAT_TEXT, &fields[i]);
	put_tail(line, line->cut ? " ...\n" : "\n");
}

/* journald takes a leading `<N>` off the line; what it stores is the JSON alone. */
static void build_json(struct line *line, enum log_level level, const char *message,
		       const struct log_field *fields, size_t n)
{
	char time[CLOCK_TEXT_MAX];
	if (atomic_load(&journald))
		putf(line, "<%d>", levels[level].priority);
	putf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":",
	     clock_format_ms(clock_unix_ms(), time), levels[level].name);
	put_quoted(line, LOG_FORMAT_JSON, message);
	for (size_t i = 0; i < n; i++)
		put_field(line, LOG_FORMAT_JSON, &fields[i]);
	put_tail(line, line->cut ? ",\"truncated\":true}\n" : "}\n");
}

bool log_level_is_on(enum log_level level)
{
	return (int)level <= atomic_load(&level_now);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n)
{
	if (!log_level_is_on(level))
		return;
	int saved_errno = errno;
	struct line line;
	line.len = 0;
	line.cut = false;
	if (atomic_load(&format_now) == LOG_FORMAT_JSON)
		build_json(&line, level, message, fields, n);
	else
		build_text(&line, level, message, fields, n);
	while (write(STDERR_FILENO, line.text, line.len) < 0 && errno == EINTR)
		;
	errno = saved_errno;
}

void log_say(enum log_level level, const char *fmt, ...)
{
	if ((int)level > atomic_load(&level_now))
		return;
	/* What does not fit here does not fit the line either: it will be marked as cut. */
	char message[LOG_LINE_MAX];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (n >= 0)
		log_write(level, message, NULL, 0);
}

bool log_limit_allows(struct log_limit *limit, unsigned int *ret_held_back)
{
	int64_t now_ms = clock_mono_ms();
	(void)pthread_mutex_lock(&limit_lock);
	if (now_ms - limit->window_start_ms >= LIMIT_WINDOW_MS) {
		limit->window_start_ms = now_ms;
		limit->used = 0;
	}
	bool allowed = limit->used < limit->burst;
	if (allowed)
		limit->used++;
	else
		limit->held_back++;
	if (ret_held_back) {
		*ret_held_back = allowed ? limit->held_back : 0;
		if (allowed)
			limit->held_back = 0;
	}
	(void)pthread_mutex_unlock(&limit_lock);
	return allowed;
}
