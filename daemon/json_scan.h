/* The grammar behind json.h: what may be shown to the tree builder at all, and what has to be
 * mended in a copy first. Internal to json.c; the fuzzer and the tests reach it through json.h.
 * Pure.
 */
#pragma once

#include "base.h"

/* 0, JSON_NOT_ONE_OBJECT, JSON_TOO_DEEP, JSON_TOO_MANY (in this precedence) or -ENOMEM. On 0,
 * *ret_repair says whether the text needs json_scan_repair before cJSON can read it faithfully. */
MUST_CHECK int json_scan_text(const char *text, size_t len, bool *ret_repair);

/* Mends, in place and without changing the length, a text that json_scan_text accepted: \u0000 and
 * lone surrogate escapes become \ufffd; numbers longer than cJSON's buffer are written shorter and
 * padded with blanks. text[len] must be NUL. */
void json_scan_repair(char *text, size_t len);

/* Length of the well-formed UTF-8 sequence at the beginning: 1 to 4; 0 if there is none (len 0
 * included). */
size_t json_scan_utf8(const char *text, size_t len);
