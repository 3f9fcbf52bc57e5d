/* How clearly each pixel's cluster won, from the patch grid: best less second-best similarity, and which two they are.
 *
 * Every number is what models/assign.py computes in numpy, in the same order. Dividing by one length keeps the order of
 * two scores, rounding or not: only the best two of a pixel are divided.
 *
 * Knows nothing of files, networks or Python.
 */
#include "grid.h"

#include <math.h>

#define SHORTEST 1e-10f /* that a code is taken to be */

/* What a margin is made of.
 *
 * scores    [k, h, w]
 * products  [5, h, w]  of each place's code with its own, the next one's, the lower one's, the lower next one's, and of
 *           the next one's with the lower one's; [1, h, w] for the grid's own places; NULL: scores are compared
 */
typedef struct {
    const float *scores, *products;
    int64_t k, h, w;
} Places;

/* The answer [height, width]: margins, `least` to 1; ids of the best and of the second, or NULL, both of them. */
typedef struct {
    float least, *margin;
    uint8_t *best, *second;
    int64_t height, width;
} Found;

static inline float within(float value, float least) { return smaller(larger(value, least), 1.0f); }

/* One line of w places of a grid: best, second and whose they are; the lower id is the better one of equals. */
WIDEST static void rank_line(const Places *of, int64_t y, float *restrict best, float *restrict second,
                             int32_t *restrict id, int32_t *restrict other) {
    for (int64_t x = 0; x < of->w; x++) {
        best[x] = of->scores[y * of->w + x];
        second[x] = -FLT_MAX;
        id[x] = other[x] = 0;
    }
    for (int64_t c = 1; c < of->k; c++) {
        const float *row = of->scores + (c * of->h + y) * of->w;
        for (int64_t x = 0; x < of->w; x++) {
            const float value = row[x], highest = best[x], next = second[x];
            const int wins = value > highest, follows = value > next;
            other[x] = wins ? id[x] : follows ? (int32_t)c : other[x];
            second[x] = wins ? highest : follows ? value : next;
            id[x] = wins ? (int32_t)c : id[x];
            best[x] = wins ? value : highest;
        }
    }
}

/* Margins where every pixel is one place of the grid. returns  0; 2 where memory is short */
WIDEST static int on_places(const Places *of, const int64_t *down, const int64_t *across, const Found *found) {
    const int64_t w = of->w, width = found->width;
    float *best = malloc((2 * sizeof(float) + 2 * sizeof(int32_t)) * (size_t)w);
    if (!best)
        return 2;
    float *second = best + w;
    int32_t *id = (int32_t *)(second + w), *other = id + w;
    for (int64_t y = 0; y < found->height; y++) {
        const int64_t at = y * width, above = at - width;
        if (y && down[y] == down[y - 1]) {
            memcpy(found->margin + at, found->margin + above, sizeof(float) * (size_t)width);
            if (found->best) {
                memcpy(found->best + at, found->best + above, (size_t)width);
                memcpy(found->second + at, found->second + above, (size_t)width);
            }
            continue;
        }
        rank_line(of, down[y], best, second, id, other);
        const float *own = of->products ? of->products + down[y] * w : NULL;
        for (int64_t x = 0; x < w; x++) {
            const float length = own ? larger(sqrtf(own[x]), SHORTEST) : 1.0f;
            const float cosine = best[x] / length;
            best[x] = within(of->k > 1 ? cosine - second[x] / length : cosine, found->least);
        }
        for (int64_t x = 0; x < width; x++)
            found->margin[at + x] = best[across[x]];
        for (int64_t x = 0; found->best && x < width; x++) {
            found->best[at + x] = (uint8_t)id[across[x]];
            found->second[at + x] = (uint8_t)other[across[x]];
        }
    }
    free(best);
    return 0;
}

