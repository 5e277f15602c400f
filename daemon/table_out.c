/* Three writers behind one table of functions. Only the table holds rows back: the widths of its
 * columns follow from the first ROWS_HELD rows; later, wider cells push their line, no more. So
 * memory is bounded however many rows come.
 */
#include "table_out.h"

#include "buffer.h"
#include "json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define ROWS_HELD 1000
#define CELL_COLUMNS_MAX 64 /* of a table: the longest id that people compare fits */
#define LINE_MAX_BYTES (SIZE_MAX / 4) /* a row of csv or json holds whole payloads */
#define NUMBER_MAX 40

struct table_out {
	FILE *f;
	enum table_out_format format;
	size_t n_columns;
	char **columns;
	bool begun; /* the head was written */
	struct buffer line;
	size_t n_rows; /* json: so far */
	/* table only */
	size_t *widths;
	char **held; /* n_columns cells a row, ready to print */
	bool *is_number; /* of held cells */
	size_t n_held;
};

/* ---- cells ---- */

static bool is_hidden(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* The character at `s`, its length in *ret_len; a byte that begins none: 0xffffffff. */
static uint32_t character_at(const char *s, size_t len, size_t *ret_len)
{
	static const uint8_t masks[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint8_t first = (uint8_t)*s;
	size_t n = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	*ret_len = 1;
	if (n > len || !json_is_utf8(s, n))
		return UINT32_MAX;
	uint32_t c = first & masks[n];
	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((uint8_t)s[i] & 0x3f);
	*ret_len = n;
	return c;
}

static void write_visible(char out[static 8], const char *s, size_t len, uint32_t c)
{
	if (c == '\t' || c == '\n' || c == '\r') {
		(void)snprintf(out, 8, "\\%c", c == '\t' ? 't' : c == '\n' ? 'n' : 'r');
	} else if (c == UINT32_MAX || (c < 0x80 && is_hidden(c))) {
		(void)snprintf(out, 8, "\\x%02x", (unsigned int)(uint8_t)*s);
	} else if (is_hidden(c)) {
		(void)snprintf(out, 8, "\\u%04x", (unsigned int)c & 0xffff);
	} else {
		memcpy(out, s, len);
		out[len] = '\0';
	}
}

static size_t count_columns(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((uint8_t)*s & 0xc0) != 0x80;
	return n;
}

int table_out_append_visible(struct buffer *b, struct span text, size_t max_columns)
{
	size_t used = 0, before_last = b->len;

	for (size_t i = 0, n; i < text.len; i += n) {
		char piece[8];
		uint32_t c = character_at(text.s + i, text.len - i, &n);
		write_visible(piece, text.s + i, n, c);
		size_t width = count_columns(piece);
		if (used + width > max_columns) {
			/* Room for the mark is made by taking the last piece back. */
			if (used == max_columns && b->len > 0) {
				b->len = before_last;
				b->data[b->len] = '\0';
			}
			return max_columns > 0 ? buffer_append_text(b, "…") : 0;
		}
		before_last = b->len;
		used += width;
		int r = buffer_append_text(b, piece);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The shortest text that reads back as the same number, with a point or an exponent in it. */
static void format_real(double real, char buf[static NUMBER_MAX])
{
	for (int digits = 15; digits <= 17; digits++) {
		(void)snprintf(buf, NUMBER_MAX, "%.*g", digits, real);
		if (strtod(buf, NULL) == real)
			break;
	}
	if (!strpbrk(buf, ".en"))
		(void)strncat(buf, ".0", NUMBER_MAX - strlen(buf) - 1);
}

/* For reading: no exponent where nine decimals say as much (a nano-USD is the ninth). */
static void format_plain(double real, char buf[static NUMBER_MAX])
{
	double size = fabs(real);

	if (size != 0 && !(size >= 1e-9 && size < 1e15)) {
		format_real(real, buf);
		return;
	}
	(void)snprintf(buf, NUMBER_MAX, "%.9f", real);
	char *end = buf + strlen(buf);
	while (end[-1] == '0' && end[-2] != '.')
		*--end = '\0';
}

static const char *format_number(const struct table_out_cell *cell, char buf[static NUMBER_MAX])
{
	if (cell->type == TABLE_OUT_INTEGER)
		(void)snprintf(buf, NUMBER_MAX, "%lld", (long long)cell->integer);
	else
		format_real(cell->real, buf);
	return buf;
}

/* ---- csv ---- */

static int append_csv_text(struct buffer *b, struct span text)
{
	int r = buffer_append_text(b, "\"");

	for (size_t i = 0; r == 0 && i < text.len;) {
		const char *quote = memchr(text.s + i, '"', text.len - i);
		size_t n = quote ? (size_t)(quote - text.s) - i + 1 : text.len - i;
		r = buffer_append(b, text.s + i, n);
		if (r == 0 && quote)
			r = buffer_append_text(b, "\"");
		i += n;
	}
	return r < 0 ? r : buffer_append_text(b, "\"");
}

static bool needs_quotes(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (strchr("\",\r\n", text.s[i])) /* NUL, too */
			return true;
	return text.len == 0 || text.s[0] == ' ' || text.s[text.len - 1] == ' ';
}

static int append_csv_cell(struct buffer *b, const struct table_out_cell *cell)
{
	char number[NUMBER_MAX];

	switch (cell->type) {
	case TABLE_OUT_NULL:
		return 0;
	case TABLE_OUT_INTEGER:
	case TABLE_OUT_REAL:
		return buffer_append_text(b, format_number(cell, number));
	case TABLE_OUT_TEXT:
		return needs_quotes(cell->text) ? append_csv_text(b, cell->text)
						: buffer_append(b, cell->text.s, cell->text.len);
	}
	return -EINVAL;
}

static int append_csv_field(struct table_out *t, size_t i, const struct table_out_cell *cell)
{
	int r = i > 0 ? buffer_append_text(&t->line, ",") : 0;

	if (r == 0)
		r = append_csv_cell(&t->line, cell);
	if (r == 0 && i + 1 == t->n_columns)
		r = buffer_append_text(&t->line, "\r\n");
	return r;
}

static int begin_csv(struct table_out *t)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < t->n_columns; i++) {
		const struct table_out_cell name = {
			.type = TABLE_OUT_TEXT, .text = { t->columns[i], strlen(t->columns[i]) }
		};
		r = append_csv_field(t, i, &name);
	}
	return r;
}

static int row_csv(struct table_out *t, const struct table_out_cell *cells)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < t->n_columns; i++)
		r = append_csv_field(t, i, &cells[i]);
	return r;
}

