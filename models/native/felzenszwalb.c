/* Regions of even color: Felzenszwalb's graph-based segmentation, at several scales of one image.
 *
 * Pixels are joined along the edges of an 8-connected grid, the cheapest first, while an edge costs less than what
 * holds either side together. Smoothing, costs and their order are the same at every scale, and done once. Each number
 * is what scikit-image computes, in the same order of additions; among equal costs the first one of (right, down, down
 * right, up right), row by row, goes first, where scikit-image leaves it to an unstable sort.
 *
 * Knows nothing of files, networks or Python.
 *
 * Source: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation (IJCV 2004).
 */
#include "kernels.h"

#include <math.h>

#define CHANNELS 3
#define DIGITS 3   /* of a cost's 32 bits, from the lowest */
#define DIGIT_BITS 11

typedef struct {
    double cost;
    int32_t from, to;
} Edge;

typedef struct {
    uint32_t bits; /* of the cost as a float: their order is the costs' */
    int32_t edge;
} Key;

/* A forest of pixels: of a root its tree's size and largest edge. */
typedef struct {
    int32_t *parent, *size;
    double *inner;
} Forest;

/* Where an index beyond a line of n values is read: d c b a | a b c d | d c b a. */
static inline int64_t mirrored(int64_t i, int64_t n) {
    i %= 2 * n;
    i = i < 0 ? i + 2 * n : i;
    return i < n ? i : 2 * n - 1 - i;
}

/* to [outer, n, inner] = from, smoothed along n by a symmetric kernel [2 radius + 1]; `at` is room for n + 2 radius. */
WIDEST static void smooth(const double *from, double *to, int64_t outer, int64_t n, int64_t inner,
                          const double *kernel, int64_t radius, int64_t *at) {
    for (int64_t i = -radius; i < n + radius; i++)
        at[i + radius] = mirrored(i, n) * inner;
    for (int64_t o = 0; o < outer; o++, from += n * inner, to += n * inner)
        for (int64_t i = 0; i < n; i++) {
            double *line = to + i * inner;
            const double *own = from + i * inner;
            for (int64_t c = 0; c < inner; c++)
                line[c] = own[c] * kernel[radius];
            for (int64_t j = -radius; j < 0; j++) {
                const double *before = from + at[i + radius + j], *after = from + at[i + radius - j];
                const double weight = kernel[radius + j];
                for (int64_t c = 0; c < inner; c++)
                    line[c] += (before[c] + after[c]) * weight;
            }
        }
}

/* The edges between pixels of a grid that are `down` rows and `right` columns apart; returns how many. */
static int64_t connect(const double *colors, int64_t height, int64_t width, int64_t down, int64_t right, Edge *edges) {
    int64_t count = 0;
    const int64_t first = right < 0 ? -right : 0, last = right > 0 ? width - right : width;
    for (int64_t y = 0; y + down < height; y++)
        for (int64_t x = first; x < last; x++) {
            const int64_t here = y * width + x, there = here + down * width + right;
            double sum = 0;
            for (int64_t c = 0; c < CHANNELS; c++) {
                const double apart = colors[there * CHANNELS + c] - colors[here * CHANNELS + c];
                sum += apart * apart;
            }
            edges[count++] = (Edge){sqrt(sum), (int32_t)here, (int32_t)there};
        }
    return count;
}

