// Layout of prepared activations: blocks of 16 rows (the last has fewer), each contiguous. Private to the products.
//
//     F32    [k][rows of the block]
//     BF16   [k / 32][rows][32], padded with zeros: 64 bytes per row, as a tile of AMX wants it
//     I8     codes [k / 32][rows][32], then floats scale [k / 32][rows],
//            floats offset [k / 32][rows] and [k / 16][rows], integers sum [k / 32][rows] and [k / 16][rows]
//
// sum is that of a group's codes and offset is scale * sum: what a minimum or a zero point is multiplied by.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace moorage {

constexpr int kRowBlock = 16;
constexpr int kGroup = 32;

// The rows of one block.
template <typename Byte>
struct RowBlock {
    Byte* data;
    int rows;
};

// The arrays of an I8 block.
struct Codes {
    const int8_t* codes;
    const float *scale, *offset, *offset16;
    const int32_t *sum, *sum16;
    int rows;
};

struct MutableCodes {
    int8_t* codes;
    float *scale, *offset, *offset16;
    int32_t *sum, *sum16;
    int rows;
};

namespace {  // each instruction set compiles its own copy

inline size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

inline size_t f32_row_bytes(int k) { return round_up(static_cast<size_t>(k) * 4, 64); }
inline size_t bf16_row_bytes(int k) { return round_up(static_cast<size_t>(k) * 2, 64); }
inline size_t i8_row_bytes(int k) {
    return round_up(static_cast<size_t>(k) + static_cast<size_t>(k) / kGroup * 28, 64);
}

template <typename Byte>
RowBlock<Byte> row_block(Byte* operand, size_t row_bytes, int rows, int block) {
    const int first = block * kRowBlock;
    return {operand + static_cast<size_t>(first) * row_bytes, std::min(kRowBlock, rows - first)};
}

inline MutableCodes mutable_codes_of(RowBlock<uint8_t> block, int k) {
    const size_t groups = static_cast<size_t>(k) / kGroup * static_cast<size_t>(block.rows);
    auto* scale = reinterpret_cast<float*>(block.data + groups * kGroup);
    auto* sum = reinterpret_cast<int32_t*>(scale + 4 * groups);
    return {reinterpret_cast<int8_t*>(block.data),
            scale,
            scale + groups,
            scale + 2 * groups,
            sum,
            sum + groups,
            block.rows};
}

inline Codes codes_of(RowBlock<const uint8_t> block, int k) {
    const MutableCodes view = mutable_codes_of({const_cast<uint8_t*>(block.data), block.rows}, k);
    return {view.codes, view.scale, view.offset, view.offset16, view.sum, view.sum16, view.rows};
}

}  // namespace

}  // namespace moorage
