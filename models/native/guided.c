/* The guided filter's last step: a linear model of the colors, interpolated to every pixel; the best cluster wins.
 *
 * Knows nothing of how the models were made, of files, networks or Python.
 */
#include "kernels.h"

/* labels [height, width] of a photo [height, width, 3].
 *
 * models [4, k, h, w]  three slopes and an offset of each cluster at each place of a grid
 * top, bottom [height], left, right [width]  neighbors on the grid; down, across  weights of the second one
 * returns  0; 2 where memory is short: nothing was written
 */
WIDEST PUBLIC int tessera_guided_labels(const float *models, int64_t k, int64_t h, int64_t w, const int64_t *top,
                                        const int64_t *bottom, const float *down, int64_t height,
                                        const int64_t *left, const int64_t *right, const float *across,
                                        int64_t width, const uint8_t *photo, uint8_t *labels) {
    const int64_t size = (k + LANES - 1) / LANES * LANES, column = 4 * size;
    /* grid: the models with clusters side by side; row: one row of them, interpolated downwards */
    float *grid = calloc((size_t)(h * w * column), sizeof *grid);
    float *row = malloc((size_t)(w * column) * sizeof *row);
    if (!grid || !row) {
        free(grid);
        free(row);
        return 2;
    }
    for (int64_t part = 0; part < 4; part++)
        for (int64_t label = 0; label < k; label++)
            for (int64_t p = 0; p < h * w; p++)
                grid[p * column + part * size + label] = models[(part * k + label) * h * w + p];
    for (int64_t y = 0; y < height; y++) {
        const float *above = grid + top[y] * w * column, *below = grid + bottom[y] * w * column, share = down[y];
        for (int64_t i = 0; i < w * column; i++)
            row[i] = above[i] + share * (below[i] - above[i]);
        for (int64_t x = 0; x < width; x++) {
            const float *a = row + left[x] * column, *b = row + right[x] * column, s = across[x];
            const uint8_t *pixel = photo + 3 * (y * width + x);
            const float red = pixel[0], green = pixel[1], blue = pixel[2], rest = 1 - s;
            float best = 0;
            int64_t winner = -1;
            for (int64_t u = 0; u < size; u += LANES) {
                float value[LANES];
                for (int64_t i = 0; i < LANES; i++) {
                    const int64_t l = u + i;
                    value[i] = rest * (red * a[l] + green * a[size + l] + blue * a[2 * size + l] + a[3 * size + l]) +
                               s * (red * b[l] + green * b[size + l] + blue * b[2 * size + l] + b[3 * size + l]);
                }
                for (int64_t i = 0; i < LANES && u + i < k; i++)
                    if (winner < 0 || value[i] > best) {
                        best = value[i];
                        winner = u + i;
                    }
            }
            labels[y * width + x] = (uint8_t)winner;
        }
    }
    free(grid);
    free(row);
    return 0;
}
