#include "work.h"

#include <isa-l/crc.h>

#define PREFIX       5 /* of a gRPC message: not compressed, length */
#define STAMP        8u
#define POOL_BYTES   ((size_t)1 << 20) /* of all distinct payloads: what stays in a cache */
#define DISTINCT_MIN 16u
#define DISTINCT_MAX 1024u

#define NOT_A_MESSAGE "an answer that is no message"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* -- payloads ---------------------------------------------------------------------------------- */

static uint32_t crc32c(const uint8_t *data, size_t n, uint32_t state)
{
    return crc32_iscsi((unsigned char *)data, (int)n, state);
}

static size_t stamp(const struct payloads *payloads, uint32_t number, uint8_t *out)
{
    uint64_t bits = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(out, &bits, STAMP);
    return payloads->bytes < STAMP ? payloads->bytes : STAMP;
}

void payloads_init(struct payloads *payloads, size_t bytes)
{
    *payloads = (struct payloads){.bytes = bytes, .distinct = DISTINCT_MIN};
    while (payloads->distinct < DISTINCT_MAX &&
           (size_t)2 * payloads->distinct * bytes <= POOL_BYTES) {
        payloads->distinct *= 2;
    }
    payloads->pattern = load_alloc(NULL, bytes);
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i < bytes; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        payloads->pattern[i] = (uint8_t)random;
    }
    payloads->checksums = load_alloc(NULL, payloads->distinct * sizeof *payloads->checksums);
    for (uint32_t i = 0; i < payloads->distinct; i++) {
        uint8_t head[STAMP];
        size_t n = stamp(payloads, i, head);
        uint32_t state = crc32c(head, n, ~0u);
        payloads->checksums[i] = ~crc32c(payloads->pattern + n, bytes - n, state);
    }
}

void payloads_fini(struct payloads *payloads)
{
    free(payloads->pattern);
    free(payloads->checksums);
}

void payload_write(const struct payloads *payloads, uint32_t number, uint8_t *out)
{
    memcpy(out, payloads->pattern, payloads->bytes);
    uint8_t head[STAMP];
    size_t n = stamp(payloads, number, head);
    memcpy(out, head, n);
}

static bool payload_equals(const struct payloads *payloads, uint32_t number, const uint8_t *data,
                           size_t n)
{
    uint8_t head[STAMP];
    size_t stamped = stamp(payloads, number, head);
    return n == payloads->bytes && (n == 0 || memcmp(data, head, stamped) == 0) &&
           (n <= stamped || memcmp(data + stamped, payloads->pattern + stamped, n - stamped) == 0);
}

/* -- encoding ---------------------------------------------------------------------------------- */

static void put_varint(struct buffer *out, uint64_t value)
{
    uint8_t *at = buffer_room(out, 10);
    do {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    } while (value);
    at[-1] &= 0x7f;
    out->n = (size_t)(at - out->data);
}

static void put_tag(struct buffer *out, uint32_t field, unsigned wire)
{
    put_varint(out, field << 3 | wire);
}

static void put_bytes(struct buffer *out, uint32_t field, const void *data, size_t n)
{
    put_tag(out, field, BYTES);
    put_varint(out, n);
    buffer_add(out, data, n);
}

static void put_payload(struct buffer *out, uint32_t field, const struct payloads *payloads,
                        uint32_t number)
{
    uint8_t head[STAMP];
    size_t n = stamp(payloads, number, head);
    put_tag(out, field, BYTES);
    put_varint(out, payloads->bytes);
    buffer_add(out, head, n);
    buffer_add(out, payloads->pattern + n, payloads->bytes - n);
}

static void put_ref(struct buffer *out, uint32_t field, const struct ref *ref)
{
    struct buffer body = {0};
    put_tag(&body, 1, VARINT);
    put_varint(&body, ref->file_id);
    put_tag(&body, 2, VARINT);
    put_varint(&body, ref->offset);
    put_tag(&body, 3, VARINT);
    put_varint(&body, ref->length);
    put_tag(&body, 4, FIXED32);
    buffer_add(&body, &ref->crc32c, sizeof ref->crc32c);
    put_bytes(out, field, body.data, body.n);
    buffer_fini(&body);
}

/* A message of the set begins; its end is marked by end_request(). */
static size_t begin_request(struct work *work, const char *store)
{
    size_t start = work->bytes.n;
    buffer_add(&work->bytes, "\0\0\0\0\0", PREFIX);
    put_bytes(&work->bytes, 1, store, strlen(store));
    return start;
}

