/* A process that holds secrets keeps its memory to itself. */
#pragma once

#include "base.h"

/* From here on nobody but root may read this process's memory or environment, and a crash leaves no
 * core file. Call it before the first secret is read. */
void secrecy_begin(void);
