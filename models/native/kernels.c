/* Labels from the patch grid, counts of a label map, colors over a photo.
 *
 * Each computes what the numpy code beside its caller computes, value for value: floats are added and multiplied in the
 * same order, and nothing may be contracted or reassociated (-ffp-contract=off).
 *
 * Knows nothing of files, networks or Python.
 */
#include "grid.h"

#define VERSION 10 /* of the library's functions; models/native/bindings.py asks for the same */

PUBLIC int tessera_version(void) { return VERSION; }

/* ---- labels ---------------------------------------------------------------------------------------------------- */

/* What is known of a score grid's places.
 *
 * winner  [h, w]  the best cluster, the lowest id of equals
 * clear   [h, w]  whether it leads by more than `slack` there
 * slack   more than the rounding of two interpolations: a lead of so much at a cell's corners is a lead inside it
 */
typedef struct {
    uint8_t *winner, *clear;
    float slack;
} Grid;

/* Fills the grid from scores [k, h, w]; `line` is room for 3 w values. */
WIDEST static void fill_grid(Grid *grid, const float *scores, int64_t k, int64_t h, int64_t w, float *line) {
    float *best = line, *second = line + w;
    int32_t *winner = (int32_t *)(line + 2 * w);
    for (int64_t y = 0; y < h; y++) {
        for (int64_t x = 0; x < w; x++) {
            best[x] = second[x] = -FLT_MAX;
            winner[x] = 0;
        }
        for (int64_t c = 0; c < k; c++) {
            const float *row = scores + (c * h + y) * w;
            for (int64_t x = 0; x < w; x++) {
                const float value = row[x];
                second[x] = larger(second[x], smaller(best[x], value));
                winner[x] = value > best[x] ? (int32_t)c : winner[x];
                best[x] = larger(best[x], value);
            }
        }
        for (int64_t x = 0; x < w; x++) {
            grid->winner[y * w + x] = (uint8_t)winner[x];
            grid->clear[y * w + x] = best[x] - second[x] > grid->slack;
        }
    }
}

/* Whether cluster `other` leads `cluster` clearly at all four corners. */
static inline int leads(const float *const corner[4], int64_t other, int64_t cluster, float slack) {
    int everywhere = 1;
    for (int i = 0; i < 4; i++)
        everywhere &= corner[i][other] - corner[i][cluster] > slack;
    return everywhere;
}

/* The clusters that can win somewhere in a cell, in ascending order; at least one. */
static inline __attribute__((always_inline)) int64_t candidates(const Grid *grid, const float *const corner[4],
                                                               const uint8_t winner[4], int64_t k, int64_t stride,
                                                               uint8_t *found) {
    float highest[256];
    floats worst = {0};
    worst -= FLT_MAX;
    for (int64_t c = 0; c < stride; c += LANES) {
        float lowest[LANES];
        for (int i = 0; i < LANES; i++) {
            const float a = corner[0][c + i], b = corner[1][c + i], d = corner[2][c + i], e = corner[3][c + i];
            lowest[i] = smaller(smaller(a, b), smaller(d, e));
            highest[c + i] = larger(larger(a, b), larger(d, e));
        }
        floats low;
        memcpy(&low, lowest, sizeof low);
        const ints better = low > worst;
        worst = (floats)((better & (ints)low) | (~better & (ints)worst));
    }
    float bar = worst[0];
    for (int i = 1; i < LANES; i++)
        bar = larger(bar, worst[i]);
    bar -= grid->slack;
    int64_t count = 0;
    for (int64_t c = 0; c < k; c++) {
        if (highest[c] < bar)
            continue;
        int beaten = 0;
        for (int i = 0; i < 4 && !beaten; i++)
            beaten = leads(corner, winner[i], c, grid->slack);
        found[count] = (uint8_t)c;
        count += !beaten;
    }
    return count;
}

/* labels [height, width] of scores [k, h, w], interpolated between the neighbors and by the weights of models/assign.py.
 *
 * top, bottom [height], left, right [width]  neighbors on the grid, ascending; down, across  weights of the second one
 * returns  0; 1 where a score is not finite or enormous, 2 where memory is short: nothing was written
 *
 * A bilinear value is a convex combination of its cell's corners: a cluster that leads at all four leads between them.
 * Only the others' cells are computed, and only for the clusters that can win there.
 */
