/* COCO's run lengths of every id of a label map, from one pass over it.
 *
 * Knows nothing of files, networks or Python.
 */
#include "kernels.h"

#define IDS 256
#define COLUMNS 64 /* turned at once: of each row, as many bytes as a processor fetches together */
#define TILE 8
#define LONGEST 32 /* bytes of two counts: 5 bits in each of their characters, or 4 bytes of each */

/* One id's counts as they grow.
 *
 * end          the first pixel after its last run, column by column
 * runs         so far;  zeros, ones  the last two counts: later ones are told by their difference
 */
typedef struct {
    uint8_t *at;
    int64_t used, room, end, runs, zeros, ones;
} Counts;

/* A count as pycocotools writes it: five bits a character from 48 on, the lowest first, 32 where more follow. */
static inline void write_text(Counts *counts, int64_t value) {
    for (int more = 1; more;) {
        int64_t bits = value & 31;
        value >>= 5;
        more = bits & 16 ? value != -1 : value != 0;
        counts->at[counts->used++] = (uint8_t)((more ? bits | 32 : bits) + 48);
    }
}

static inline void write_number(Counts *counts, int64_t value) {
    const uint32_t number = (uint32_t)value;
    memcpy(counts->at + counts->used, &number, sizeof number);
    counts->used += sizeof number;
}

static inline int grow(Counts *counts) {
    if (counts->used + LONGEST <= counts->room)
        return 0;
    const int64_t room = 2 * counts->room + 16 * LONGEST;
    uint8_t *at = realloc(counts->at, (size_t)room);
    if (!at)
        return 2;
    counts->at = at;
    counts->room = room;
    return 0;
}

/* The zeros before an id's next run and the ones of it; ones is 0 for the zeros that end the map. */
static inline int add(Counts *counts, int64_t zeros, int64_t ones, int text) {
    if (grow(counts))
        return 2;
    if (text) {
        write_text(counts, counts->runs > 1 ? zeros - counts->zeros : zeros);
        if (ones)
            write_text(counts, counts->runs > 0 ? ones - counts->ones : ones);
    } else {
        write_number(counts, zeros);
        if (ones)
            write_number(counts, ones);
    }
    counts->zeros = zeros;
    counts->ones = ones;
    counts->runs++;
    return 0;
}

/* The bytes i of eight words become word i: pairs of bytes change places, then pairs of two, then of four. */
static inline void turn_tile(uint64_t word[TILE]) {
    static const uint64_t first[3] = {UINT64_C(0x00ff00ff00ff00ff), UINT64_C(0x0000ffff0000ffff),
                                      UINT64_C(0xffffffff)};
    for (int round = 0; round < 3; round++)
        for (int i = 0, apart = 1 << round; i < TILE; i++)
            if (!(i & apart)) {
                const uint64_t other = (word[i] >> 8 * apart ^ word[i + apart]) & first[round];
                word[i] ^= other << 8 * apart;
                word[i + apart] ^= other;
            }
}

/* out [columns, height] of labels [height, width] from column `left` on. */
static void turn(const uint8_t *labels, int64_t height, int64_t width, int64_t left, int64_t columns, uint8_t *out) {
    for (int64_t y = 0; y < height; y += TILE) {
        const int64_t rows = height - y < TILE ? height - y : TILE;
        for (int64_t x = 0; x < columns; x += TILE) {
            const uint8_t *from = labels + y * width + left + x;
            uint8_t *to = out + x * height + y;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            if (rows == TILE && x + TILE <= columns) {
                uint64_t word[TILE];
                for (int64_t j = 0; j < TILE; j++)
                    memcpy(word + j, from + j * width, TILE);
                turn_tile(word);
                for (int64_t i = 0; i < TILE; i++)
                    memcpy(to + i * height, word + i, TILE);
                continue;
            }
#endif
            for (int64_t i = 0; i < TILE && x + i < columns; i++)
                for (int64_t j = 0; j < rows; j++)
                    to[i * height + j] = from[j * width + i];
        }
    }
}

/* Counts of every id of labels [height, width], column after column: zeros, ones, zeros …
 *
 * text     1: characters, as pycocotools compresses them; 0: uint32
 * ignored  an id that is left out, or -1
 * at       [256]  each id's counts, NULL where it is absent; to be given to tessera_release
 * sizes    [256]  their bytes;  pixels [256]
 * returns  0; 2 where memory is short: there is nothing to be released then
 */
PUBLIC int tessera_run_lengths(const uint8_t *labels, int64_t height, int64_t width, int64_t text, int64_t ignored,
                               void **at, int64_t *sizes, int64_t *pixels) {
    Counts counts[IDS] = {0};
    const int64_t all = height * width;
    uint8_t *turned = malloc((size_t)(COLUMNS * height));
    int failed = turned ? 0 : 2;
    int64_t begun = 0;
    int id = all ? labels[0] : 0;
    for (int64_t left = 0; left < width && !failed; left += COLUMNS) {
        const int64_t columns = width - left < COLUMNS ? width - left : COLUMNS, here = columns * height;
        turn(labels, height, width, left, columns, turned);
        for (int64_t i = 0; i < here;) {
            if (turned[i] != id) {
                const int64_t now = left * height + i;
                Counts *of = counts + id;
                if (id != ignored)
                    failed |= add(of, begun - of->end, now - begun, (int)text);
                pixels[id] += now - begun;
                of->end = begun = now;
                id = turned[i];
            }
            i += run_length(turned + i, here - i);
        }
    }
    free(turned);
    if (!failed && all) {
        if (id != ignored)
            failed |= add(counts + id, begun - counts[id].end, all - begun, (int)text);
        pixels[id] += all - begun;
        counts[id].end = all;
    }
    for (int i = 0; i < IDS && !failed; i++)
        if (counts[i].runs && counts[i].end < all)
            failed |= add(counts + i, all - counts[i].end, 0, (int)text);
    for (int i = 0; i < IDS; i++) {
        if (failed) {
            free(counts[i].at);
            counts[i].at = NULL;
        }
        at[i] = counts[i].at;
        sizes[i] = counts[i].used;
    }
    return failed ? 2 : 0;
}

/* Gives back what other functions have left in `at` [count]. */
PUBLIC void tessera_release(void **at, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        free(at[i]);
        at[i] = NULL;
    }
}