/* ---- json ---- */

static int append_json_cell(struct buffer *b, const struct table_out_cell *cell)
{
	char number[NUMBER_MAX];

	switch (cell->type) {
	case TABLE_OUT_NULL:
		break;
	case TABLE_OUT_REAL:
		if (!isfinite(cell->real))
			break;
		return buffer_append_text(b, format_number(cell, number));
	case TABLE_OUT_INTEGER:
		return buffer_append_text(b, format_number(cell, number));
	case TABLE_OUT_TEXT:
		return json_append_string(b, cell->text);
	}
	return buffer_append_text(b, "null");
}

static int begin_json(struct table_out *t)
{
	return buffer_append_text(&t->line, "[");
}

static int row_json(struct table_out *t, const struct table_out_cell *cells)
{
	int r = buffer_append_text(&t->line, t->n_rows++ > 0 ? ",\n {" : "\n {");

	for (size_t i = 0; r == 0 && i < t->n_columns; i++) {
		const struct span name = { t->columns[i], strlen(t->columns[i]) };
		if (i > 0)
			r = buffer_append_text(&t->line, ", ");
		if (r == 0)
			r = json_append_string(&t->line, name);
		if (r == 0)
			r = buffer_append_text(&t->line, ": ");
		if (r == 0)
			r = append_json_cell(&t->line, &cells[i]);
	}
	return r < 0 ? r : buffer_append_text(&t->line, "}");
}

static int end_json(struct table_out *t)
{
	return buffer_append_text(&t->line, t->n_rows > 0 ? "\n]\n" : "]\n");
}

/* ---- table ---- */

static int append_padded(struct buffer *b, const char *text, size_t width, bool right, bool is_last)
{
	size_t columns = count_columns(text);
	int pad = columns < width ? (int)(width - columns) : 0;

	if (right)
		return buffer_appendf(b, "%*s%s%s", pad, "", text, is_last ? "\n" : "  ");
	if (is_last)
		return buffer_appendf(b, "%s\n", text);
	return buffer_appendf(b, "%s%*s  ", text, pad, "");
}

static int append_table_row(struct table_out *t, char *const *cells, const bool *is_number)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < t->n_columns; i++)
		r = append_padded(&t->line, cells[i], t->widths[i], is_number && is_number[i],
				  i + 1 == t->n_columns);
	return r;
}

static char *table_cell(const struct table_out_cell *cell)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(8 * CELL_COLUMNS_MAX + 8);
	char number[NUMBER_MAX];
	int r = 0;

	switch (cell->type) {
	case TABLE_OUT_NULL:
		r = buffer_append_text(&b, "-");
		break;
	case TABLE_OUT_REAL:
		format_plain(cell->real, number);
		r = buffer_append_text(&b, number);
		break;
	case TABLE_OUT_INTEGER:
		r = buffer_append_text(&b, format_number(cell, number));
		break;
	case TABLE_OUT_TEXT:
		r = table_out_append_visible(&b, cell->text, CELL_COLUMNS_MAX);
		break;
	}
	return r < 0 ? NULL : buffer_steal(&b);
}