/* The clusters that can be among the best two somewhere in a cell, in ascending order. */
static inline __attribute__((always_inline)) int64_t candidates(const float *const corner[4], int64_t k, int64_t stride,
                                                               float slack, uint8_t *found) {
    float highest[256];
    floats first = {0}, next;
    first -= FLT_MAX;
    next = first;
    for (int64_t c = 0; c < stride; c += LANES) {
        float lowest[LANES];
        for (int i = 0; i < LANES; i++) {
            const float a = corner[0][c + i], b = corner[1][c + i], d = corner[2][c + i], e = corner[3][c + i];
            lowest[i] = smaller(smaller(a, b), smaller(d, e));
            highest[c + i] = larger(larger(a, b), larger(d, e));
        }
        floats low;
        memcpy(&low, lowest, sizeof low);
        const ints wins = low > first;
        const floats loser = choose(wins, first, low);
        first = choose(wins, low, first);
        next = choose(loser > next, loser, next);
    }
    float top = first[0], bar = next[0];
    for (int i = 1; i < LANES; i++) {
        bar = larger(bar, larger(next[i], smaller(top, first[i])));
        top = larger(top, first[i]);
    }
    bar -= slack;
    int64_t count = 0;
    for (int64_t c = 0; c < k; c++) {
        found[count] = (uint8_t)c;
        count += highest[c] >= bar;
    }
    return count;
}

/* Squared lengths between four corners, in the order of models/assign.py. */
typedef struct {
    float own[4], beside[2], below[2], crossed; /* corners: upper left and right, lower left and right */
} Cell;

static inline __attribute__((always_inline)) floats squares(const Cell *cell, float u, floats v) {
    const float up = 1 - u, up2 = up * up, u2 = u * u;
    const floats rest = 1 - v, rest2 = rest * rest, v2 = v * v;
    floats sum = up2 * (rest2 * cell->own[0] + v2 * cell->own[1]);
    sum += u2 * (rest2 * cell->own[2] + v2 * cell->own[3]);
    sum += 2 * v * rest * (up2 * cell->beside[0] + u2 * cell->beside[1]);
    sum += 2 * u * up * (rest2 * cell->below[0] + v2 * cell->below[1]);
    sum += 2 * u * v * up * rest * cell->crossed;
    return sum;
}

static inline __attribute__((always_inline)) floats roots(floats squared) {
    float length[LANES];
    memcpy(length, &squared, sizeof length);
    for (int i = 0; i < LANES; i++)
        length[i] = larger(sqrtf(larger(length[i], 0.0f)), SHORTEST);
    memcpy(&squared, length, sizeof squared);
    return squared;
}

/* Writes up to LANES values; what goes past a cell is written again by the next one, what goes past a row is not. */
static inline void put(void *to, const void *values, int64_t size, int64_t most) {
    memcpy(to, values, (size_t)size * (size_t)(most < LANES ? most : LANES));
}

