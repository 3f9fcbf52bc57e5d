/* A label map's connected regions, and the rings of pixel edges around them.
 *
 * Pixels are neighbors where they share an edge. Where two pixels of one region meet at a corner only, rings go around
 * the other two, so that no ring meets itself: a hole meets the outline there, or another hole.
 *
 * Knows nothing of files, networks or Python.
 */
#include "kernels.h"

#define NO_MEMORY 2
#define TOO_MANY 3

/* Runs of equal ids in the rows of labels [height, width], and which of them are connected.
 *
 * rows    [height + 1]  the first run of every row
 * start   [runs]  their first columns
 * region  [runs]  the first run of the region that each belongs to; later its number, or -1
 * size    [runs]  pixels of the region that begins here; later its number, or -1
 */
typedef struct {
    const uint8_t *labels;
    int64_t height, width;
    int64_t *rows;
    int32_t *start, *region, *size;
} Runs;

static inline int32_t root(int32_t *parent, int32_t at) {
    while (parent[at] != at) {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    return at;
}

static inline int64_t end_of(const Runs *runs, int64_t run, int64_t y) {
    return run + 1 < runs->rows[y + 1] ? runs->start[run + 1] : runs->width;
}

static inline uint8_t label_of(const Runs *runs, int64_t run, int64_t y) {
    return runs->labels[y * runs->width + runs->start[run]];
}

static void drop(Runs *runs) {
    free(runs->rows);
    free(runs->start);
    free(runs->region);
    free(runs->size);
}

/* The runs and their regions' first runs and sizes; to be dropped afterwards. */
static int connect_runs(Runs *runs) {
    const int64_t height = runs->height, width = runs->width;
    int64_t count = 0;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; count++)
            x += run_length(runs->labels + y * width + x, width - x);
    runs->rows = malloc(sizeof(int64_t) * (size_t)(height + 1));
    runs->start = malloc(sizeof(int32_t) * (size_t)(count + 1));
    runs->region = malloc(sizeof(int32_t) * (size_t)(count + 1));
    runs->size = calloc((size_t)(count + 1), sizeof(int32_t));
    if (!runs->rows || !runs->start || !runs->region || !runs->size)
        return NO_MEMORY;
    int64_t run = 0;
    for (int64_t y = 0; y < height; y++) {
        runs->rows[y] = run;
        for (int64_t x = 0; x < width; run++) {
            runs->start[run] = (int32_t)x;
            runs->region[run] = (int32_t)run;
            x += run_length(runs->labels + y * width + x, width - x);
        }
        runs->rows[y + 1] = run;
        if (!y)
            continue;
        for (int64_t above = runs->rows[y - 1], here = runs->rows[y]; above < runs->rows[y] && here < run;) {
            if (label_of(runs, above, y - 1) == label_of(runs, here, y)) {
                const int32_t a = root(runs->region, (int32_t)above), b = root(runs->region, (int32_t)here);
                runs->region[a > b ? a : b] = a < b ? a : b;
            }
            const int64_t end_above = end_of(runs, above, y - 1), end_here = end_of(runs, here, y);
            above += end_above <= end_here;
            here += end_here <= end_above;
        }
    }
    for (int64_t y = 0; y < height; y++)
        for (int64_t i = runs->rows[y]; i < runs->rows[y + 1]; i++) {
            runs->region[i] = runs->region[runs->region[i]];
            runs->size[runs->region[i]] += (int32_t)(end_of(runs, i, y) - runs->start[i]);
        }
    return 0;
}

/* Pixels of regions with fewer than `smallest`, set to `value` in out [height, width], which holds the labels.
 *
 * returns  0; 2 where memory is short
 */
PUBLIC int tessera_erase_specks(const uint8_t *labels, int64_t height, int64_t width, int64_t smallest, int64_t value,
                                uint8_t *out) {
    Runs runs = {.labels = labels, .height = height, .width = width};
    const int failed = connect_runs(&runs);
    for (int64_t y = 0; y < height && !failed; y++)
        for (int64_t i = runs.rows[y]; i < runs.rows[y + 1]; i++)
            if (runs.size[runs.region[i]] < smallest)
                memset(out + y * width + runs.start[i], (int)value, (size_t)(end_of(&runs, i, y) - runs.start[i]));
    drop(&runs);
    return failed;
}

