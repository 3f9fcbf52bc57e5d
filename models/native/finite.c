/* Whether floats are all numbers. */
#include "kernels.h"

#define EXPONENT 0x7f800000u /* of a float: all ones for infinity and NaN, and for nothing else */
#define BLOCK 4096           /* values between two looks whether it is over */

/* 1 when none of n values is NaN or infinite. */
WIDEST PUBLIC int tessera_finite(const float *values, int64_t n) {
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t stop = n - start < BLOCK ? n : start + BLOCK;
        uint32_t found = 0;
        for (int64_t i = start; i < stop; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            found |= (bits & EXPONENT) == EXPONENT;
        }
        if (found)
            return 0;
    }
    return 1;
}