/* Margins between the places. returns  0; 2 where memory is short */
WIDEST static int between_places(const Places *of, float magnitude, const int64_t *top, const int64_t *bottom,
                                 const float *down, const int64_t *left, const int64_t *right, const float *across,
                                 const Found *found) {
    const int64_t k = of->k, h = of->h, w = of->w, height = found->height, width = found->width;
    const int64_t stride = padded_to_lanes(k), padded = width + LANES;
    const float slack = magnitude * 0x1p-18f + FLT_MIN; /* more than the rounding of two interpolations */
    Lines lines = {of->scores, k, h, w, stride, {-1, -1}, NULL};
    lines.at = malloc(sizeof(float) * (size_t)(2 * w * stride + padded));
    if (!lines.at)
        return 2;
    float *weights = lines.at + 2 * w * stride;
    memcpy(weights, across, sizeof(float) * (size_t)width);
    memset(weights + width, 0, sizeof(float) * LANES);

    for (int64_t y0 = 0, y1; y0 < height; y0 = y1) {
        for (y1 = y0 + 1; y1 < height && top[y1] == top[y0];)
            y1++;
        const int64_t t = top[y0] * w, b = bottom[y0] * w;
        const float *const above = line_of(&lines, top[y0]), *const below = line_of(&lines, bottom[y0]);
        for (int64_t x0 = 0, x1; x0 < width; x0 = x1) {
            const int64_t l = left[x0], r = right[x0];
            for (x1 = x0 + 1; x1 < width && left[x1] == l;)
                x1++;
            const float *const corner[4] = {above + l * stride, above + r * stride, below + l * stride,
                                            below + r * stride};
            uint8_t chosen[256];
            const int64_t count = candidates(corner, k, stride, slack, chosen);
            Cell cell = {{0}, {0}, {0}, 0};
            if (of->products) {
                const float *own = of->products, *beside = own + h * w, *under = beside + h * w;
                const float *falling = under + h * w, *rising = falling + h * w;
                cell = (Cell){{own[t + l], own[t + r], own[b + l], own[b + r]},
                              {beside[t + l], beside[b + l]},
                              {under[t + l], under[t + r]},
                              falling[t + l] + rising[t + l]};
            }
            float start[255][LANES], slope[255][LANES];
            for (int64_t from = y0; from < y1; from += LANES) {
                const int64_t rows = y1 - from < LANES ? y1 - from : LANES;
                float weight[LANES] = {0};
                memcpy(weight, down + from, sizeof(float) * (size_t)rows);
                for (int64_t n = 0; n < count; n++) {
                    const int64_t c = chosen[n];
                    const float tl = corner[0][c], tr = corner[1][c];
                    const float fall_l = corner[2][c] - tl, fall_r = corner[3][c] - tr;
                    for (int i = 0; i < LANES; i++) {
                        start[n][i] = tl + fall_l * weight[i];
                        slope[n][i] = (tr + fall_r * weight[i]) - start[n][i];
                    }
                }
                for (int64_t row = 0; row < rows; row++)
                    for (int64_t x = x0; x < x1; x += LANES) {
                        floats v;
                        memcpy(&v, weights + x, sizeof v);
                        floats best = v * slope[0][row] + start[0][row], second = {0};
                        ints id = (ints){0} + chosen[0], other = {0};
                        second -= FLT_MAX;
                        for (int64_t n = 1; n < count; n++) {
                            const floats value = v * slope[n][row] + start[n][row];
                            const ints wins = value > best;
                            const floats loser = choose(wins, best, value);
                            const ints follows = loser > second;
                            second = choose(follows, loser, second);
                            best = choose(wins, value, best);
                            if (found->best) {
                                other = (wins & id) | (~wins & ((follows & chosen[n]) | (~follows & other)));
                                id = (wins & chosen[n]) | (~wins & id);
                            }
                        }
                        floats length = (floats){0} + 1.0f;
                        if (of->products)
                            length = roots(squares(&cell, weight[row], v));
                        const floats cosine = best / length, margin = k > 1 ? cosine - second / length : cosine;
                        float shown[LANES];
                        for (int i = 0; i < LANES; i++)
                            shown[i] = within(margin[i], found->least);
                        const int64_t at = (from + row) * width + x, most = x + LANES <= width ? LANES : x1 - x;
                        put(found->margin + at, shown, sizeof *shown, most);
                        if (found->best) {
                            const bytes small = __builtin_convertvector(id, bytes);
                            const bytes next = __builtin_convertvector(other, bytes);
                            put(found->best + at, &small, 1, most);
                            put(found->second + at, &next, 1, most);
                        }
                    }
            }
        }
    }
    free(lines.at);
    return 0;
}

/* Margins [height, width], and where `best` is not NULL ids of the best two clusters there.
 *
 * scores [k, h, w], products  of `Places`;  between  whether any weight is more than 0
 * top, bottom [height], left, right [width]  neighbors on the grid, ascending; down, across  weights of the second one
 * least    what margins are raised to: 0, or -1 for the cosines of a lone map
 * returns  0; 1 where a score or product is not finite or enormous, 2 where memory is short: nothing was written
 */
PUBLIC int tessera_margin(const float *scores, const float *products, int64_t between, int64_t k, int64_t h, int64_t w,
                          const int64_t *top, const int64_t *bottom, const float *down, int64_t height,
                          const int64_t *left, const int64_t *right, const float *across, int64_t width, double least,
                          float *margin, uint8_t *best, uint8_t *second) {
    const float enormous = 1e27f; /* of which a 10^10th part is a number still */
    int32_t limit;
    memcpy(&limit, &enormous, 4);
    const int32_t bits = magnitude_bits(scores, k * h * w);
    if (bits > limit || (products && magnitude_bits(products, (between ? 5 : 1) * h * w) > limit))
        return 1;
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    const Places of = {scores, products, k, h, w};
    const Found found = {(float)least, margin, best, second, height, width};
    return between ? between_places(&of, magnitude, top, bottom, down, left, right, across, &found)
                   : on_places(&of, top, left, &found);
}
