/* Label maps to a zlib stream of PNG rows: the "up" filter, runs, dynamic Huffman codes.
 *
 * Regions of a label map differ from the row above at their edges only, so the filtered rows are runs of zeros with a
 * few values between: what zlib's Z_RLE strategy makes of them, in a quarter of its time, because nothing is searched.
 *
 * Knows nothing of PNG's chunks, of colors, of Python. Source: RFC 1950, RFC 1951; PNG specification §9.
 */
#include "kernels.h"

#define LITERALS 286
#define LENGTHS_OF_CODES 19
#define LONGEST_CODE 15
#define END 256
#define UP 2
#define BLOCK (1 << 20) /* bytes: what is held besides the stream stays small */

/* Where bits go, the first one lowest. The caller sees to it that there is room. */
typedef struct {
    uint8_t *at;
    uint64_t bits;
    int count;
} Writer;

static inline void put(Writer *to, uint32_t value, int count) {
    to->bits |= (uint64_t)value << to->count;
    to->count += count;
    while (to->count >= 8) {
        *to->at++ = (uint8_t)to->bits;
        to->bits >>= 8;
        to->count -= 8;
    }
}

/* A prefix code: bits of each symbol, first bit lowest, and how many. */
typedef struct {
    uint16_t bits[LITERALS];
    uint8_t length[LITERALS];
} Code;

/* The code of least size whose words are no longer than `limit`, nearly: symbols that never occur get none. */
static void build_code(Code *code, const uint32_t *counts, int symbols, int limit) {
    int order[LITERALS], used = 0;
    for (int s = 0; s < symbols; s++) {
        code->length[s] = 0;
        if (!counts[s])
            continue;
        int at = used++;
        for (; at > 0 && counts[order[at - 1]] > counts[s]; at--)
            order[at] = order[at - 1];
        order[at] = s;
    }
    if (used == 1)
        code->length[order[0]] = 1;
    if (used > 1) {
        /* leaves in ascending order, then the pairs in the order they are made: both queues are sorted */
        uint32_t weight[2 * LITERALS];
        int parent[2 * LITERALS], depth[2 * LITERALS], leaf = 0, pair = used, made = used;
        for (int i = 0; i < used; i++)
            weight[i] = counts[order[i]];
        for (; made < 2 * used - 1; made++) {
            weight[made] = 0;
            for (int half = 0; half < 2; half++) {
                const int taken = leaf < used && (pair >= made || weight[leaf] <= weight[pair]) ? leaf++ : pair++;
                weight[made] += weight[taken];
                parent[taken] = made;
            }
        }
        /* words longer than the limit are cut to it, and paid for: a word grows by a bit and takes one of them along */
        int leaves[LONGEST_CODE + 1] = {0};
        int64_t spent = 0; /* of 2^limit words of full length */
        depth[made - 1] = 0;
        for (int i = made - 2; i >= 0; i--) {
            depth[i] = depth[parent[i]] + 1;
            if (i < used) {
                const int length = depth[i] < limit ? depth[i] : limit;
                leaves[length]++;
                spent += INT64_C(1) << (limit - length);
            }
        }
        for (; spent > INT64_C(1) << limit; spent--) {
            int length = limit - 1;
            while (!leaves[length])
                length--;
            leaves[length]--;
            leaves[length + 1] += 2;
            leaves[limit]--;
        }
        for (int length = limit, i = 0; length > 0; length--)
            for (; leaves[length] > 0; leaves[length]--)
                code->length[order[i++]] = (uint8_t)length;
    }
    int of_length[LONGEST_CODE + 1] = {0}, next[LONGEST_CODE + 2] = {0};
    for (int s = 0; s < symbols; s++)
        of_length[code->length[s]]++;
    of_length[0] = 0;
    for (int l = 1; l <= LONGEST_CODE; l++)
        next[l + 1] = (next[l] + of_length[l]) << 1;
    for (int s = 0; s < symbols; s++) {
        const int length = code->length[s];
        int forward = length ? next[length]++ : 0, reversed = 0;
        for (int i = 0; i < length; i++, forward >>= 1)
            reversed = reversed << 1 | (forward & 1);
        code->bits[s] = (uint16_t)reversed;
    }
}

