/* A growing buffer of C code, and the few layout rules that generated code follows. */
#include "plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_WIDTH = 100, CONTINUATION = 4 };

void gen_text_fini(struct gen_text *text)
{
    free(text->data);
    *text = (struct gen_text){0};
}

static bool reserve(struct gen_text *text, size_t more)
{
    size_t capacity = text->capacity != 0 ? text->capacity : 256;
    char *data;

    if (text->failed || more >= SIZE_MAX / 4 || text->length >= SIZE_MAX / 4) {
        text->failed = true;
        return false;
    }
    while (capacity < text->length + more + 1) {
        capacity *= 2;
    }
    if (capacity == text->capacity) {
        return true;
    }
    data = realloc(text->data, capacity);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void gen_text_add(struct gen_text *text, const char *string, size_t length)
{
    if (!reserve(text, length)) {
        return;
    }
    memcpy(text->data + text->length, string, length);
    text->length += length;
    text->data[text->length] = '\0';
}

static void add_string(struct gen_text *text, const char *string)
{
    gen_text_add(text, string, strlen(string));
}

static void add_spaces(struct gen_text *text, size_t count)
{
    while (count-- > 0) {
        gen_text_add(text, " ", 1);
    }
}

void gen_text_vprintf(struct gen_text *text, const char *format, va_list arguments)
{
    va_list again;
    int length;

    va_copy(again, arguments);
    length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0 || !reserve(text, (size_t)length)) {
        text->failed = true;
        return;
    }
    (void)vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
    text->length += (size_t)length;
}

void gen_text_printf(struct gen_text *text, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    gen_text_vprintf(text, format, arguments);
    va_end(arguments);
}

/* -- breaking a line at its arguments -------------------------------------------------------- */

/* The '(' of the last argument list in `line`, NULL where there is none. */
static const char *last_list(const char *line)
{
    const char *at = strrchr(line, ')');
    unsigned depth = 0;

    for (; at != NULL && at >= line; at--) {
        if (*at == ')') {
            depth++;
        } else if (*at == '(' && --depth == 0) {
            return at;
        }
    }
    return NULL;
}

/* The length of the argument at `at`, with the comma behind it, or all that follows the last one.
 */
static size_t argument_length(const char *at)
{
    unsigned depth = 0;
    const char *end;

    for (end = at; *end != '\0'; end++) {
        if (*end == '(') {
            depth++;
        } else if (*end == ')') {
            if (depth == 0) {
                return strlen(at);
            }
            depth--;
        } else if (*end == ',' && depth == 0) {
            return (size_t)(end - at) + 1;
        }
    }
    return (size_t)(end - at);
}

static const char *next_argument(const char *at)
{
    at += argument_length(at);
    return at + strspn(at, " ");
}

static bool all_fit(const char *arguments, size_t column)
{
    const char *at;

    for (at = arguments; *at != '\0'; at = next_argument(at)) {
        if (column + argument_length(at) > LINE_WIDTH) {
            return false;
        }
    }
    return true;
}

/* Fills lines with arguments, the first one starting at `column`, all others at `align`. */
static void add_arguments(struct gen_text *text, const char *arguments, size_t column, size_t align)
{
    const char *at;

    for (at = arguments; *at != '\0'; at = next_argument(at)) {
        size_t length = argument_length(at);

        if (at != arguments && column + 1 + length > LINE_WIDTH) {
            add_string(text, "\n");
            add_spaces(text, align);
            column = align;
        } else if (at != arguments) {
            add_string(text, " ");
            column++;
        }
        gen_text_add(text, at, length);
        column += length;
    }
}

static void add_wrapped(struct gen_text *text, size_t indent, const char *line)
{
    const char *list = last_list(line);
    const char *arguments = list != NULL ? list + 1 : NULL;
    size_t align;

    add_spaces(text, indent);
    if (list == NULL || indent + strlen(line) <= LINE_WIDTH) {
        add_string(text, line);
        return;
    }
    gen_text_add(text, line, (size_t)(arguments - line));
    align = indent + (size_t)(arguments - line);
    if (!all_fit(arguments, align)) {
        align = indent + CONTINUATION;
        add_string(text, "\n");
        add_spaces(text, align);
    }
    add_arguments(text, arguments, align, align);
}

