/* Counts of 16-bit samples, and samples looked up in a table of bytes.
 *
 * Knows nothing of files, networks or Python.
 */
#include "kernels.h"

#define LEVELS 65536
#define TABLES 4 /* equal neighbors are counted in different ones: no addition waits for the last */

/* counts [65536] += how often each value occurs among n < 2³²; 0, or -1 without memory. */
PUBLIC int tessera_histogram16(const uint16_t *values, int64_t n, int64_t *counts) {
    if (n < LEVELS) {
        for (int64_t i = 0; i < n; i++)
            counts[values[i]]++;
        return 0;
    }
    uint32_t *table = calloc(TABLES * LEVELS, sizeof *table);
    if (!table)
        return -1;
    int64_t i = 0;
    for (; i + TABLES <= n; i += TABLES) {
        uint64_t four;
        memcpy(&four, values + i, sizeof four);
        for (int t = 0; t < TABLES; t++)
            table[t * LEVELS + (uint16_t)(four >> 16 * t)]++;
    }
    for (; i < n; i++)
        table[values[i]]++;
    for (int64_t level = 0; level < LEVELS; level++)
        for (int t = 0; t < TABLES; t++)
            counts[level] += table[t * LEVELS + level];
    free(table);
    return 0;
}

/* out [n] = table [65536] at each of n values; `out` may begin where `values` begins: it is written behind the reading. */
PUBLIC void tessera_lookup16(const uint16_t *values, int64_t n, const uint8_t *table, uint8_t *out) {
    for (int64_t i = 0; i < n; i++)
        out[i] = table[values[i]];
}