/* Symbol, extra bits and their number of a match of `length` 3..258. */
static inline int length_symbol(int length, int *extra, int *extra_bits) {
    *extra = *extra_bits = 0;
    if (length == 258)
        return 285;
    const int over = length - 3;
    if (over < 8)
        return 257 + over;
    const int bits = 29 - __builtin_clz((unsigned)over);
    *extra = over & ((1 << bits) - 1);
    *extra_bits = bits;
    return 257 + 4 * bits + (over >> bits);
}

/* A block's head: the two codes' lengths as deflate tells them: symbols 0..15 lengths, 16..18 repeats. */
static void put_header(Writer *to, int last, const Code *literal, int literals, const Code *distance) {
    static const uint8_t sequence[LENGTHS_OF_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LITERALS + 1], symbol[LITERALS + 1], extra[LITERALS + 1];
    memcpy(lengths, literal->length, (size_t)literals);
    lengths[literals] = distance->length[0];
    const int total = literals + 1;
    uint32_t counts[LENGTHS_OF_CODES] = {0};
    int told = 0;
    for (int i = 0; i < total; told++) {
        int run = run_length(lengths + i, total - i), taken = 1;
        symbol[told] = lengths[i];
        if (lengths[i] == 0 && run >= 3) {
            taken = run > 138 ? 138 : run;
            symbol[told] = taken < 11 ? 17 : 18;
            extra[told] = (uint8_t)(taken - (taken < 11 ? 3 : 11));
        } else if (i > 0 && lengths[i] == lengths[i - 1] && run >= 3) {
            taken = run > 6 ? 6 : run;
            symbol[told] = 16;
            extra[told] = (uint8_t)(taken - 3);
        }
        counts[symbol[told]]++;
        i += taken;
    }
    Code code;
    build_code(&code, counts, LENGTHS_OF_CODES, 7);
    int sent = LENGTHS_OF_CODES;
    while (sent > 4 && !code.length[sequence[sent - 1]])
        sent--;
    put(to, (uint32_t)last | 2 << 1, 3); /* dynamic codes */
    put(to, (uint32_t)(literals - 257), 5);
    put(to, 0, 5); /* one distance: 1 */
    put(to, (uint32_t)(sent - 4), 4);
    for (int i = 0; i < sent; i++)
        put(to, code.length[sequence[i]], 3);
    for (int i = 0; i < told; i++) {
        put(to, code.bits[symbol[i]], code.length[symbol[i]]);
        if (symbol[i] >= 16)
            put(to, extra[i], symbol[i] == 16 ? 2 : symbol[i] == 17 ? 3 : 7);
    }
}

/* rows [to - from, 1 + width]: each the filter's number and the ids less those above. */
WIDEST static void filter_rows(const uint8_t *ids, int64_t from, int64_t to, int64_t width, uint8_t *rows) {
    for (int64_t y = from; y < to; y++) {
        const uint8_t *row = ids + y * width;
        *rows++ = UP;
        if (y == 0)
            memcpy(rows, row, (size_t)width);
        else
            for (int64_t x = 0; x < width; x++)
                rows[x] = (uint8_t)(row[x] - row[x - width]);
        rows += width;
    }
}

/* The checksum of RFC 1950 carried on; it begins as 1. */
WIDEST static uint32_t adler32(uint32_t before, const uint8_t *data, int64_t count) {
    uint64_t sum = before & 0xffff, sums = before >> 16;
    for (int64_t at = 0; at < count; at += 4096) {
        const uint32_t some = (uint32_t)(count - at < 4096 ? count - at : 4096);
        uint32_t own = 0, weighted = 0;
        for (uint32_t i = 0; i < some; i++) {
            own += data[at + i];
            weighted += (some - i) * data[at + i]; /* at most 255 · 4096 · 4097 / 2 < 2^32 */
        }
        sums = (sums + some * sum + weighted) % 65521;
        sum = (sum + own) % 65521;
    }
    return (uint32_t)(sums << 16 | sum);
}