/* Rings as they are traced.
 *
 * points  [used, 2]  corners x, y;  most  of them
 * rings   [count, 2]  each one's region and first corner
 */
typedef struct {
    int32_t *points;
    int64_t used, room, most;
    int64_t *rings;
    int64_t count, ring_room;
} Outline;

static inline int push(Outline *out, int64_t x, int64_t y) {
    if (out->used == out->room) {
        if (out->used >= out->most)
            return TOO_MANY;
        const int64_t room = out->room ? 2 * out->room : 4096;
        int32_t *points = realloc(out->points, 2 * sizeof(int32_t) * (size_t)room);
        if (!points)
            return NO_MEMORY;
        out->points = points;
        out->room = room;
    }
    out->points[2 * out->used] = (int32_t)x;
    out->points[2 * out->used + 1] = (int32_t)y;
    out->used++;
    return out->used > out->most ? TOO_MANY : 0;
}

static int begin_ring(Outline *out, int64_t region) {
    if (out->count == out->ring_room) {
        const int64_t room = out->ring_room ? 2 * out->ring_room : 256;
        int64_t *rings = realloc(out->rings, 2 * sizeof(int64_t) * (size_t)room);
        if (!rings)
            return NO_MEMORY;
        out->rings = rings;
        out->ring_room = room;
    }
    out->rings[2 * out->count] = region;
    out->rings[2 * out->count + 1] = out->used;
    out->count++;
    return 0;
}

static inline int is_label(const Runs *runs, int64_t y, int64_t x, uint8_t label) {
    return x >= 0 && y >= 0 && x < runs->width && y < runs->height && runs->labels[y * runs->width + x] == label;
}