/* The edges by rising cost into `sorted`; equal ones stay in order. `keys` is room for 2 count. */
static void sort(const Edge *edges, int64_t count, Edge *sorted, Key *keys) {
    Key *from = keys, *to = keys + count;
    for (int64_t i = 0; i < count; i++) {
        const float cost = (float)edges[i].cost;
        memcpy(&from[i].bits, &cost, sizeof cost);
        from[i].edge = (int32_t)i;
    }
    for (int digit = 0; digit < DIGITS; digit++) {
        int64_t starts[1 << DIGIT_BITS] = {0};
        const int shift = digit * DIGIT_BITS;
        const uint32_t mask = (1 << DIGIT_BITS) - 1;
        for (int64_t i = 0; i < count; i++)
            starts[from[i].bits >> shift & mask]++;
        int64_t start = 0;
        for (int d = 0; d <= (int)mask; d++) {
            const int64_t here = starts[d];
            starts[d] = start;
            start += here;
        }
        for (int64_t i = 0; i < count; i++)
            to[starts[from[i].bits >> shift & mask]++] = from[i];
        Key *swap = from;
        from = to;
        to = swap;
    }
    for (int64_t i = 0; i < count; i++) {
        const Edge edge = edges[from[i].edge];
        int64_t at = i; /* costs alike as floats are few, or alike as doubles too */
        for (; at && sorted[at - 1].cost > edge.cost; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = edge;
    }
}

static inline int32_t root(int32_t *parent, int32_t at) {
    while (parent[at] != at) {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    return at;
}

/* One tree of two; the root is the first of their pixels. */
static inline int32_t join(const Forest *trees, int32_t a, int32_t b) {
    const int32_t kept = a < b ? a : b, gone = a < b ? b : a;
    trees->parent[gone] = kept;
    trees->size[kept] += trees->size[gone];
    return kept;
}

/* Regions of one scale, numbered by their first pixels, into ids [pixels]; returns how many. */
static int64_t cut(const Edge *edges, int64_t count, const Forest *trees, int64_t pixels, double scale,
                   int64_t smallest, uint16_t *ids) {
    for (int64_t i = 0; i < pixels; i++) {
        trees->parent[i] = (int32_t)i;
        trees->size[i] = 1;
        trees->inner[i] = 0;
    }
    for (int64_t e = 0; e < count; e++) {
        const int32_t a = root(trees->parent, edges[e].from), b = root(trees->parent, edges[e].to);
        if (a == b)
            continue;
        const double most_a = trees->inner[a] + scale / trees->size[a];
        const double most_b = trees->inner[b] + scale / trees->size[b];
        if (edges[e].cost < (most_a < most_b ? most_a : most_b))
            trees->inner[join(trees, a, b)] = edges[e].cost;
    }
    for (int64_t e = 0; e < count; e++) {
        const int32_t a = root(trees->parent, edges[e].from), b = root(trees->parent, edges[e].to);
        if (a != b && (trees->size[a] < smallest || trees->size[b] < smallest))
            join(trees, a, b);
    }
    int64_t found = 0;
    for (int64_t i = 0; i < pixels; i++) { /* a root is its tree's first pixel: numbered when it is met */
        const int32_t first = root(trees->parent, (int32_t)i);
        if (first == i)
            trees->size[i] = (int32_t)found++;
        ids[i] = (uint16_t)trees->size[first];
    }
    return found;
}

/* out [scales, height, width]: region ids of an image [height, width, 3] at every scale.
 *
 * kernel    [2 radius + 1]  what smooths the image along both axes; radius 0 leaves it as it is
 * scale     [scales]  in units of the full range of a channel;  smallest [scales]  pixels
 * returns   0; 1 where there are more regions than ids below 65535, 2 where memory is short
 */
PUBLIC int tessera_felzenszwalb(const uint8_t *image, int64_t height, int64_t width, const double *kernel,
                                int64_t radius, const double *scale, const int64_t *smallest, int64_t scales,
                                uint16_t *out) {
    const int64_t pixels = height * width, values = pixels * CHANNELS, longest = height > width ? height : width;
    const int64_t count = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1);
    double *colors = malloc(sizeof *colors * 2 * (size_t)values);
    int64_t *at = malloc(sizeof *at * (size_t)(longest + 2 * radius));
    Edge *edges = malloc(sizeof *edges * 2 * (size_t)(count + 1));
    Key *keys = malloc(sizeof *keys * 2 * (size_t)(count + 1));
    const Forest trees = {malloc(sizeof(int32_t) * (size_t)pixels), malloc(sizeof(int32_t) * (size_t)pixels),
                          malloc(sizeof(double) * (size_t)pixels)};
    int failed = 0;
    if (!colors || !at || !edges || !keys || !trees.parent || !trees.size || !trees.inner)
        failed = 2;
    else {
        for (int64_t i = 0; i < values; i++)
            colors[i] = image[i] * (1. / 255);
        if (radius) {
            smooth(colors, colors + values, 1, height, width * CHANNELS, kernel, radius, at);
            smooth(colors + values, colors, height, width, CHANNELS, kernel, radius, at);
        }
        Edge *end = edges;
        end += connect(colors, height, width, 0, 1, end);
        end += connect(colors, height, width, 1, 0, end);
        end += connect(colors, height, width, 1, 1, end);
        end += connect(colors, height, width, 1, -1, end);
        Edge *sorted = edges + count;
        sort(edges, count, sorted, keys);
        for (int64_t s = 0; s < scales; s++)
            failed |= cut(sorted, count, &trees, pixels, scale[s], smallest[s], out + s * pixels) > UINT16_MAX;
    }
    free(colors);
    free(at);
    free(edges);
    free(keys);
    free(trees.parent);
    free(trees.size);
    free(trees.inner);
    return failed;
}