/* One block of `count` bytes; `tokens` is room for as many. Returns 0, or 1 where it may pass `end`: nothing was put. */
static int put_block(Writer *to, const uint8_t *end, int last, const uint8_t *rows, int64_t count, uint16_t *tokens) {
    uint16_t *behind = tokens; /* a value, or 256 + a run's length */
    uint32_t counts[LITERALS] = {[END] = 1}, distances[1] = {0}, runs[259] = {0};
    for (int64_t i = 0; i < count;) {
        int64_t rest = run_length(rows + i, count - i) - 1;
        const uint8_t value = rows[i];
        i += 1 + rest;
        counts[value]++;
        *behind++ = value;
        while (rest >= 3) { /* what is left is nothing, or 3 at least */
            const int64_t taken = rest <= 258 ? rest : rest < 261 ? rest - 3 : 258;
            runs[taken]++;
            *behind++ = (uint16_t)(256 + taken);
            rest -= taken;
        }
        for (; rest > 0; rest--) {
            counts[value]++;
            *behind++ = value;
        }
    }
    uint8_t symbol_of[259], extra_of[259], extra_bits_of[259];
    for (int length = 3; length <= 258; length++) {
        int extra, bits;
        const int symbol = length_symbol(length, &extra, &bits);
        symbol_of[length] = (uint8_t)(symbol - 256);
        extra_of[length] = (uint8_t)extra;
        extra_bits_of[length] = (uint8_t)bits;
        counts[symbol] += runs[length];
        distances[0] += runs[length];
    }
    Code literal, distance;
    build_code(&literal, counts, LITERALS, LONGEST_CODE);
    build_code(&distance, distances, 1, LONGEST_CODE);
    int literals = LITERALS;
    while (literals > 257 && !counts[literals - 1])
        literals--;
    int64_t bits = 8 * 400; /* the header's, at most */
    for (int s = 0; s < LITERALS; s++)
        bits += (int64_t)counts[s] * literal.length[s];
    bits += (int64_t)distances[0] * 6; /* the distance and at most 5 more of the length */
    if (bits / 8 + 8 > end - to->at)
        return 1;
    put_header(to, last, &literal, literals, &distance);
    for (const uint16_t *token = tokens; token < behind; token++) {
        if (*token < 256) {
            put(to, literal.bits[*token], literal.length[*token]);
            continue;
        }
        const int length = *token - 256, symbol = 256 + symbol_of[length];
        put(to, literal.bits[symbol], literal.length[symbol]);
        put(to, extra_of[length], extra_bits_of[length] + 1); /* the distance's single word is one bit, 0 */
    }
    put(to, literal.bits[END], literal.length[END]);
    return 0;
}

/* The zlib stream of a label map's filtered rows, a block for every megabyte.
 *
 * ids [height, width];  out [room], 16 bytes at least
 * returns  bytes written; 0 where `room` may not do or memory is short
 */
PUBLIC int64_t host_deflate(const uint8_t *ids, int64_t height, int64_t width, uint8_t *out, int64_t room) {
    const int64_t at_once = BLOCK / (1 + width) < 1 ? 1 : BLOCK / (1 + width);
    const int64_t most = (at_once < height ? at_once : height) * (1 + width);
    uint16_t *tokens = malloc((size_t)most * (1 + sizeof(uint16_t)));
    if (!tokens)
        return 0;
    uint8_t *rows = (uint8_t *)(tokens + most);
    Writer to = {.at = out};
    put(&to, 0x78, 8);
    put(&to, 0x9c, 8);
    uint32_t sum = 1;
    int failed = 0;
    for (int64_t y = 0; y < height && !failed; y += at_once) {
        const int64_t until = y + at_once < height ? y + at_once : height, count = (until - y) * (1 + width);
        filter_rows(ids, y, until, width, rows);
        sum = adler32(sum, rows, count);
        failed = put_block(&to, out + room - 8, until == height, rows, count, tokens);
    }
    free(tokens);
    if (failed)
        return 0;
    put(&to, 0, (8 - to.count) & 7);
    for (int shift = 24; shift >= 0; shift -= 8)
        put(&to, sum >> shift & 0xff, 8);
    return to.at - out;
}
