// Layout of prepared activations: blocks of 16 rows (the last has fewer), each contiguous. Private to the products.
//
//     F32    [k][rows of the block]
//     BF16   [k / 32][rows][32], padded with zeros: 64 bytes per row, as a tile of AMX wants it
//     I8     codes [k / 32][rows][32], then floats scale [k / 32][rows], floats offset [k / 32][rows] and [k / 16][rows],
//            integers sum [k / 32][rows] and [k / 16][rows]
//
// sum is that of a group's codes and offset is scale * sum: what a minimum or a zero point is multiplied by.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace moorage {

constexpr int kRowBlock = 16;
constexpr int kGroup = 32;

namespace {  // each instruction set compiles its own copy

inline size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

inline size_t f32_row_bytes(int k) { return round_up(static_cast<size_t>(k) * 4, 64); }
inline size_t bf16_row_bytes(int k) { return round_up(static_cast<size_t>(k) * 2, 64); }
inline size_t i8_row_bytes(int k) { return round_up(static_cast<size_t>(k) + static_cast<size_t>(k) / kGroup * 28, 64); }

// The rows of one block.
template <typename Byte>
struct RowBlock {
    Byte* data;
    int rows;
};

template <typename Byte>
RowBlock<Byte> row_block(Byte* operand, size_t row_bytes, int rows, int block) {
    const int first = block * kRowBlock;
    return {operand + static_cast<size_t>(first) * row_bytes, std::min(kRowBlock, rows - first)};
}

// The arrays of an I8 block.
struct Codes {
    const int8_t* codes;
    const float* scale;
    const float* offset;
    const float* offset16;
    const int32_t* sum;
    const int32_t* sum16;
    int rows;
};

inline Codes codes_of(RowBlock<const uint8_t> block, int k) {
    const size_t groups = static_cast<size_t>(k) / kGroup * static_cast<size_t>(block.rows);
    Codes view{};
    view.rows = block.rows;
    view.codes = reinterpret_cast<const int8_t*>(block.data);
    view.scale = reinterpret_cast<const float*>(block.data + groups * kGroup);
    view.offset = view.scale + groups;
    view.offset16 = view.offset + groups;
    view.sum = reinterpret_cast<const int32_t*>(view.offset16 + 2 * groups);
    view.sum16 = view.sum + groups;
    return view;
}

}  // namespace

}  // namespace moorage