static void end_request(struct work *work, size_t i, size_t start)
{
    size_t n = work->bytes.n - start - PREFIX;
    for (size_t k = 0; k < 4; k++) {
        work->bytes.data[start + 1 + k] = (uint8_t)(n >> (24 - 8 * k));
    }
    work->request_ends[i] = work->bytes.n;
}

void work_init_append(struct work *work, const struct payloads *payloads, const char *store,
                      uint32_t durability, uint32_t batch, bool streamed, struct ref *refs)
{
    *work = (struct work){.method = streamed ? APPEND_STREAM : APPEND,
                          .batch = batch,
                          .payloads = payloads,
                          .refs = refs,
                          .n = (payloads->distinct + batch - 1) / batch};
    work->request_ends = load_alloc(NULL, work->n * sizeof *work->request_ends);
    for (size_t i = 0; i < work->n; i++) {
        size_t start = begin_request(work, store);
        for (uint32_t k = 0; k < batch; k++) {
            put_payload(&work->bytes, 2, payloads, (uint32_t)(i * batch + k) % payloads->distinct);
        }
        put_tag(&work->bytes, 3, VARINT);
        put_varint(&work->bytes, durability);
        end_request(work, i, start);
    }
}

static void shuffle(struct ref *refs, size_t n)
{
    uint64_t random = 2463534242u;
    for (size_t i = n; i > 1; i--) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        size_t other = (random >> 33) % i;
        struct ref kept = refs[i - 1];
        refs[i - 1] = refs[other];
        refs[other] = kept;
    }
}

void work_init_read(struct work *work, const struct payloads *payloads, const char *store,
                    uint32_t batch, bool streamed, struct ref *refs, size_t n)
{
    shuffle(refs, n);
    *work = (struct work){.method = streamed ? READ_STREAM : READ,
                          .batch = batch,
                          .payloads = payloads,
                          .refs = refs,
                          .n_refs = n,
                          .n = (n + batch - 1) / batch};
    work->request_ends = load_alloc(NULL, work->n * sizeof *work->request_ends);
    for (size_t i = 0; i < work->n; i++) {
        size_t start = begin_request(work, store);
        for (size_t k = 0; k < batch; k++) {
            put_ref(&work->bytes, 2, &refs[(i * batch + k) % n]);
        }
        end_request(work, i, start);
    }
}

void work_fini(struct work *work)
{
    buffer_fini(&work->bytes);
    free(work->request_ends);
}

const uint8_t *work_request(const struct work *work, uint64_t op, size_t *n)
{
    size_t i = op % work->n;
    size_t start = i ? work->request_ends[i - 1] : 0;
    *n = work->request_ends[i] - start;
    return work->bytes.data + start;
}

/* -- decoding ---------------------------------------------------------------------------------- */

struct field {
    uint32_t number;
    unsigned wire;
    uint64_t value;      /* of a number; of bytes their length */
    const uint8_t *data; /* of bytes */
};

static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool get_fixed(const uint8_t **at, const uint8_t *end, size_t n, uint64_t *value)
{
    if ((size_t)(end - *at) < n) {
        return false;
    }
    *value = 0;
    memcpy(value, *at, n);
    *at += n;
    return true;
}

/* False at the end, and where the bytes are no message: *at is then not the end. */
static bool next_field(const uint8_t **at, const uint8_t *end, struct field *field)
{
    const uint8_t *p = *at;
    uint64_t tag;
    if (p == end || !get_varint(&p, end, &tag)) {
        return false;
    }
    field->number = (uint32_t)(tag >> 3);
    field->wire = tag & 7;
    field->data = NULL;
    bool got = false;
    switch (field->wire) {
    case VARINT:
        got = get_varint(&p, end, &field->value);
        break;
    case FIXED64:
        got = get_fixed(&p, end, 8, &field->value);
        break;
    case FIXED32:
        got = get_fixed(&p, end, 4, &field->value);
        break;
    case BYTES:
        got = get_varint(&p, end, &field->value) && field->value <= (uint64_t)(end - p);
        if (got) {
            field->data = p;
            p += field->value;
        }
        break;
    default:
        break;
    }
    if (got) {
        *at = p;
    }
    return got;
}

