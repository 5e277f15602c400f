/* Memory that runs out: the nth allocation fails, once or with all after it. Those of the product's
 * own code (the linker puts --wrap in front of malloc and its kin, see meson.build), of SQLite and
 * of OpenSSL; not those of libc, libmicrohttpd, libcurl and cmocka.
 */
#pragma once

#include "base.h"

/* SQLite's and OpenSSL's allocators; before the first use of either. */
void memory_install(void);

void memory_break(long n, bool stays);
void memory_mend(void);
long memory_calls(void); /* since memory_break */
long memory_failed(void);

/* What this thread allocates neither counts nor fails. Threads begin exposed. */
void memory_spare(bool on);
