/* Like contrast everywhere: adaptive histogram equalization of an image's value (HSV), with a limit.
 *
 * The image is divided into 8 by 8 tiles; each has a mapping of its own, made of its clipped histogram, and a pixel is
 * mapped by the four nearest ones, interpolated. Every number is what scikit-image computes, in the same order.
 *
 * Knows nothing of files, networks or Python.
 *
 * Source: CLAHE (Zuiderveld, Graphics Gems IV, 1994).
 */
#include "kernels.h"

#include <math.h>

#define TILES 8
#define LEVELS 16384
#define BINS 256

/* The image as it is padded until it holds whole tiles, half a one more on each side. */
typedef struct {
    int64_t size, tile, before, tiles; /* of one axis; tiles: with a mapping of their own */
} Axis;

static Axis axis(int64_t size) {
    const int64_t tile = size / TILES > 1 ? size / TILES : 1;
    const int64_t padded = tile / 2 + size + (tile - size % tile) % tile + (tile + 1) / 2;
    return (Axis){size, tile, tile / 2, padded / tile - 1};
}

/* Where a padded index is read: d c b | a b c d | c b a. */
static inline int64_t inside(const Axis *along, int64_t i) {
    const int64_t turn = 2 * (along->size - 1);
    if (!turn)
        return 0;
    i = (i - along->before) % turn;
    i = i < 0 ? i + turn : i;
    return i < along->size ? i : turn - i;
}

/* Cuts what stands above the limit and hands it out to the other bins. */
static void clip(int64_t *hist, int64_t limit) {
    int64_t excess = 0;
    for (int b = 0; b < BINS; b++)
        if (hist[b] > limit) {
            excess += hist[b] - limit;
            hist[b] = limit;
        }
    const int64_t step = excess / BINS, upper = limit - step;
    for (int b = 0; b < BINS; b++)
        if (hist[b] < upper) {
            hist[b] += step;
            excess -= step;
        }
    for (int b = 0; b < BINS; b++) /* those just raised among them */
        if (hist[b] >= upper && hist[b] < limit) {
            excess -= limit - hist[b];
            hist[b] = limit;
        }
    for (int64_t before = excess + 1; excess > 0 && excess < before;) {
        before = excess;
        for (int first = 0; first < BINS && excess > 0; first++) {
            int64_t under = 0;
            for (int b = 0; b < BINS; b++)
                under += hist[b] < limit;
            const int64_t apart = under / excess > 1 ? under / excess : 1;
            for (int64_t b = first; b < BINS; b += apart)
                if (hist[b] < limit) {
                    hist[b]++;
                    excess--;
                }
        }
    }
}

/* map [BINS]: levels of a tile's bins; the tile begins at (top, left) of the padded image. */
static void map_tile(const uint8_t *bins, const Axis *down, const Axis *across, int64_t top, int64_t left, double limit,
                     int64_t *map) {
    int64_t hist[BINS] = {0}, sum = 0;
    const int64_t pixels = down->tile * across->tile;
    for (int64_t y = top; y < top + down->tile; y++) {
        const uint8_t *row = bins + inside(down, y) * across->size;
        for (int64_t x = left; x < left + across->tile; x++)
            hist[row[inside(across, x)]]++;
    }
    const double most = limit * (double)pixels;
    clip(hist, limit > 0 ? (most > 1 ? (int64_t)most : 1) : pixels);
    for (int b = 0; b < BINS; b++) {
        sum += hist[b];
        const double level = (double)sum * ((double)(LEVELS - 1) / (double)pixels);
        map[b] = (int64_t)(level < LEVELS - 1 ? level : LEVELS - 1);
    }
}

/* out [3]: the pixel with another value, 0..1, of the same hue and saturation. */
static void recolor(const uint8_t *pixel, double value, uint8_t *out) {
    const double r = pixel[0] * (1. / 255), g = pixel[1] * (1. / 255), b = pixel[2] * (1. / 255);
    const double most = r > g ? (r > b ? r : b) : (g > b ? g : b), least = r < g ? (r < b ? r : b) : (g < b ? g : b);
    const double delta = most - least, saturation = delta == 0 ? 0 : delta / most;
    double hue = 0;
    if (delta != 0) {
        if (b == most)
            hue = 4 + (r - g) / delta;
        else if (g == most)
            hue = 2 + (b - r) / delta;
        else
            hue = (g - b) / delta;
        hue /= 6;
        hue -= floor(hue);
    }
    const double sector = floor(hue * 6), part = hue * 6 - sector;
    const double low = value * (1 - saturation), falling = value * (1 - part * saturation);
    const double rising = value * (1 - (1 - part) * saturation);
    const double shown[6][3] = {{value, rising, low},   {falling, value, low},   {low, value, rising},
                                {low, falling, value},  {rising, low, value},    {value, low, falling}};
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)(255 * shown[(int)sector % 6][c]);
}

