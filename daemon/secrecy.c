/* Secrets lie in the memory of the daemon and of the tool that signs. A core file would carry them
 * to disk, a debugger of the same user would read them.
 *
 * "Not dumpable" covers both, and also cores that are piped to a collector, which a limit of 0 does
 * not stop. It does not keep root away, nor pages out of swap.
 */
#include "secrecy.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif

void secrecy_begin(void)
{
	const struct rlimit none = { .rlim_cur = 0, .rlim_max = 0 };

	(void)setrlimit(RLIMIT_CORE, &none);
#ifndef IS_SANITIZED /* the leak sanitizer reads its own process as a debugger does */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}