WIDEST PUBLIC int tessera_labels(const float *scores, int64_t k, int64_t h, int64_t w, const int64_t *top,
                                 const int64_t *bottom, const float *down, int64_t height, const int64_t *left,
                                 const int64_t *right, const float *across, int64_t width, uint8_t *out) {
    const float enormous = 1e37f;
    int32_t limit;
    memcpy(&limit, &enormous, 4);
    const int32_t bits = magnitude_bits(scores, k * h * w);
    if (bits > limit)
        return 1;
    float magnitude;
    memcpy(&magnitude, &bits, 4);

    Lines lines = {scores, k, h, w, padded_to_lanes(k), {-1, -1}, NULL};
    const int64_t places = h * w, padded = width + LANES;
    char *room = malloc(sizeof(float) * (size_t)(2 * w * lines.stride + 3 * w + padded) + 2 * (size_t)places);
    if (!room)
        return 2;
    lines.at = (float *)room;
    float *line = lines.at + 2 * w * lines.stride, *weights = line + 3 * w;
    Grid grid = {(uint8_t *)(weights + padded), (uint8_t *)(weights + padded) + places, 0};
    grid.slack = magnitude * 0x1p-18f + FLT_MIN; /* each value is within 10 · 2^-24 · magnitude of the exact one */
    fill_grid(&grid, scores, k, h, w, line);
    memcpy(weights, across, sizeof(float) * (size_t)width);
    memset(weights + width, 0, sizeof(float) * LANES);

    for (int64_t y0 = 0, y1; y0 < height; y0 = y1) {
        for (y1 = y0 + 1; y1 < height && top[y1] == top[y0];)
            y1++;
        const int64_t t = top[y0] * w, b = bottom[y0] * w;
        const float *const above = line_of(&lines, top[y0]), *const below = line_of(&lines, bottom[y0]);
        for (int64_t x0 = 0, x1; x0 < width; x0 = x1) {
            uint8_t chosen[256];
            int64_t count = 0;
            const int64_t l = left[x0], r = right[x0];
            const int64_t place[4] = {t + l, t + r, b + l, b + r};
            uint8_t winner[4];
            int alike = 1;
            for (int i = 0; i < 4; i++) {
                winner[i] = grid.winner[place[i]];
                alike &= grid.clear[place[i]] & (winner[i] == winner[0]);
            }
            for (x1 = x0 + 1; x1 < width && left[x1] == l;)
                x1++;
            const float *const corner[4] = {above + l * lines.stride, above + r * lines.stride,
                                            below + l * lines.stride, below + r * lines.stride};
            if (alike)
                chosen[count++] = winner[0];
            else
                count = candidates(&grid, corner, winner, k, lines.stride, chosen);
            if (count == 1) {
                for (int64_t y = y0; y < y1; y++)
                    memset(out + y * width + x0, chosen[0], (size_t)(x1 - x0));
                continue;
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
                        floats weight_x;
                        memcpy(&weight_x, weights + x, sizeof weight_x);
                        floats best = weight_x * slope[0][row] + start[0][row];
                        ints id = (ints){0} + chosen[0];
                        for (int64_t n = 1; n < count; n++) {
                            const floats value = weight_x * slope[n][row] + start[n][row];
                            const ints better = value > best;
                            best = (floats)((better & (ints)value) | (~better & (ints)best));
                            id = (better & chosen[n]) | (~better & id);
                        }
                        const bytes small = __builtin_convertvector(id, bytes);
                        /* what goes past the cell is written again by the next one */
                        uint8_t *to = out + (from + row) * width + x;
                        if (x + LANES <= width)
                            memcpy(to, &small, LANES);
                        else
                            memcpy(to, &small, (size_t)(x1 - x));
                    }
            }
        }
    }
    free(room);
    return 0;
}

/* ---- counts ---------------------------------------------------------------------------------------------------- */

/* Counts, boxes and sums of margins of a label map [height, width], by id.
 *
 * margin  [mh, mw] of the same picture, or NULL
 * boxes   [256, 4]  left, top, right, bottom, the last two exclusive; untouched where an id is absent
 * pixels, sums [256]  zeros at first
 * returns  0; 2 where memory is short
 */
PUBLIC int tessera_count(const uint8_t *labels, int64_t height, int64_t width, const float *margin, int64_t mh,
                         int64_t mw, int64_t *pixels, int64_t *boxes, double *sums) {
    double *until = malloc((sizeof(double) + sizeof(int64_t)) * (size_t)(width + 1));
    if (!until)
        return 2;
    int64_t *column = (int64_t *)(until + width + 1), shown = -1;
    for (int64_t x = 0; margin && x < width; x++)
        column[x] = x * mw / width;
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *row = labels + y * width;
        if (margin && y * mh / height != shown) {
            shown = y * mh / height;
            until[0] = 0;
            for (int64_t x = 0; x < width; x++)
                until[x + 1] = until[x] + margin[shown * mw + column[x]];
        }
        for (int64_t x = 0, length; x < width; x += length) {
            length = run_length(row + x, width - x);
            int64_t *box = boxes + 4 * row[x];
            if (!pixels[row[x]]) {
                box[0] = x;
                box[1] = y;
                box[2] = 0;
            }
            box[0] = x < box[0] ? x : box[0];
            box[2] = x + length > box[2] ? x + length : box[2];
            box[3] = y + 1;
            pixels[row[x]] += length;
            if (margin)
                sums[row[x]] += until[x + length] - until[x];
        }
    }
    free(until);
    return 0;
}

/* ---- colors ---------------------------------------------------------------------------------------------------- */

/* out [count, 3] = (image · keep + paint) >> 8, both by label: keep [k], paint [k, 3]; labels below k. */
WIDEST PUBLIC void tessera_blend(const uint8_t *restrict image, const uint8_t *restrict labels, int64_t count,
                                 const uint16_t *restrict keep, const uint16_t *restrict paint, int64_t k,
                                 uint8_t *restrict out) {
    uint16_t patterns[256][3 * LANES];
    for (int64_t c = 0; c < k; c++)
        for (int64_t p = 0; p < LANES; p++)
            for (int64_t b = 0; b < 3; b++)
                patterns[c][p * 3 + b] = paint[c * 3 + b];
    for (int64_t i = 0, length; i < count; i += length) {
        length = run_length(labels + i, count - i);
        const uint16_t share = keep[labels[i]], *pattern = patterns[labels[i]];
        for (int64_t p = 0; p < length; p += LANES) {
            const uint8_t *from = image + 3 * (i + p);
            uint8_t *to = out + 3 * (i + p);
            if (i + p + LANES <= count)
                for (int b = 0; b < 3 * LANES; b++)
                    to[b] = (uint8_t)((uint16_t)(from[b] * share + pattern[b]) >> 8);
            else
                for (int64_t b = 0; b < 3 * (length - p); b++)
                    to[b] = (uint8_t)((uint16_t)(from[b] * share + pattern[b]) >> 8);
        }
    }
}