static int flush_line(struct table_out *t)
{
	size_t n = t->line.len > 0 ? fwrite(t->line.data, 1, t->line.len, t->f) : 0;
	bool ok = n == t->line.len;

	buffer_clear(&t->line);
	return ok ? 0 : -EIO;
}

static int release_held(struct table_out *t)
{
	int r = 0;

	if (!t->begun)
		r = append_table_row(t, t->columns, NULL);
	t->begun = true;
	for (size_t i = 0; i < t->n_held * t->n_columns; i += t->n_columns) {
		if (r == 0)
			r = append_table_row(t, &t->held[i], &t->is_number[i]);
		if (r == 0)
			r = flush_line(t);
		for (size_t k = 0; k < t->n_columns; k++) {
			free(t->held[i + k]);
			t->held[i + k] = NULL;
		}
	}
	t->n_held = 0;
	return r < 0 ? r : flush_line(t);
}

static int row_table(struct table_out *t, const struct table_out_cell *cells)
{
	size_t at = t->n_held * t->n_columns;

	t->n_held++;
	for (size_t i = 0; i < t->n_columns; i++) {
		t->held[at + i] = table_cell(&cells[i]);
		if (!t->held[at + i]) {
			while (i-- > 0) {
				free(t->held[at + i]);
				t->held[at + i] = NULL;
			}
			t->n_held--;
			return -ENOMEM;
		}
		t->is_number[at + i] =
			cells[i].type == TABLE_OUT_INTEGER || cells[i].type == TABLE_OUT_REAL;
		size_t width = count_columns(t->held[at + i]);
		if (!t->begun && width > t->widths[i])
			t->widths[i] = width;
	}
	return t->n_held == ROWS_HELD ? release_held(t) : 0;
}

/* ---- */

static int begin_table(struct table_out *t)
{
	return 0;
}

static int end_csv(struct table_out *t)
{
	return 0;
}

static const struct {
	const char *name;
	int (*begin)(struct table_out *t);
	int (*row)(struct table_out *t, const struct table_out_cell *cells);
	int (*end)(struct table_out *t);
} formats[] = {
	[TABLE_OUT_TABLE] = { "table", begin_table, row_table, release_held },
	[TABLE_OUT_CSV] = { "csv", begin_csv, row_csv, end_csv },
	[TABLE_OUT_JSON] = { "json", begin_json, row_json, end_json },
};

bool table_out_format_from_name(const char *name, enum table_out_format *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (strcmp(name, formats[i].name) == 0) {
			*ret = (enum table_out_format)i;
			return true;
		}
	}
	return false;
}

static int copy_columns(struct table_out *t, const char *const *columns)
{
	for (size_t i = 0; i < t->n_columns; i++) {
		t->columns[i] = strdup(columns[i]);
		if (!t->columns[i])
			return -ENOMEM;
		t->widths[i] = count_columns(columns[i]);
	}
	return 0;
}

int table_out_new(FILE *f, enum table_out_format format, const char *const *columns,
		  size_t n_columns, struct table_out **ret)
{
	size_t n_held = format == TABLE_OUT_TABLE ? ROWS_HELD * n_columns : 1;
	struct table_out *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->f = f;
	t->format = format;
	t->n_columns = n_columns;
	buffer_init(&t->line, LINE_MAX_BYTES);
	t->columns = calloc(n_columns, sizeof(*t->columns));
	t->widths = calloc(n_columns, sizeof(*t->widths));
	t->held = calloc(n_held, sizeof(*t->held));
	t->is_number = calloc(n_held, sizeof(*t->is_number));
	if (!t->columns || !t->widths || !t->held || !t->is_number ||
	    copy_columns(t, columns) < 0) {
		table_out_free(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

static int begin(struct table_out *t)
{
	if (t->begun || t->format == TABLE_OUT_TABLE)
		return 0;
	t->begun = true;
	return formats[t->format].begin(t);
}

int table_out_row(struct table_out *t, const struct table_out_cell *cells)
{
	int r = begin(t);

	if (r == 0)
		r = formats[t->format].row(t, cells);
	return r < 0 ? r : flush_line(t);
}

int table_out_end(struct table_out *t)
{
	int r = begin(t);

	if (r == 0)
		r = formats[t->format].end(t);
	if (r == 0)
		r = flush_line(t);
	if (r == 0 && fflush(t->f) != 0)
		r = -EIO;
	return r;
}

void table_out_free(struct table_out *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->columns && i < t->n_columns; i++)
		free(t->columns[i]);
	if (t->format == TABLE_OUT_TABLE)
		for (size_t i = 0; t->held && i < t->n_held * t->n_columns; i++)
			free(t->held[i]);
	free(t->columns);
	free(t->widths);
	free(t->held);
	free(t->is_number);
	buffer_finish(&t->line);
	free(t);
}
