/* The daemon as a whole: brings the parts up in order, reloads them, takes them down in order. Main
 * thread only; signals are the caller's.
 *
 *   configuration → store → writer → listeners → ready
 *   drain → writer done → listeners gone → store closed
 */
#pragma once

#include "base.h"

struct service;

/* Everything up to "ready". 0; else an exit code (sysexits), told in one log line each. */
MUST_CHECK int service_start(const char *config_path, struct service **ret);
/* SIGHUP: takes over what can change live; on any error keeps what is. */
void service_reload(struct service *s);
/* What is due for the service manager; returns in how many ms to call it again, at the latest. */
int64_t service_tick(struct service *s);
/* As of the last tick: the store is lost or damaged in a way that a new start mends. */
bool service_wants_end(const struct service *s);
/* Begins to drain. */
void service_begin_stop(struct service *s);
/* Is the drain over: no connection left, or drain_timeout passed? */
bool service_has_drained(const struct service *s);
/* Ends the drain, whatever is left, and closes everything. */
void service_finish(struct service *s);
