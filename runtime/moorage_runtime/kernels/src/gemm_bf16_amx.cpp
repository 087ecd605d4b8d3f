// bfloat16 products by AMX, for any number of rows: TDPBF16PS has an order of additions of its own, so one row takes
// the same instruction as a thousand. Each sum stays in its tile for the whole of k.
#include "gemm_amx.h"
#include "gemm_avx512.h"
#include "gemm_tiles.h"

namespace moorage {

namespace {

constexpr int kTileBytes = 1024;  // 16 pairs of inputs of 16 outputs: a step of 32 inputs

// Tiles 0..3: sums; 4 and 5: activations; 6 and 7: weights. Of two blocks of rows, the first has the even sums.
class Shapes {
public:
    Shapes() = default;
    Shapes(const Shapes&) = delete;
    Shapes& operator=(const Shapes&) = delete;
    ~Shapes() { tiles_release(); }

    // Configuring takes as long as some products, so it is done only where the shape changes.
    void set(int first_rows, int second_rows) {
        if (first_rows == first_ && second_rows == second_) return;
        first_ = first_rows;
        second_ = second_rows;
        TileShapes shapes;
        for (int tile = 0; tile < 8; ++tile) {
            shapes.row_bytes[tile] = 64;
            shapes.rows[tile] = static_cast<uint8_t>(tile >= 6 ? 16 : tile % 2 == 0 ? first_rows : second_rows);
        }
        tiles_configure(shapes);
    }

private:
    int first_ = 0;
    int second_ = 0;
};

// Rows of a block, from one on: a tile of 32 inputs.
template <int tile>
MOORAGE_INLINE void load_rows(const PairRows& x, int step) {
    tile_load<tile>(pair_at(x, step * kPairs), kPairs * sizeof(uint32_t));
}

template <int tile>
void store_tile(const Product& product, int strip, int row, int count) {
    alignas(64) float sums[kRowBlock * kStrip];
    tile_store<tile>(sums, 64);
    const StripOut to = strip_out(product, strip);
    for (int r = 0; r < count; ++r) store_row(to, row + r, _mm512_load_ps(sums + r * kStrip));
}

void prefetch(const Product& product, int strip, int strips, int row, int count) {
    for (int s = 0; s < strips; ++s) prefetch_rows(strip_out(product, strip + s), row, count);
}

int steps_of(const Product& product) { return (product.matrix.k + kGroup - 1) / kGroup; }

// Rows of one block times up to 4 strips: their sums are independent, which hides the latency of a tile's product.
template <int strips>
void multiply_one_block(const Product& product, int strip, int row, int count) {
    const PairRows x = pair_rows(product, row);
    const size_t apart = product.matrix.strip_bytes;
    const uint8_t* weights = strip_at(product, strip);
    const int steps = steps_of(product);
    prefetch(product, strip, strips, row, count);
    unrolled<strips>([](auto s) { tile_zero<s>(); });
    for (int step = 0; step < steps; ++step, weights += kTileBytes) {
        load_rows<4>(x, step);
        unrolled<strips>([&](auto s) __attribute__((always_inline)) {
            tile_load<6 + s % 2>(weights + s * apart, 64);
            tile_multiply_bf16<s, 4, 6 + s % 2>();
        });
    }
    unrolled<strips>([&](auto s) { store_tile<s>(product, strip + s, row, count); });
}

// A whole block and (part of) the next one, times one or two strips: each tile loaded is used twice.
template <int strips>
void multiply_two_blocks(const Product& product, int strip, int row, int second_count) {
    const PairRows first = pair_rows(product, row);
    const PairRows second = pair_rows(product, row + kRowBlock);
    const size_t apart = product.matrix.strip_bytes;
    const uint8_t* weights = strip_at(product, strip);
    const int steps = steps_of(product);
    prefetch(product, strip, strips, row, kRowBlock + second_count);
    unrolled<2 * strips>([](auto sum) { tile_zero<sum>(); });
    for (int step = 0; step < steps; ++step, weights += kTileBytes) {
        load_rows<4>(first, step);
        load_rows<5>(second, step);
        unrolled<strips>([&](auto s) __attribute__((always_inline)) {
            tile_load<6 + s>(weights + s * apart, 64);
            tile_multiply_bf16<2 * s, 4, 6 + s>();
            tile_multiply_bf16<2 * s + 1, 5, 6 + s>();
        });
    }
    unrolled<strips>([&](auto s) {
        store_tile<2 * s>(product, strip + s, row, kRowBlock);
        store_tile<2 * s + 1>(product, strip + s, row + kRowBlock, second_count);
    });
}

// Rows [row, end) of one block.
void multiply_block(const Product& product, int row, int end, Shapes& shapes) {
    const int count = end - row;
    int strip = product.strip_begin;
    shapes.set(count, count);
    for (; strip + 4 <= product.strip_end; strip += 4) multiply_one_block<4>(product, strip, row, count);
    for (; strip + 2 <= product.strip_end; strip += 2) multiply_one_block<2>(product, strip, row, count);
    for (; strip < product.strip_end; ++strip) multiply_one_block<1>(product, strip, row, count);
}

// A whole block from `row` on, and rows up to `end` of the next.
void multiply_pair(const Product& product, int row, int end, Shapes& shapes) {
    const int second_count = end - row - kRowBlock;
    int strip = product.strip_begin;
    shapes.set(kRowBlock, second_count);
    for (; strip + 2 <= product.strip_end; strip += 2) multiply_two_blocks<2>(product, strip, row, second_count);
    for (; strip < product.strip_end; ++strip) multiply_two_blocks<1>(product, strip, row, second_count);
}

}  // namespace

void multiply_bf16_tiles(const Product& product) {
    Shapes shapes;
    for (int row = product.row_begin; row < product.row_end;) {
        const int block_end = (row / kRowBlock + 1) * kRowBlock;
        const bool pair = row % kRowBlock == 0 && block_end < product.row_end;
        const int end = std::min(product.row_end, pair ? block_end + kRowBlock : block_end);
        if (pair) multiply_pair(product, row, end, shapes);
        else multiply_block(product, row, end, shapes);
        row = end;
    }
}

}  // namespace moorage
