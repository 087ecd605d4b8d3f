// One row of activations into its place in an operand. Plain loops over 32 values that the compiler turns into vectors;
// each instruction set compiles its own copy, and all give the same bits. Private to the products.
#pragma once

#include <bit>
#include <cstring>
#include <limits>

#include "matrix_half.h"
#include "operand.h"

namespace moorage {

namespace {

inline void prepare_f32(const float* x, int k, RowBlock<uint8_t> block, int row) {
    auto* to = reinterpret_cast<float*>(block.data) + row;
    for (int i = 0; i < k; ++i) to[static_cast<ptrdiff_t>(i) * block.rows] = x[i];
}

inline void prepare_bf16(const float* x, int k, RowBlock<uint8_t> block, int row) {
    auto* to = reinterpret_cast<uint16_t*>(block.data) + row * kGroup;
    int first = 0;
    for (; first + kGroup <= k; first += kGroup, to += block.rows * kGroup) {
        for (int i = 0; i < kGroup; ++i) to[i] = float_to_bf16(x[first + i]);
    }
    if (first == k) return;
    std::memset(to, 0, kGroup * sizeof *to);
    for (int i = 0; first + i < k; ++i) to[i] = float_to_bf16(x[first + i]);
}

// Below this a group counts as zero: the inverse of its scale would not be finite.
constexpr float kSmallest = 1e-30F;
// Added to a value below 2^22, it rounds that to an integer (to nearest, ties to even), which is then in the low bits.
constexpr float kRounder = 12582912.0F;

// Magnitudes of floats are ordered as their bits are, with infinity and NaN on top.
inline uint32_t largest_magnitude(const float* x) {
    uint32_t largest = 0;
    for (int i = 0; i < kGroup; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffU);
    return largest;
}

// Codes of 32 values in [-127, 127]; returns their scale. A group with a NaN or an infinity has a NaN for a scale, so
// that its row's results are NaN and no other row's.
inline float quantise(const float* x, int8_t* codes) {
    const auto largest = std::bit_cast<float>(largest_magnitude(x));
    const bool finite = largest <= std::numeric_limits<float>::max();
    if (!finite || largest < kSmallest) {
        std::memset(codes, 0, kGroup);
        return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
    }
    const float inverse = 127.0F / largest;
    for (int i = 0; i < kGroup; ++i) {
        codes[i] = static_cast<int8_t>(std::bit_cast<int32_t>(x[i] * inverse + kRounder));
    }
    return largest / 127.0F;
}

struct HalfSums {
    int32_t of[2];
};

inline HalfSums half_sums(const int8_t* codes) {
    HalfSums sums{};
    for (int i = 0; i < 16; ++i) sums.of[0] += codes[i];
    for (int i = 16; i < kGroup; ++i) sums.of[1] += codes[i];
    return sums;
}

inline void place_group(const MutableCodes& to, int group, int row, float scale, const HalfSums& sums) {
    const int at = group * to.rows + row;
    to.scale[at] = scale;
    to.sum[at] = sums.of[0] + sums.of[1];
    to.offset[at] = scale * static_cast<float>(to.sum[at]);
    for (int half = 0; half < 2; ++half) {
        const int at16 = (group * 2 + half) * to.rows + row;
        to.sum16[at16] = sums.of[half];
        to.offset16[at16] = scale * static_cast<float>(sums.of[half]);
    }
}

inline void prepare_i8(const float* x, int k, RowBlock<uint8_t> block, int row) {
    const MutableCodes to = mutable_codes_of(block, k);
    for (int group = 0; group < k / kGroup; ++group) {
        int8_t* codes = to.codes + (group * to.rows + row) * kGroup;
        const float scale = quantise(x + group * kGroup, codes);
        place_group(to, group, row, scale, half_sums(codes));
    }
}

}  // namespace

}  // namespace moorage
