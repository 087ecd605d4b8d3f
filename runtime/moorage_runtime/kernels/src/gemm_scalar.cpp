// Products in plain C++: for machines without vectors that we know, and as the reference of all other paths.
//
// Quantised products of every path have exactly these roundings: per group, the exact integer dot product is converted,
// then fused into the sum times (scale of weights * scale of activations), and the minimum is fused in after it.
#include <array>
#include <cmath>

#include "gemm_rows.h"
#include "matrix_half.h"

namespace moorage {

namespace {

using Lanes = std::array<float, kStrip>;

// Calls one row and strip's sum for all of the product.
template <typename Sum>
void for_each(const Product& product, Sum sum) {
    for (int strip = product.strip_begin; strip < product.strip_end; ++strip) {
        for (int row = product.row_begin; row < product.row_end; ++row) {
            store_strip(product, strip, row, sum(strip_at(product, strip), row).data());
        }
    }
}

template <typename Weight, float (*to_float)(Weight)>
Lanes sum_floats(const Product& product, const uint8_t* strip, int row) {
    FloatRows x = float_rows(product, row);
    const auto* weights = reinterpret_cast<const Weight*>(strip);
    Lanes sums{};
    for (int k = 0; k < product.matrix.k; ++k, weights += kStrip, x.values += x.apart) {
        for (int lane = 0; lane < kStrip; ++lane) sums[lane] += to_float(weights[lane]) * *x.values;
    }
    return sums;
}

float same(float value) { return value; }

void multiply_f32(const Product& product) {
    for_each(product, [&](const uint8_t* strip, int row) { return sum_floats<float, same>(product, strip, row); });
}

void multiply_f16(const Product& product) {
    for_each(product,
             [&](const uint8_t* strip, int row) { return sum_floats<uint16_t, half_to_float>(product, strip, row); });
}

Lanes sum_bf16(const Product& product, const uint8_t* strip, int row) {
    const RowBlock<const uint8_t> block = block_at(product, bf16_row_bytes(product.matrix.k), row);
    const auto* x = reinterpret_cast<const uint16_t*>(block.data) + row % kRowBlock * kGroup;
    const auto* weights = reinterpret_cast<const uint16_t*>(strip);
    Lanes sums{};
    for (int k = 0; k < product.matrix.k; ++k) {
        const float value = bf16_to_float(x[k / kGroup * block.rows * kGroup + k % kGroup]);
        const uint16_t* pairs = weights + k / 2 * kStrip * 2 + k % 2;
        for (int lane = 0; lane < kStrip; ++lane) sums[lane] += bf16_to_float(pairs[lane * 2]) * value;
    }
    return sums;
}

void multiply_bf16(const Product& product) {
    for_each(product, [&](const uint8_t* strip, int row) { return sum_bf16(product, strip, row); });
}

int code_at(const Quantisation& kind, const uint8_t* codes, int k, int lane) {
    if (kind.bits == 8) return static_cast<int8_t>(codes[(k / 4 * kStrip + lane) * 4 + k % 4]);
    const uint8_t both = codes[(k / 8 * kStrip + lane) * 4 + k % 4];
    return (k % 8 < 4 ? both & 15 : both >> 4) - kind.zero;
}

// The scales or minimums of a chunk's group.
Lanes factors(const Quantisation& kind, const uint8_t* groups, const uint8_t* upper, int group) {
    Lanes values;
    for (int lane = 0; lane < kStrip; ++lane) {
        const int at = group * kStrip + lane;
        values[lane] = half_to_float(
            reinterpret_cast<const uint16_t*>(kind.two_level ? upper : groups)[kind.two_level ? lane : at]);
        if (kind.two_level) values[lane] *= static_cast<float>(static_cast<int8_t>(groups[at]));
    }
    return values;
}

// The integer dot products of one group.
std::array<int32_t, kStrip> dots(const Quantisation& kind, const uint8_t* codes, const int8_t* x) {
    std::array<int32_t, kStrip> sums{};
    for (int i = 0; i < kind.group; ++i) {
        for (int lane = 0; lane < kStrip; ++lane) sums[lane] += code_at(kind, codes, i, lane) * x[i];
    }
    return sums;
}

Lanes sum_quantised(const Product& product, const uint8_t* strip, int row) {
    const Matrix& matrix = product.matrix;
    const Quantisation& kind = matrix.quantisation;
    const Chunk& chunk = matrix.chunk;
    const Codes x = codes_of(block_at(product, i8_row_bytes(matrix.k), row), matrix.k);
    const int row_in_block = row % kRowBlock;
    Lanes sums{};
    for (int group = 0; group < matrix.k / kind.group; ++group) {
        const uint8_t* at = strip + static_cast<ptrdiff_t>(group / chunk.groups) * chunk.bytes;
        const int within = group % chunk.groups;
        const int first = group * kind.group;
        const int x_at = first / kGroup * x.rows + row_in_block;
        const auto dot = dots(kind, at + within * chunk.code_bytes, x.codes + x_at * kGroup + first % kGroup);
        const Lanes scales = factors(kind, at + chunk.scales, at + chunk.upper_scales, within);
        for (int lane = 0; lane < kStrip; ++lane) {
            sums[lane] = std::fma(scales[lane] * x.scale[x_at], static_cast<float>(dot[lane]), sums[lane]);
        }
        if (!kind.minimum) continue;
        const float offset = (kind.group == kGroup ? x.offset : x.offset16)[group * x.rows + row_in_block];
        const Lanes minimums = factors(kind, at + chunk.minimums, at + chunk.upper_minimums, within);
        for (int lane = 0; lane < kStrip; ++lane) sums[lane] = std::fma(minimums[lane], offset, sums[lane]);
    }
    return sums;
}

void multiply_quantised(const Product& product) {
    for_each(product, [&](const uint8_t* strip, int row) { return sum_quantised(product, strip, row); });
}

}  // namespace

const Path kScalarPath = {"scalar", multiply_f32, multiply_f16, multiply_bf16, multiply_quantised, kScalarRows};

}  // namespace moorage
