// Attention over a cache of bfloat16 by AMX. The cache's layout is that of tiles: 32 numbers of 16 keys are one as they
// lie, and so are 16 numbers of a block's values. Up to 16 rows (queries times heads) are a tile's rows; one row takes
// the same instructions as 16, and a row's results depend on no other row, so bits are the same for any number.
//
// Queries and weights are rounded to bfloat16, as keys and values are. Spans and their order are attention.inl's.
#include "gemm_tiles.h"
#include "ops_sets.h"
#include "rows.inl"

namespace {

constexpr int kTileRows = 16;
constexpr int kTileDeep = 32;    // numbers of a key that one instruction multiplies
constexpr int kSumTiles = 4;     // 0..3; 4: queries; 5: weights; 6: keys; 7: values
static_assert(kSpanBlocks == kSumTiles);

using Element = Bf16Cache::Element;

// What one pass over a span works on: up to 16 of a task's rows.
struct Part {
    const uint16_t* q;  // rows x dim
    float* out;         // rows x dim
    float* total;       // rows x 16
    const int* position;  // rows
    int rows, dim;
};

struct SpanSums {
    alignas(64) float scores[kTileRows * kSpan];
    alignas(64) float outputs[kTileRows * kSumTiles * kLanes];
    alignas(64) uint16_t weights[kTileRows * kSpan];
    alignas(64) float highest[kTileRows];  // of the spans so far
    alignas(64) float factors[kTileRows];
};

void configure(int rows) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : tile == 6 ? kTileDeep / 2 : kBlockTokens / 2);
        shapes.row_bytes[tile] = static_cast<uint16_t>(tile == 5 ? 2 * kBlockTokens : 64);
    }
    tiles_configure(shapes);
}

// Asks for what lies in another block where a tile of `lines` rows lies in this one.
inline void ask_for_tile(const char* other, const Element* block, const Element* at, int lines, int stride) {
    if (other == nullptr) return;
    const char* from = other + (reinterpret_cast<const char*>(at) - reinterpret_cast<const char*>(block));
    for (int line = 0; line < lines; ++line) __builtin_prefetch(from + line * stride, 0, 2);
}

template <int tile>
void add_scores(const Element* keys, int first, const char* ahead) {
    const Element* at = keys + first * kBlockTokens;
    tile_load<6>(at, 64);
    tile_multiply_bf16<tile, 4, 6>();
    ask_for_tile(ahead, keys, at, kTileDeep / 2, 64);
}

// Scores of all rows against the first `blocks` blocks of a span.
void score_span(const Part& part, const Element* const* keys, const Ahead& ahead, int blocks, float* scores) {
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int i = 0; i < part.dim; i += kTileDeep) {
        tile_load<4>(part.q + i, 2 * static_cast<size_t>(part.dim));
        add_scores<0>(keys[0], i, ahead.blocks[0]);
        if (blocks > 1) add_scores<1>(keys[1], i, ahead.blocks[1]);
        if (blocks > 2) add_scores<2>(keys[2], i, ahead.blocks[2]);
        if (blocks > 3) add_scores<3>(keys[3], i, ahead.blocks[3]);
    }
    tile_store<0>(scores, kSpan * sizeof(float));
    if (blocks > 1) tile_store<1>(scores + kBlockTokens, kSpan * sizeof(float));
    if (blocks > 2) tile_store<2>(scores + 2 * kBlockTokens, kSpan * sizeof(float));
    if (blocks > 3) tile_store<3>(scores + 3 * kBlockTokens, kSpan * sizeof(float));
}

// Hides what a row does not see, and returns its highest score; `visible` positions are from the span's first on.
inline float mask_row(float* scores, int visible, int blocks) {
    F16 top = all(-__builtin_inff());
    for (int b = 0; b < blocks; ++b) {
        const int left = visible - b * kBlockTokens;
        const int count = left < 0 ? 0 : left > kBlockTokens ? kBlockTokens : left;
        const F16 seen = first_lanes(load(scores + b * kBlockTokens), count, -__builtin_inff());
        store(scores + b * kBlockTokens, seen);
        top = max(top, seen);
    }
    return maximum(top);
}

// Weights of a row, rounded; what they add up to is that of the rounded ones.
inline void weigh_row(const float* scores, int blocks, F16 highest, F16 factor, float* total, uint16_t* weights) {
    F16 sums = mul(load(total), factor);
    for (int b = 0; b < blocks; ++b) {
        const F16 exact = exp2(sub(load(scores + b * kBlockTokens), highest));
        const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(exact));
        sums = add(sums, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(weights + b * kBlockTokens), rounded);
    }
    store(total, sums);
}

// Scores to weights, row by row; what sums so far are multiplied by is computed for all rows at once.
void soften_span(const Part& part, int base, int blocks, SpanSums& sums) {
    alignas(64) float found[kTileRows] = {};
    for (int r = 0; r < part.rows; ++r)
        found[r] = mask_row(sums.scores + r * kSpan, part.position[r] + 1 - base, blocks);
    const F16 before = load(sums.highest), now = max(before, load(found));
    store(sums.factors, exp2(sub(before, now)));
    store(sums.highest, now);
    for (int r = 0; r < part.rows; ++r)
        weigh_row(sums.scores + r * kSpan, blocks, all(sums.highest[r]), all(sums.factors[r]), part.total + r * kLanes,
                  sums.weights + r * kSpan);
}