static bool get_ref(const struct field *field, struct ref *ref)
{
    const uint8_t *at = field->data, *end = at + field->value;
    struct field part;
    *ref = (struct ref){0};
    while (next_field(&at, end, &part)) {
        switch (part.number) {
        case 1:
            ref->file_id = (uint32_t)part.value;
            break;
        case 2:
            ref->offset = part.value;
            break;
        case 3:
            ref->length = (uint32_t)part.value;
            break;
        case 4:
            ref->crc32c = (uint32_t)part.value;
            break;
        default:
            break;
        }
    }
    return at == end;
}

/* -- checking ---------------------------------------------------------------------------------- */

static const char *check_ref(const struct work *work, uint64_t op, uint32_t k,
                             const struct field *field)
{
    const struct payloads *payloads = work->payloads;
    uint32_t number = (uint32_t)((op % work->n * work->batch + k) % payloads->distinct);
    struct ref ref;
    if (k >= work->batch) {
        return "more refs than payloads";
    }
    if (field->wire != BYTES || !get_ref(field, &ref)) {
        return "a ref that is no message";
    }
    if (ref.length != payloads->bytes) {
        return "a ref of another length";
    }
    if (ref.crc32c != payloads->checksums[number]) {
        return "a ref with another checksum";
    }
    if (work->refs) {
        ref.number = number;
        work->refs[op] = ref;
    }
    return NULL;
}

static const char *check_payload(const struct work *work, uint64_t op, uint32_t k,
                                 const uint8_t *data, size_t n)
{
    if (k >= work->batch) {
        return "more payloads than refs";
    }
    const struct ref *ref = &work->refs[(op % work->n * work->batch + k) % work->n_refs];
    return payload_equals(work->payloads, ref->number, data, n) ? NULL : "another payload";
}

/* One of ReadStream's results. */
static const char *check_result(const struct work *work, uint64_t op, uint32_t k,
                                const struct field *field)
{
    const uint8_t *at = field->data, *end = at + field->value;
    struct field outcome;
    if (field->wire != BYTES || !next_field(&at, end, &outcome) || at != end ||
        outcome.wire != BYTES) {
        return "a result without an outcome";
    }
    return outcome.number == 1 ? check_payload(work, op, k, outcome.data, outcome.value)
                               : "a Failure in place of a payload";
}

static const char *check_refs(const struct work *work, uint64_t op, const uint8_t *at,
                              const uint8_t *end)
{
    const char *wrong = NULL;
    uint32_t done = 0;
    struct field field;
    while (!wrong && next_field(&at, end, &field)) {
        if (field.number == 2) {
            return "a Failure in place of refs";
        }
        if (field.number == 1) {
            wrong = check_ref(work, op, done++, &field);
        }
    }
    if (!wrong && at != end) {
        wrong = NOT_A_MESSAGE;
    }
    return !wrong && done != work->batch ? "not as many refs as payloads" : wrong;
}

/* Read's answer; without the field its payload is empty. */
static const char *check_read(const struct work *work, uint64_t op, const uint8_t *at,
                              const uint8_t *end)
{
    struct field field, payload = {0};
    while (next_field(&at, end, &field)) {
        if (field.number == 1 && field.wire == BYTES) {
            payload = field;
        }
    }
    return at == end ? check_payload(work, op, 0, payload.data, payload.value) : NOT_A_MESSAGE;
}

/* A part of ReadStream's results. All are counted, as the last one ends the op. */
static const char *check_results(const struct work *work, uint64_t op, uint32_t *done,
                                 const uint8_t *at, const uint8_t *end)
{
    const char *wrong = NULL;
    struct field field;
    while (next_field(&at, end, &field)) {
        if (field.number == 1) {
            const char *found = check_result(work, op, (*done)++, &field);
            wrong = wrong ? wrong : found;
        }
    }
    if (at != end) {
        *done = work->batch;
        wrong = NOT_A_MESSAGE;
    }
    return wrong;
}

const char *work_check(const struct work *work, uint64_t op, uint32_t *done, const uint8_t *message,
                       size_t n)
{
    const uint8_t *end = message + n;
    if (*done >= work->batch) {
        return "more than one answer";
    }
    if (work->method == READ_STREAM) {
        return check_results(work, op, done, message, end);
    }
    *done = work->batch;
    return work->method == READ ? check_read(work, op, message, end)
                                : check_refs(work, op, message, end);
}