static int32_t region_at(const Runs *runs, int64_t y, int64_t x) {
    int64_t low = runs->rows[y], high = runs->rows[y + 1];
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (runs->start[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return runs->region[low];
}

/* The ring that goes east along the upper edge of the pixel x, y, its region at the right hand, closed; upper edges
 * where it turns east are marked in `seen`, a bit for each pixel. */
static int trace(const Runs *runs, int64_t x, int64_t y, int32_t region, uint8_t *seen, Outline *out) {
    static const int8_t step[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};     /* east, south, west, north: x, y */
    static const int8_t right[4][2] = {{0, 0}, {-1, 0}, {-1, -1}, {0, -1}};  /* the pixel ahead at the right hand */
    static const int8_t left[4][2] = {{0, -1}, {0, 0}, {-1, 0}, {-1, -1}};   /* and at the left */
    const uint8_t label = runs->labels[y * runs->width + x];
    const int64_t x0 = x, y0 = y;
    int heading = 0, failed = begin_ring(out, region);
    while (!failed) {
        failed = push(out, x, y);
        if (heading == 0) {
            const int64_t pixel = y * runs->width + x;
            seen[pixel >> 3] |= (uint8_t)(1 << (pixel & 7));
        }
        int ahead, aside;
        do {
            x += step[heading][0];
            y += step[heading][1];
            ahead = is_label(runs, y + right[heading][1], x + right[heading][0], label);
            aside = is_label(runs, y + left[heading][1], x + left[heading][0], label);
        } while (ahead && !aside);
        if (aside && !ahead)
            aside = region_at(runs, y + left[heading][1], x + left[heading][0]) == region;
        heading = (heading + (aside ? 3 : 1)) & 3;
        if (heading == 0 && x == x0 && y == y0)
            return failed ? failed : push(out, x, y);
    }
    return failed;
}

/* All rings, in the order of their first pixels: a region's outline comes before its holes. */
static int trace_all(const Runs *runs, Outline *out) {
    const int64_t width = runs->width;
    uint8_t *seen = calloc((size_t)(runs->height * width / 8 + 1), 1);
    int failed = seen ? 0 : NO_MEMORY;
    for (int64_t y = 0; y < runs->height && !failed; y++) {
        const uint8_t *above = runs->labels + (y - 1) * width;
        for (int64_t i = runs->rows[y]; i < runs->rows[y + 1] && !failed; i++) {
            if (runs->region[i] < 0)
                continue;
            const int64_t end = end_of(runs, i, y);
            const uint8_t label = label_of(runs, i, y);
            int inside = 1; /* whether the pixel above the last one is of the region too: an edge begins where it ends */
            for (int64_t x = runs->start[i]; x < end && !failed;) {
                const int64_t length = y ? run_length(above + x, end - x) : end - x;
                const int edge = !y || above[x] != label;
                const int64_t pixel = y * width + x;
                if (edge && inside && !(seen[pixel >> 3] >> (pixel & 7) & 1))
                    failed = trace(runs, x, y, runs->region[i], seen, out);
                inside = !edge;
                x += length;
            }
        }
    }
    free(seen);
    return failed;
}

/* Numbers regions of `smallest` pixels and more by their first pixels, but those of the id `ignored`; and counts them. */
static int64_t number_regions(Runs *runs, int64_t smallest, int64_t ignored) {
    int64_t kept = 0;
    for (int64_t y = 0; y < runs->height; y++)
        for (int64_t i = runs->rows[y]; i < runs->rows[y + 1]; i++) {
            if (runs->region[i] == i)
                runs->size[i] = runs->size[i] >= smallest && label_of(runs, i, y) != ignored ? (int32_t)kept++ : -1;
            runs->region[i] = runs->size[runs->region[i]];
        }
    return kept;
}

/* Regions of labels [height, width] and their rings.
 *
 * margin    [mh, mw] of the same picture, or NULL
 * smallest  pixels of a region;  ignored  an id that is left out, or -1;  most  corners of all of them
 * at        [5]  int32 points [, 2] x, y; int64 rings [, 2] region, first point; int32 label [regions]; int64 pixels
 *           [regions]; double sums of margins [regions]: to be given to tessera_release
 * counts    [3]  points, rings, regions
 * returns   0; 2 where memory is short, 3 where there are more corners: there is nothing to be released then
 */
PUBLIC int tessera_regions(const uint8_t *labels, int64_t height, int64_t width, const float *margin, int64_t mh,
                           int64_t mw, int64_t smallest, int64_t ignored, int64_t most, void **at, int64_t *counts) {
    Runs runs = {.labels = labels, .height = height, .width = width};
    Outline out = {.most = most};
    int32_t *label = NULL;
    int64_t *pixels = NULL, regions = 0, shown = -1;
    double *sums = NULL, *until = NULL;
    int failed = connect_runs(&runs);
    if (!failed) {
        regions = number_regions(&runs, smallest, ignored);
        failed = 5 * regions > most ? TOO_MANY : trace_all(&runs, &out);
    }
    if (!failed) {
        label = malloc(sizeof *label * (size_t)(regions + 1));
        pixels = calloc((size_t)(regions + 1), sizeof *pixels);
        sums = calloc((size_t)(regions + 1), sizeof *sums);
        until = malloc(sizeof *until * (size_t)(width + 1));
        failed = label && pixels && sums && until ? 0 : NO_MEMORY;
    }
    for (int64_t y = 0; y < height && !failed; y++) {
        if (margin && y * mh / height != shown) {
            shown = y * mh / height;
            until[0] = 0;
            for (int64_t x = 0; x < width; x++)
                until[x + 1] = until[x] + margin[shown * mw + x * mw / width];
        }
        for (int64_t i = runs.rows[y]; i < runs.rows[y + 1]; i++) {
            const int32_t region = runs.region[i];
            if (region < 0)
                continue;
            const int64_t end = end_of(&runs, i, y);
            label[region] = label_of(&runs, i, y);
            pixels[region] += end - runs.start[i];
            if (margin)
                sums[region] += until[end] - until[runs.start[i]];
        }
    }
    free(until);
    drop(&runs);
    at[0] = out.points;
    at[1] = out.rings;
    at[2] = label;
    at[3] = pixels;
    at[4] = sums;
    counts[0] = out.used;
    counts[1] = out.count;
    counts[2] = regions;
    for (int i = 0; i < 5 && failed; i++) {
        free(at[i]);
        at[i] = NULL;
    }
    return failed;
}