void gen_text_wrapf(struct gen_text *text, unsigned indent, const char *format, ...)
{
    struct gen_text line = {0};
    va_list arguments;

    va_start(arguments, format);
    gen_text_vprintf(&line, format, arguments);
    va_end(arguments);
    if (line.failed) {
        text->failed = true;
    } else {
        add_wrapped(text, indent, line.data);
        add_string(text, "\n");
    }
    gen_text_fini(&line);
}

/* -- comments -------------------------------------------------------------------------------- */

/*
 * True where `at` begins two characters that must not stand together in a comment: its end, another
 * one's beginning (-Wcomment), the end of a trigraph (-Wtrigraphs).
 */
static bool dangerous_pair(const char *at, const char *end)
{
    return at + 1 < end && ((at[0] == '*' && at[1] == '/') || (at[0] == '/' && at[1] == '*') ||
                            (at[0] == '?' && at[1] == '/'));
}

/*
 * The length of a character that turns the direction of the text around it (U+202A to U+202E,
 * U+2066 to U+2069), 0 for any other: gcc's -Wbidi-chars sees an attack in it.
 */
static size_t bidi_length(const char *at, const char *end)
{
    const unsigned char *bytes = (const unsigned char *)at;

    if (end - at < 3 || bytes[0] != 0xe2) {
        return 0;
    }
    if (bytes[1] == 0x80 && bytes[2] >= 0xaa && bytes[2] <= 0xae) {
        return 3;
    }
    return bytes[1] == 0x81 && bytes[2] >= 0xa6 && bytes[2] <= 0xa9 ? 3 : 0;
}

static void add_comment_line(struct gen_text *text, const char *at, const char *end)
{
    while (at < end) {
        size_t bidi = bidi_length(at, end);

        if (bidi != 0) {
            at += bidi;
            continue;
        }
        gen_text_add(text, at, 1);
        if (dangerous_pair(at, end)) {
            add_string(text, " ");
        }
        at++;
    }
}

/*
 * The end of the line at `at`, without white space at its end. *next gets the line after it, NULL
 * after the last one.
 */
static const char *line_end(const char *at, const char **next)
{
    const char *end = at + strcspn(at, "\n");

    *next = *end == '\n' ? end + 1 : NULL;
    while (end > at && strchr(" \t\r\v\f", end[-1]) != NULL) {
        end--;
    }
    return end;
}

static bool blank(const char *comment)
{
    return comment == NULL || comment[strspn(comment, " \t\r\v\f\n")] == '\0';
}

void gen_text_comment_lines(struct gen_text *text, unsigned indent, const char *comment)
{
    const char *at = comment;
    const char *next;

    for (; !blank(at); at = next) {
        const char *end = line_end(at, &next);

        if (end == at && at == comment) {
            comment = next; /* empty lines above the first text */
            continue;
        }
        add_spaces(text, indent);
        add_string(text, " *");
        if (end > at) {
            add_string(text, *at == ' ' ? "" : " ");
            add_comment_line(text, at, end);
        }
        add_string(text, "\n");
    }
}

/* Prints the comment in one line, unless it has more of them or does not fit. */
static bool add_short_comment(struct gen_text *text, unsigned indent, const char *comment)
{
    const char *at = comment + strspn(comment, " \t\r\v\f\n");
    struct gen_text line = {0};
    const char *next;
    const char *end = line_end(at, &next);
    bool fits;

    add_comment_line(&line, at, end);
    fits = blank(next) && indent + strlen("/*  */") + line.length <= LINE_WIDTH;
    if (line.failed) {
        text->failed = true;
    } else if (fits) {
        add_spaces(text, indent);
        gen_text_printf(text, "/* %s */\n", line.data);
    }
    gen_text_fini(&line);
    return fits;
}

void gen_text_comment(struct gen_text *text, unsigned indent, const char *comment)
{
    if (blank(comment) || add_short_comment(text, indent, comment)) {
        return;
    }
    add_spaces(text, indent);
    add_string(text, "/*\n");
    gen_text_comment_lines(text, indent, comment);
    add_spaces(text, indent);
    add_string(text, " */\n");
}
