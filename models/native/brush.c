/* Label Studio's brush strokes of all clusters of a label map, in one pass.
 *
 * Knows nothing of files, networks or Python.
 */
#include "kernels.h"

#define CHANNELS 4      /* a mask is 255 in red, green, blue and alpha */
#define LONGEST 65536   /* values of one packet */
#define HEADER_BITS 53  /* 32 of the count, 5 of the word's size, 4 for each of the four lengths' sizes */
#define IDS 256

typedef struct {
    int64_t end;     /* of the last pixel written, and one */
    int64_t bits;    /* in all */
    uint64_t held;   /* those that make no byte yet */
    int waiting;     /* how many they are */
    uint8_t *out;    /* the next byte's place; NULL: bits are only counted */
} Stroke;

static void put(Stroke *stroke, uint64_t value, int bits) {
    stroke->bits += bits;
    if (!stroke->out)
        return;
    stroke->held = stroke->held << bits | value;
    stroke->waiting += bits;
    while (stroke->waiting >= 8) {
        stroke->waiting -= 8;
        *stroke->out++ = (uint8_t)(stroke->held >> stroke->waiting);
    }
}

/* A run of so many pixels of one value: packets of a 1, which size the length has, the length less one, the value. */
static void run(Stroke *stroke, int64_t pixels, uint64_t value) {
    int64_t length = CHANNELS * pixels;
    if (!length)
        return;
    for (; length > LONGEST; length -= LONGEST)
        put(stroke, UINT64_C(7) << 24 | UINT64_C(0xffff) << 8 | value, 27);
    const uint64_t more = (uint64_t)length - 1;
    if (length <= 8)
        put(stroke, UINT64_C(4) << 11 | more << 8 | value, 14);
    else if (length <= 16)
        put(stroke, UINT64_C(5) << 12 | more << 8 | value, 15);
    else if (length <= 256)
        put(stroke, UINT64_C(6) << 16 | more << 8 | value, 19);
    else
        put(stroke, UINT64_C(7) << 24 | more << 8 | value, 27);
}

/* How many of the `count` bytes from `at` on equal the first; count is at least 1. */
static int64_t same(const uint8_t *at, int64_t count) {
    int64_t length = 1;
    while (length < count && at[length] == at[0])
        length++;
    return length;
}

/* The strokes of every id among n < 2³⁰ labels.
 *
 * sizes [256]  bytes of each one's, 0 where it does not occur: written where `out` is NULL, else read
 * out          all of them, one behind the other in the order of their ids
 */
PUBLIC int tessera_brush(const uint8_t *labels, int64_t n, int64_t *sizes, uint8_t *out) {
    Stroke strokes[IDS];
    memset(strokes, 0, sizeof strokes);
    if (out)
        for (int64_t id = 0, at = 0; id < IDS; at += sizes[id++])
            strokes[id].out = out + at;
    for (int64_t at = 0; at < n;) {
        Stroke *stroke = strokes + labels[at];
        if (!stroke->bits) {
            put(stroke, (uint64_t)(CHANNELS * n), 32);
            put(stroke, UINT64_C(7) << 16 | UINT64_C(0x237f), HEADER_BITS - 32);
        }
        const int64_t length = same(labels + at, n - at);
        run(stroke, at - stroke->end, 0);
        run(stroke, length, 255);
        stroke->end = at += length;
    }
    for (int id = 0; id < IDS; id++) {
        Stroke *stroke = strokes + id;
        if (!stroke->bits) {
            if (!out)
                sizes[id] = 0;
            continue;
        }
        run(stroke, n - stroke->end, 0);
        if (out)
            put(stroke, 0, 8 - (int)(stroke->bits % 8));
        else
            sizes[id] = stroke->bits / 8 + 1;
    }
    return 0;
}
