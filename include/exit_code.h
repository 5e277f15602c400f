/* Exit codes of the daemon: sysexits(3), by which a service manager can tell what a restart may
 * mend. Header only.
 *
 *   0   stopped as asked          69  another process has the port      74  the disk failed, is
 * full 64  wrong command line        70  a fault of our own                75  another daemon has
 * the store 65  the store is corrupt,     71  the system refused threads,       77  no permission
 *       foreign or newer              memory, sockets                   78  the configuration is
 * wrong 73  the store's directory is missing
 *
 * 64, 65 and 78 do not go away by themselves: RestartPreventExitStatus.
 */
#pragma once

#include <errno.h>
#include <sysexits.h>

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
