/* What is asked of score maps on the patch grid by more than one kernel. */
#ifndef TESSERA_GRID_H
#define TESSERA_GRID_H

#include "kernels.h"

#include <float.h>

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

static inline __attribute__((always_inline)) floats choose(ints where, floats this, floats that) {
    return (floats)((where & (ints)this) | (~where & (ints)that));
}

static inline float smaller(float a, float b) { return a < b ? a : b; }
static inline float larger(float a, float b) { return a > b ? a : b; }

/* Largest magnitude as its bits: above those of 1e37 lie infinities and NaN too. */
WIDEST static int32_t magnitude_bits(const float *values, int64_t count) {
    int32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, values + i, 4);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/* Two neighboring lines of score maps [k, h, w], a place's clusters side by side: a row of pixels lies between them.
 * No more is turned at once: it stays in a core's cache, and large grids take no memory.
 *
 * at    [2, w, stride]  the lines of even and odd numbers; the last stride - k of a place are -FLT_MAX
 * held  their numbers, -1 at first
 */
typedef struct {
    const float *scores;
    int64_t k, h, w, stride, held[2];
    float *at;
} Lines;

static inline int64_t padded_to_lanes(int64_t k) { return (k + LANES - 1) / LANES * LANES; }

/* The places of a line, turned unless it is held. */
WIDEST static const float *line_of(Lines *lines, int64_t y) {
    float *to = lines->at + (y & 1) * lines->w * lines->stride;
    if (lines->held[y & 1] == y)
        return to;
    lines->held[y & 1] = y;
    const int64_t k = lines->k, plane = lines->h * lines->w;
    const float *from = lines->scores + y * lines->w;
    for (int64_t x = 0; x < lines->w; x += LANES) {
        const int64_t count = lines->w - x < LANES ? lines->w - x : LANES;
        for (int64_t c0 = 0; c0 < lines->stride; c0 += LANES) {
            float block[LANES][LANES];
            for (int64_t c = 0; c < LANES; c++)
                for (int64_t i = 0; i < LANES; i++)
                    block[i][c] = c0 + c < k && i < count ? from[(c0 + c) * plane + x + i] : -FLT_MAX;
            for (int64_t i = 0; i < count; i++)
                memcpy(to + (x + i) * lines->stride + c0, block[i], sizeof block[i]);
        }
    }
    return to;
}

#endif
