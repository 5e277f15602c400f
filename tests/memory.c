#include "memory.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

static atomic_long n_calls, n_failed, fail_at; /* 0: none */
static atomic_bool fails_on;
static _Thread_local bool is_spared;

void memory_break(long n, bool stays)
{
	atomic_store(&fail_at, 0);
	atomic_store(&n_calls, 0);
	atomic_store(&n_failed, 0);
	atomic_store(&fails_on, stays);
	atomic_store(&fail_at, n);
}

void memory_mend(void)
{
	atomic_store(&fail_at, 0);
}

long memory_calls(void)
{
	return atomic_load(&n_calls);
}

long memory_failed(void)
{
	return atomic_load(&n_failed);
}

void memory_spare(bool on)
{
	is_spared = on;
}

static bool fails(void)
{
	long at = atomic_load(&fail_at);
	if (at == 0 || is_spared)
		return false;
	long call = atomic_fetch_add(&n_calls, 1) + 1;
	if (call < at || (call > at && !atomic_load(&fails_on)))
		return false;
	atomic_fetch_add(&n_failed, 1);
	errno = ENOMEM;
	return true;
}

/* The product's own ---------------------------------------------------------- */

#define WRAP(type, name, parameters, arguments)                                                    \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return fails() ? NULL : __real_##name arguments;                                   \
	}

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *old, size_t n), (old, n))
WRAP(void *, reallocarray, (void *old, size_t n, size_t size), (old, n, size))
WRAP(char *, strdup, (const char *s), (s))
WRAP(char *, strndup, (const char *s, size_t n), (s, n))
WRAP(FILE *, open_memstream, (char **text, size_t *size), (text, size))
WRAP(char *, realpath, (const char *path, char *buf), (path, buf))

static int print_new(char **ret, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static int print_new(char **ret, const char *fmt, va_list args)
{
	*ret = NULL;
	return fails() ? -1 : vasprintf(ret, fmt, args);
}

int __wrap_asprintf(char **ret, const char *fmt, ...) PRINTF_LIKE(2, 3);
int __wrap_asprintf(char **ret, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = print_new(ret, fmt, args);
	va_end(args);
	return n;
}

int __wrap___asprintf_chk(char **ret, int flag, const char *fmt, ...) PRINTF_LIKE(3, 4);
int __wrap___asprintf_chk(char **ret, int flag, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = print_new(ret, fmt, args);
	va_end(args);
	return n;
}

/* SQLite's and OpenSSL's -------------------------------------------------------- */

static sqlite3_mem_methods sqlite_real;

static void *sqlite_malloc(int n)
{
	return fails() ? NULL : sqlite_real.xMalloc(n);
}

static void *sqlite_realloc(void *old, int n)
{
	return fails() ? NULL : sqlite_real.xRealloc(old, n);
}

static void *openssl_malloc(size_t n, const char *file, int line)
{
	return n == 0 || fails() ? NULL : __real_malloc(n);
}

static void *openssl_realloc(void *old, size_t n, const char *file, int line)
{
	if (n == 0) {
		free(old);
		return NULL;
	}
	return fails() ? NULL : __real_realloc(old, n);
}

static void openssl_free(void *old, const char *file, int line)
{
	free(old);
}

void memory_install(void)
{
	int r = sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_real);
	sqlite3_mem_methods methods = sqlite_real;
	methods.xMalloc = sqlite_malloc;
	methods.xRealloc = sqlite_realloc;
	assert(r == SQLITE_OK && sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK);
	/* Else small pieces come from memory that every connection has from its beginning. */
	assert(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) == SQLITE_OK);
	assert(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK);
	assert(CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) == 1);
}
