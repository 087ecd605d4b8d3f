#include "operand.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gemm.h"
#include "matrix_half.h"

namespace moorage {

namespace {

size_t row_bytes_of(Operand kind, int k) {
    switch (kind) {
        case Operand::F32: return f32_row_bytes(k);
        case Operand::BF16: return bf16_row_bytes(k);
        case Operand::I8: return i8_row_bytes(k);
    }
    return 0;
}

void prepare_f32(const float* x, int k, RowBlock<uint8_t> block, int row) {
    auto* to = reinterpret_cast<float*>(block.data) + row;
    for (int i = 0; i < k; ++i) to[static_cast<ptrdiff_t>(i) * block.rows] = x[i];
}

void prepare_bf16(const float* x, int k, RowBlock<uint8_t> block, int row) {
    auto* to = reinterpret_cast<uint16_t*>(block.data) + row * kGroup;
    for (int first = 0; first < k; first += kGroup, to += block.rows * kGroup) {
        const int count = std::min(kGroup, k - first);
        for (int i = 0; i < count; ++i) to[i] = float_to_bf16(x[first + i]);
        std::memset(to + count, 0, static_cast<size_t>(kGroup - count) * sizeof *to);
    }
}

// Below this a group counts as zero: the inverse of its scale would not be finite.
constexpr float kSmallest = 1e-30F;

// Codes of 32 values in [-127, 127], rounded to nearest, ties to even; returns their scale. A group with a NaN or an
// infinity has a NaN for a scale, so that its row's results are NaN and no other row's.
float quantise(const float* x, int8_t* codes) {
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < kGroup; ++i) {
        finite = finite && std::isfinite(x[i]);
        largest = std::max(largest, std::fabs(x[i]));
    }
    std::memset(codes, 0, kGroup);
    if (!finite) return std::numeric_limits<float>::quiet_NaN();
    if (largest < kSmallest) return 0;
    const float inverse = 127.0F / largest;
    for (int i = 0; i < kGroup; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    return largest / 127.0F;
}

// The arrays of a block, to be filled.
struct MutableCodes {
    int8_t* codes;
    float *scale, *offset, *offset16;
    int32_t *sum, *sum16;
    int rows;
};

MutableCodes mutable_codes_of(RowBlock<uint8_t> block, int k) {
    const Codes view = codes_of({block.data, block.rows}, k);
    return {const_cast<int8_t*>(view.codes),    const_cast<float*>(view.scale),
            const_cast<float*>(view.offset),    const_cast<float*>(view.offset16),
            const_cast<int32_t*>(view.sum),     const_cast<int32_t*>(view.sum16),
            block.rows};
}

void prepare_i8(const float* x, int k, RowBlock<uint8_t> block, int row) {
    const MutableCodes to = mutable_codes_of(block, k);
    for (int group = 0; group < k / kGroup; ++group) {
        const int at = group * to.rows + row;
        const float scale = quantise(x + group * kGroup, to.codes + at * kGroup);
        int sums[2] = {};
        for (int i = 0; i < kGroup; ++i) sums[i / 16] += to.codes[at * kGroup + i];
        to.scale[at] = scale;
        to.sum[at] = sums[0] + sums[1];
        to.offset[at] = scale * static_cast<float>(to.sum[at]);
        for (int half = 0; half < 2; ++half) {
            const int at16 = (group * 2 + half) * to.rows + row;
            to.sum16[at16] = sums[half];
            to.offset16[at16] = scale * static_cast<float>(sums[half]);
        }
    }
}

}  // namespace

// A line more than the rows take: tiles of 16 rows read scales beyond the last one's (and drop what comes of them).
size_t operand_bytes(Operand kind, int rows, int k) { return row_bytes_of(kind, k) * static_cast<size_t>(rows) + 64; }

void operand_prepare(Operand kind, const float* x, size_t ldx, int row_begin, int row_end, int k, int rows, void* operand) {
    const size_t row_bytes = row_bytes_of(kind, k);
    for (int row = row_begin; row < row_end; ++row) {
        const RowBlock<uint8_t> block = row_block(static_cast<uint8_t*>(operand), row_bytes, rows, row / kRowBlock);
        const float* from = x + static_cast<size_t>(row) * ldx;
        switch (kind) {
            case Operand::F32: prepare_f32(from, k, block, row % kRowBlock); break;
            case Operand::BF16: prepare_bf16(from, k, block, row % kRowBlock); break;
            case Operand::I8: prepare_i8(from, k, block, row % kRowBlock); break;
        }
    }
}

}  // namespace moorage
