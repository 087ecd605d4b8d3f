// What every instruction set takes from a product: strips of weights, rows of the operand, where results go.
// Each compiles its own copy. Private to the products.
#pragma once

#include "gemm_paths.h"
#include "gemm_unroll.h"
#include "operand.h"

namespace moorage {

namespace {

inline const uint8_t* strip_at(const Product& product, int strip) {
    return product.matrix.data + static_cast<size_t>(strip) * product.matrix.strip_bytes;
}

inline RowBlock<const uint8_t> block_at(const Product& product, size_t row_bytes, int row) {
    return row_block(product.operand, row_bytes, product.rows, row / kRowBlock);
}

// One row's results of 16 outputs.
inline void store_strip(const Product& product, int strip, int row, const float* sums) {
    const int first = strip * kStrip;
    float* to = product.out + static_cast<size_t>(row) * product.ldo + first;
    for (int lane = 0; lane < std::min(kStrip, product.matrix.n - first); ++lane) {
        const float value = sums[lane] + (product.bias != nullptr ? product.bias[first + lane] : 0.0F);
        to[lane] = product.add ? to[lane] + value : value;
    }
}

// F32 operand, from one row of a block on: input i of the row r further down is values[i * apart + r].
struct FloatRows {
    const float* values;
    int apart;  // rows of the block
};

inline FloatRows float_rows(const Product& product, int row) {
    const auto block = block_at(product, f32_row_bytes(product.matrix.k), row);
    return {reinterpret_cast<const float*>(block.data) + row % kRowBlock, block.rows};
}

constexpr int kPairs = kGroup / 2;

// BF16 operand: pairs of inputs, 16 by 16; those of the row r further down are kPairs * r further.
struct PairRows {
    const uint32_t* pairs;
    int apart;  // rows of the block
};

inline PairRows pair_rows(const Product& product, int row) {
    const auto block = block_at(product, bf16_row_bytes(product.matrix.k), row);
    return {reinterpret_cast<const uint32_t*>(block.data) + row % kRowBlock * kPairs, block.rows};
}

inline const uint32_t* pair_at(const PairRows& x, int pair) {
    return x.pairs + pair / kPairs * x.apart * kPairs + pair % kPairs;
}

// I8 operand, from one row of a block and one group of the weights' on: codes of the row r further down are kGroup * r
// further, all else is r further.
struct CodeRows {
    const int8_t* codes;
    const float *scale, *offset;
    const int32_t* sum;
    int apart;  // rows of the block
};

// The first group's.
template <Quantisation kind>
CodeRows code_rows(const Product& product, int row) {
    const int k = product.matrix.k;
    const Codes x = codes_of(block_at(product, i8_row_bytes(k), row), k);
    const int first = row % kRowBlock;
    const bool whole = kind.group == kGroup;
    return {x.codes + first * kGroup, x.scale + first, (whole ? x.offset : x.offset16) + first,
            (whole ? x.sum : x.sum16) + first, x.rows};
}

// The same rows, so many groups further.
template <Quantisation kind>
MOORAGE_INLINE CodeRows in_group(const CodeRows& x, int group) {
    const int at32 = group * kind.group / kGroup * x.apart;
    const int at = group * x.apart;
    return {x.codes + at32 * kGroup + group * kind.group % kGroup, x.scale + at32, x.offset + at, x.sum + at, x.apart};
}

// Calls f with the longest run of `most`, most / 2, ..., 1 rows that is not longer than `left`; how many rows it took.
template <int most, typename F>
int take_run(int row, int left, F& f) {
    if constexpr (most > 1) {
        if (left < most) return take_run<most / 2>(row, left, f);
    }
    f.template operator()<most>(row);
    return most;
}

// Cuts the product's rows into runs of `most` (a power of 2) and fewer, none across two blocks, and calls
// f.template operator()<run>(first row).
template <int most, typename F>
void for_row_runs(const Product& product, F f) {
    for (int row = product.row_begin; row < product.row_end;) {
        const int left = std::min(product.row_end, (row / kRowBlock + 1) * kRowBlock) - row;
        row += take_run<most>(row, left, f);
    }
}

// The same for each strip: f.template operator()<run>(strip, first row).
template <int most, typename F>
void for_strips_and_runs(const Product& product, F f) {
    for (int strip = product.strip_begin; strip < product.strip_end; ++strip) {
        for_row_runs<most>(product, [&]<int run>(int row) { f.template operator()<run>(strip, row); });
    }
}

}  // namespace

}  // namespace moorage