template <int tile>
void add_values(const Element* keys, int first, int dim, const char* ahead) {
    const Element* at = keys + kBlockTokens * dim + 2 * first;
    tile_load<7>(at, 4 * static_cast<size_t>(dim));
    tile_multiply_bf16<tile, 5, 7>();
    ask_for_tile(ahead, keys, at, kBlockTokens / 2, 4 * dim);
}

// Weighted values of a span: `tiles` times 16 numbers of each row, from `first` on.
void weigh_values(const Element* const* keys, const Ahead& ahead, int blocks, int first, int tiles, int dim,
                  const uint16_t* weights, float* outputs) {
    constexpr size_t kStride = kSumTiles * kLanes * sizeof(float);
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int b = 0; b < blocks; ++b) {
        tile_load<5>(weights + b * kBlockTokens, 2 * kSpan);
        add_values<0>(keys[b], first, dim, ahead.blocks[b]);
        add_values<1>(keys[b], first + kLanes, dim, ahead.blocks[b]);
        if (tiles == 2) continue;
        add_values<2>(keys[b], first + 2 * kLanes, dim, ahead.blocks[b]);
        add_values<3>(keys[b], first + 3 * kLanes, dim, ahead.blocks[b]);
    }
    tile_store<0>(outputs, kStride);
    tile_store<1>(outputs + kLanes, kStride);
    if (tiles == 2) return;
    tile_store<2>(outputs + 2 * kLanes, kStride);
    tile_store<3>(outputs + 3 * kLanes, kStride);
}

void attend_part(const Part& part, int base, const Element* const* keys, const Ahead& ahead, SpanSums& sums) {
    const int most = part.position[part.rows - 1] + 1 - base;
    if (most <= 0) return;
    const int blocks = most >= kSpan ? kSpanBlocks : (most + kBlockTokens - 1) / kBlockTokens;
    score_span(part, keys, ahead, blocks, sums.scores);
    soften_span(part, base, blocks, sums);
    for (int first = 0; first < part.dim; first += kSumTiles * kLanes) {
        const int tiles = part.dim - first < kSumTiles * kLanes ? 2 : kSumTiles;
        weigh_values(keys, ahead, blocks, first, tiles, part.dim, sums.weights, sums.outputs);
        for (int r = 0; r < part.rows; ++r) {
            float* out = part.out + r * part.dim + first;
            for (int i = 0; i < tiles * kLanes; i += kLanes)
                store(out + i, fma(load(out + i), all(sums.factors[r]),
                                   load(sums.outputs + r * kSumTiles * kLanes + i)));
        }
    }
}

// Queries are rounded where they are: each row moves to the front of what it took.
uint16_t* round_queries(float* q, int count) {
    auto* rounded = reinterpret_cast<uint16_t*>(q);
    for (int i = 0; i < count; i += kLanes) {
        const __m256i lanes = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(load(q + i)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded + i), lanes);
    }
    return rounded;
}

// All spans for one part of a task's rows. Only the first part waits for memory; the last one asks for the next task.
void attend_part(const AttentionLayer& layer, const AttentionTask& task, const AttentionTask* next, bool first_part,
                 const Part& part) {
    SpanSums sums;
    store(sums.highest, all(-__builtin_inff()));
    const int last = part.position[part.rows - 1];
    configure(part.rows);
    for (int base = 0; base <= last; base += kSpan) {
        const Element* keys[kSpanBlocks] = {};
        for (int b = 0; b < kSpanBlocks && base + b * kBlockTokens <= last; ++b)
            keys[b] = keys_of<Bf16Cache>(layer, task.table[base / kBlockTokens + b], task.kv_head);
        const bool more = base + kSpan <= last;
        const AttentionTask* wanted = !more ? next : first_part ? &task : nullptr;
        const Ahead ahead = ahead_of<Bf16Cache>(layer, wanted, more ? base + kSpan : 0);
        attend_part(part, base, keys, ahead, sums);
    }
}

void attend_by_tiles(const AttentionLayer& layer, const AttentionTask& task, const AttentionTask* next,
                     float* scratch) {
    const int dim = layer.heads.dim, count = task.rows * layer.heads.group();
    if (dim % kTileDeep != 0) return attend<Bf16Cache>(layer, task, next, scratch);
    if (task.writes)
        for (int i = 0; i < task.rows; ++i)
            write_row<Bf16Cache>(layer, task.first_row + i, task.position + i,
                                 task.table[(task.position + i) / kBlockTokens], task.kv_head, scratch);
    const Rows rows = rows_in(scratch + dim, layer.heads, count);
    prepare_rows(layer, task, rows);
    const uint16_t* q = round_queries(rows.q, count * dim);
    for (int first = 0; first < count; first += kTileRows) {
        const bool last_part = first + kTileRows >= count;
        const Part part = {q + first * dim, rows.out + first * dim, rows.total + first * kLanes, rows.position + first,
                           last_part ? count - first : kTileRows, dim};
        attend_part(layer, task, last_part ? next : nullptr, first == 0, part);
    }
    tiles_release();
    finish_rows(layer, task, rows);
}

}  // namespace

namespace moorage {

const Ops kAmxBf16 = {"amx", rms_norm, silu_times, highest, write<Bf16Cache>, attend_by_tiles};

}  // namespace moorage
