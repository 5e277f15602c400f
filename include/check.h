/* What `e2b-hookd --check` and `e2b-hookctl check-config` print, from one place. */
#pragma once

#include "base.h"
#include "config.h"

/* `file:line: error: text`, one problem a line, in file order; `file: error: …` for the file as a
 * whole. */
void check_print_report(FILE *f, const char *path, const struct config_report *report);
/* Loads and prints all problems to `errors`; a sentence to `out` when there is no error. Returns
 * the exit code: 0 or 78; 71 without memory. */
int check_run(const char *path, FILE *out, FILE *errors);
