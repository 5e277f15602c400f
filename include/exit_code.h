/* Exit codes of the daemon: those of the tool, else sysexits(3), by which a service manager can
 * tell what a restart may mend. Header only.
 *
 * 0 stopped as asked; 2 wrong command line; 65 the store is corrupt, foreign or newer; 69 another
 * process has the port; 70 a fault of our own; 71 the system refused threads, memory, sockets;
 * 73 the store's directory is missing; 74 the disk failed or is full; 75 another daemon has the
 * store; 77 no permission; 78 the configuration is wrong.
 *
 * 2, 65 and 78 do not go away by themselves: RestartPreventExitStatus.
 */
#pragma once

#include <errno.h>
#include <sysexits.h>

#define EXIT_CODE_USAGE 2

/* Of storage_open's errors. */
static inline int exit_code_of_store(int error)
{
	switch (-error) {
	case EBUSY:
		return EX_TEMPFAIL;
	case EPERM:
	case EPROTO:
	case EUCLEAN:
		return EX_DATAERR;
	case EACCES:
	case EROFS:
		return EX_NOPERM;
	case ENOENT:
	case ENOTDIR:
		return EX_CANTCREAT;
	case EIO:
	case ENOSPC:
		return EX_IOERR;
	case EOPNOTSUPP: /* a network file system: another path must be configured */
	case EINVAL:
		return EX_CONFIG;
	default:
		return EX_OSERR;
	}
}

/* Of listen_open's errors. */
static inline int exit_code_of_listener(int error)
{
	switch (-error) {
	case EADDRINUSE:
		return EX_UNAVAILABLE;
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case EADDRNOTAVAIL:
	case EEXIST:
	case ENAMETOOLONG:
	case ENOENT:
		return EX_CONFIG;
	default:
		return EX_OSERR;
	}
}