/* out [height, width, 3]: an image of the same size, equalized.
 *
 * limit    of a bin, as a share of a tile's pixels; 0: none
 * returns  0; 2 where memory is short
 */
PUBLIC int tessera_clahe(const uint8_t *image, int64_t height, int64_t width, double limit, uint8_t *out) {
    const Axis down = axis(height), across = axis(width);
    const int64_t pixels = height * width, tiles = down.tiles * across.tiles;
    uint8_t *bins = malloc((size_t)pixels);
    uint16_t *levels = malloc(sizeof *levels * (size_t)pixels);
    int64_t *maps = malloc(sizeof *maps * (size_t)(tiles * BINS));
    if (!bins || !levels || !maps) {
        free(bins);
        free(levels);
        free(maps);
        return 2;
    }
    uint16_t level_of[256];
    uint8_t seen[256] = {0};
    for (int64_t i = 0; i < pixels; i++) {
        const uint8_t *p = image + 3 * i, larger = p[0] > p[1] ? p[0] : p[1];
        bins[i] = larger > p[2] ? larger : p[2];
        seen[bins[i]] = 1;
    }
    int darkest = 0, brightest = 255;
    while (!seen[darkest])
        darkest++;
    while (!seen[brightest])
        brightest--;
    for (int v = 0; v < 256; v++) {
        const double value = rint(v * (1. / 255) * 65535), low = darkest * 257;
        if (darkest == brightest)
            level_of[v] = value < LEVELS - 1 ? (uint16_t)value : LEVELS - 1;
        else
            level_of[v] = (uint16_t)rint((value - low) / ((brightest - darkest) * 257) * (LEVELS - 1));
    }
    for (int64_t i = 0; i < pixels; i++)
        bins[i] = (uint8_t)(level_of[bins[i]] / (1 + LEVELS / BINS));

    for (int64_t row = 0; row < down.tiles; row++)
        for (int64_t column = 0; column < across.tiles; column++)
            map_tile(bins, &down, &across, down.before + row * down.tile, across.before + column * across.tile, limit,
                     maps + (row * across.tiles + column) * BINS);

    uint16_t least = UINT16_MAX, most = 0;
    for (int64_t y = 0; y < height; y++) {
        const int64_t row = (y + down.before) / down.tile, top = row ? row - 1 : 0;
        const int64_t bottom = row < down.tiles ? row : down.tiles - 1;
        const double fall = (double)((y + down.before) % down.tile) / (double)down.tile;
        for (int64_t x = 0; x < width; x++) {
            const int64_t column = (x + across.before) / across.tile, left = column ? column - 1 : 0;
            const int64_t right = column < across.tiles ? column : across.tiles - 1;
            const double along = (double)((x + across.before) % across.tile) / (double)across.tile;
            const int64_t bin = bins[y * width + x], *above = maps + top * across.tiles * BINS + bin;
            const int64_t *below = maps + bottom * across.tiles * BINS + bin;
            float level = (float)((double)above[left * BINS] * ((1 - along) * (1 - fall)));
            level += (float)((double)above[right * BINS] * (along * (1 - fall)));
            level += (float)((double)below[left * BINS] * ((1 - along) * fall));
            level += (float)((double)below[right * BINS] * (along * fall));
            const uint16_t whole = (uint16_t)level;
            levels[y * width + x] = whole;
            least = whole < least ? whole : least;
            most = whole > most ? whole : most;
        }
    }
    for (int64_t i = 0; i < pixels; i++) {
        const double value = most > least ? (double)(levels[i] - least) / (most - least) : levels[i] > 0;
        recolor(image + 3 * i, value, out + 3 * i);
    }
    free(bins);
    free(levels);
    free(maps);
    return 0;
}
