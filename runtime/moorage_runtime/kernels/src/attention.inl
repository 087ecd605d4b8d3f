// Attention over the paged cache. Included once per instruction set, after simd.h.
//
// A row attends to its sequence's positions in spans of `kSpan` from position 0 on, with the running maximum and sum of
// online softmax (Milakov and Gimelshein, arXiv:1805.02867; FlashAttention, arXiv:2205.14135). The spans, and the order of
// additions within them, are those of absolute positions: how a prompt was cut, which rows are computed beside this one
// and which thread does it change no bit.
//
// Layout of a block and KV head in the cache, with P = 2 for bfloat16 and 1 for float32:
//
//     keys    [dim / P][16 positions][P]      a vector holds one (pair of) number(s) of all 16 positions
//     values  [16 / P positions][dim][P]      a vector holds 16 numbers of one (pair of) position(s)
//
// so scores and outputs lie side by side in lanes, and no sum runs across them.
#pragma once

#include "ops.h"
#include "simd.h"

namespace {

using namespace moorage;

constexpr int kSpan = 64;
constexpr int kSpanBlocks = kSpan / kBlockTokens;
constexpr float kLog2e = 1.44269504f;
#if defined(__AVX512F__)
constexpr int kRows = 4;  // rows that share the loads of keys and values: 16 of 32 registers accumulate
#else
constexpr int kRows = 1;
#endif

struct F32Cache {
    using Element = float;
    struct Vector {
        F16 only;
    };
    static constexpr int kPack = 1;
    static void put_key(Element* key, const float* x) { *key = *x; }
    static void put_values(Element* values, const float* x, int dim, int) {
        memcpy(values, x, sizeof(float) * static_cast<size_t>(dim));
    }
    static Vector vector(const Element* from) { return {load(from)}; }
    static F16 dot(const F16& sum, const Vector& kv, const float* factor) { return fma(kv.only, all(*factor), sum); }
};

// Pairs of bfloat16. They are widened once for all rows and multiplied in float32: two such instructions take a cycle,
// the processor's own for pairs takes two.
struct Bf16Cache {
    using Element = uint16_t;
    struct Vector {
        F16 even, odd;
    };
    static constexpr int kPack = 2;
    static void put_key(Element* key, const float* x) {
        key[0] = bf16_of_float(x[0]);
        key[1] = bf16_of_float(x[1]);
    }
    static void put_values(Element* values, const float* x, int dim, int odd) {
        auto* pairs = reinterpret_cast<uint32_t*>(values);
        for (int i = 0; i < dim; ++i) {
            const uint32_t value = bf16_of_float(x[i]);
            pairs[i] = odd ? (pairs[i] & 0xffffu) | value << 16 : value;
        }
    }
    static Vector vector(const Element* from) {
#if defined(__AVX512F__)
        const __m512i pairs = _mm512_loadu_si512(from);
        return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)))};
#elif defined(__AVX2__) && defined(__FMA__)
        const auto* at = reinterpret_cast<const __m256i*>(from);
        const __m256i low = _mm256_loadu_si256(at), high = _mm256_loadu_si256(at + 1);
        const __m256i upper = _mm256_set1_epi32(-65536);
        return {{_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))},
                {_mm256_castsi256_ps(_mm256_and_si256(low, upper)), _mm256_castsi256_ps(_mm256_and_si256(high, upper))}};
#else
        return {each([&](int i) { return float_of_bf16(from[2 * i]); }),
                each([&](int i) { return float_of_bf16(from[2 * i + 1]); })};
#endif
    }
    static F16 dot(const F16& sum, const Vector& kv, const float* factors) {
        return fma(kv.odd, all(factors[1]), fma(kv.even, all(factors[0]), sum));
    }
};

// What is kept of each row between spans.
struct Rows {
    float* q;        // rows x dim, scaled so that scores are exponents of 2
    float* out;      // rows x dim
    float* total;    // rows x 16: sums of weights by lane
    float* highest;  // rows
    int* position;   // rows
};

Rows rows_in(float* scratch, const Heads& heads, int rows) {
    const size_t n = static_cast<size_t>(rows), dim = static_cast<size_t>(heads.dim);
    float* out = scratch + n * dim;
    float* total = out + n * dim;
    float* highest = total + n * kLanes;
    return {scratch, out, total, highest, reinterpret_cast<int*>(highest + n)};
}

// One head of a row, normed where the model says so and turned by its position's angles (arXiv:2104.09864); the pairs are
// (i, i + dim / 2).
inline void turn(const Heads& heads, const float* x, const float* norm, const float* cosines, const float* sines, float factor,
          float* out) {
    float scale = factor;
    if (norm != nullptr) {
        F16 squares = zero();
        for (int i = 0; i < heads.dim; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
        scale = factor / __builtin_sqrtf(sum(squares) / static_cast<float>(heads.dim) + heads.eps);
    }
    const int half = heads.half();
    const int whole = half / kLanes * kLanes;
    const F16 scales = all(scale);
    for (int i = 0; i < whole; i += kLanes) {
        F16 first = load(x + i), second = load(x + i + half);
        if (norm != nullptr) {
            first = mul(first, load(norm + i));
            second = mul(second, load(norm + i + half));
        }
        const F16 cosine = load(cosines + i), sine = load(sines + i);
        store(out + i, mul(sub(mul(first, cosine), mul(second, sine)), scales));
        store(out + i + half, mul(add(mul(second, cosine), mul(first, sine)), scales));
    }
    for (int i = whole; i < half; ++i) {
        const float first = norm != nullptr ? x[i] * norm[i] : x[i];
        const float second = norm != nullptr ? x[i + half] * norm[i + half] : x[i + half];
        out[i] = (first * cosines[i] - second * sines[i]) * scale;
        out[i + half] = (second * cosines[i] + first * sines[i]) * scale;
    }
}

template <class Cache>
typename Cache::Element* keys_of(const AttentionLayer& layer, int32_t block, int kv_head) {
    const size_t index = static_cast<size_t>(block) * static_cast<size_t>(layer.heads.kv_heads) +
                         static_cast<size_t>(kv_head);
    return static_cast<typename Cache::Element*>(layer.cache) + index * layer.heads.block_size();
}

// Blocks of the cache that are wanted next. Their lines are asked for one by one while those of this span are computed
// with: the processor's own prefetching ends at a page, and a block is one.
struct Ahead {
    const char* blocks[kSpanBlocks];
};

// What lies at the same place of another block. Keys and values are read line by line, so each line is asked for once.
template <class Element>
inline void ask_for(const char* other, const Element* block, const Element* at) {
    __builtin_prefetch(other + (reinterpret_cast<const char*>(at) - reinterpret_cast<const char*>(block)), 0, 2);
}

// The blocks of a task's span from `base` on; none where the task ends before, or there is none.
template <class Cache>
Ahead ahead_of(const AttentionLayer& layer, const AttentionTask* task, int base) {
    Ahead ahead = {};  // asking for nullptr does nothing
    if (task == nullptr) return ahead;
    const int last = task->position + task->rows - 1;
    for (int b = 0; b < kSpanBlocks && base + b * kBlockTokens <= last; ++b) {
        const int32_t block = task->table[base / kBlockTokens + b];
        ahead.blocks[b] = reinterpret_cast<const char*>(keys_of<Cache>(layer, block, task->kv_head));
    }
    return ahead;
}

template <class Cache>
void write_row(const AttentionLayer& layer, int row, int position, int32_t block, int kv_head, float* turned) {
    constexpr int P = Cache::kPack;
    const int dim = layer.heads.dim, slot = position % kBlockTokens;
    const size_t at = (static_cast<size_t>(row) * static_cast<size_t>(layer.heads.kv_heads) +
                       static_cast<size_t>(kv_head)) * static_cast<size_t>(dim);
    const size_t angle = static_cast<size_t>(row) * static_cast<size_t>(layer.heads.half());
    turn(layer.heads, layer.k + at, layer.k_norm, layer.cosines + angle, layer.sines + angle, 1.0f, turned);
    typename Cache::Element* keys = keys_of<Cache>(layer, block, kv_head) + slot * P;
    for (int i = 0; i < dim; i += P) Cache::put_key(keys + i * kBlockTokens, turned + i);
    typename Cache::Element* values = keys_of<Cache>(layer, block, kv_head) + kBlockTokens * dim;
    // Positions that are not written yet are multiplied by weight 0; what another sequence left may be a NaN.
    if (slot == 0) memset(values, 0, sizeof *values * static_cast<size_t>(kBlockTokens * dim));
    Cache::put_values(values + slot / P * dim * P, layer.v + at, dim, slot % P);
}

template <class Cache>
void write(const AttentionLayer& layer, const WriteTask& task, float* scratch) {
    for (int i = 0; i < task.rows; ++i)
        for (int head = 0; head < layer.heads.kv_heads; ++head)
            write_row<Cache>(layer, task.first_row + i, task.position + i, task.block, head, scratch);
}

// Scores of R rows against the 16 positions of a block.
template <class Cache, int R, bool Asks>
void score(const typename Cache::Element* keys, const char* ahead, const float* q, int dim, float* scores) {
    constexpr int kChains = 4, P = Cache::kPack;  // independent sums hide the latency of the additions
    F16 sums[R][kChains];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < kChains; ++c) sums[r][c] = zero();
    for (int i = 0; i < dim; i += kChains * P) {
        for (int c = 0; c < kChains; ++c) {
            const auto* at = keys + (i + c * P) * kBlockTokens;
            const auto vector = Cache::vector(at);
            if (Asks) ask_for(ahead, keys, at);
            for (int r = 0; r < R; ++r) sums[r][c] = Cache::dot(sums[r][c], vector, q + r * dim + i + c * P);
        }
    }
    for (int r = 0; r < R; ++r)
        store(scores + r * kSpan, add(add(sums[r][0], sums[r][1]), add(sums[r][2], sums[r][3])));
}

// Turns a row's scores into weights; returns what the sums so far are to be multiplied by.
inline float soften(float* scores, int visible, int blocks, float* highest, float* total) {
    F16 top = all(-__builtin_inff());
    for (int b = 0; b < blocks; ++b) {
        const int left = visible - b * kBlockTokens;
        const F16 seen = first_lanes(load(scores + b * kBlockTokens),
                                     left < 0 ? 0 : left > kBlockTokens ? kBlockTokens : left, -__builtin_inff());
        store(scores + b * kBlockTokens, seen);
        top = max(top, seen);
    }
    const float found = maximum(top), before = *highest;
    const float now = found > before ? found : before;
    float factor[kLanes];
    store(factor, exp2(all(before - now)));
    F16 sums = mul(load(total), all(factor[0]));
    for (int b = 0; b < blocks; ++b) {
        const F16 weight = exp2(sub(load(scores + b * kBlockTokens), all(now)));
        sums = add(sums, weight);
        store(scores + b * kBlockTokens, weight);
    }
    store(total, sums);
    *highest = now;
    return factor[0];
}

// Adds the weighted values of a span to N * 16 numbers of R rows.
template <class Cache, int R, int N, bool Asks>
void accumulate(const typename Cache::Element* const* keys, const Ahead& ahead, int begin, int visible, int dim,
                const float* weights, const float* factors, float* out) {
    constexpr int P = Cache::kPack;
    F16 sums[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sums[r][n] = mul(load(out + r * dim + n * kLanes), all(factors[r]));
    for (int b = 0; b * kBlockTokens < visible; ++b) {
        const auto* values = keys[b] + kBlockTokens * dim + begin * P;
        const int left = visible - b * kBlockTokens;
        const int steps = ((left < kBlockTokens ? left : kBlockTokens) + P - 1) / P;
        for (int i = 0; i < steps; ++i) {
            for (int n = 0; n < N; ++n) {
                const auto* at = values + (i * dim + n * kLanes) * P;
                const auto vector = Cache::vector(at);
                if (Asks) ask_for(ahead.blocks[b], keys[b], at);
                for (int r = 0; r < R; ++r)
                    sums[r][n] = Cache::dot(sums[r][n], vector, weights + r * kSpan + b * kBlockTokens + i * P);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(out + r * dim + n * kLanes, sums[r][n]);
}

template <class Cache, int R, bool Asks>
void accumulate_all(const typename Cache::Element* const* keys, const Ahead& ahead, int visible, int dim,
                    const float* weights, const float* factors, float* out) {
    for (int begin = 0; begin < dim; begin += 4 * kLanes) {
        float* to = out + begin;
        switch ((dim - begin) / kLanes) {
            case 1: accumulate<Cache, R, 1, Asks>(keys, ahead, begin, visible, dim, weights, factors, to); break;
            case 2: accumulate<Cache, R, 2, Asks>(keys, ahead, begin, visible, dim, weights, factors, to); break;
            case 3: accumulate<Cache, R, 3, Asks>(keys, ahead, begin, visible, dim, weights, factors, to); break;
            default: accumulate<Cache, R, 4, Asks>(keys, ahead, begin, visible, dim, weights, factors, to);
        }
    }
}

// One span of R rows. A row that sees less of it than another gives the rest weight 0.
template <class Cache, int R, bool Asks>
void attend_span(const Rows& rows, int first, int base, int dim, const typename Cache::Element* const* keys,
                 const Ahead& ahead) {
    int visible[R], most = 0;
    for (int r = 0; r < R; ++r) {
        const int seen = rows.position[first + r] + 1 - base;
        visible[r] = seen < 0 ? 0 : seen > kSpan ? kSpan : seen;
        most = visible[r] > most ? visible[r] : most;
    }
    if (most == 0) return;
    const int blocks = (most + kBlockTokens - 1) / kBlockTokens;
    alignas(64) float scores[R * kSpan];
    for (int b = 0; b < blocks; ++b)
        score<Cache, R, Asks>(keys[b], ahead.blocks[b], rows.q + first * dim, dim, scores + b * kBlockTokens);
    float factors[R];
    for (int r = 0; r < R; ++r)
        factors[r] = soften(scores + r * kSpan, visible[r], blocks, rows.highest + first + r,
                            rows.total + (first + r) * kLanes);
    accumulate_all<Cache, R, Asks>(keys, ahead, most, dim, scores, factors, rows.out + first * dim);
}

template <class Cache>
void attend_rows(const Rows& rows, int count, int base, int dim, const typename Cache::Element* const* keys,
                 const Ahead& ahead) {
    // The first rows wait for memory, and ask for what is next; the others find in the processor what the first have read.
    int first = 0;
    if (count >= kRows) {
        attend_span<Cache, kRows, true>(rows, 0, base, dim, keys, ahead);
        for (first = kRows; first + kRows <= count; first += kRows)
            attend_span<Cache, kRows, false>(rows, first, base, dim, keys, ahead);
    }
    switch (count - first) {
        case 3: attend_span<Cache, 3, true>(rows, first, base, dim, keys, ahead); break;
        case 2: attend_span<Cache, 2, true>(rows, first, base, dim, keys, ahead); break;
        case 1: attend_span<Cache, 1, true>(rows, first, base, dim, keys, ahead); break;
        default: break;
    }
}

// Queries of the task as rows: all heads of the group of one token, then those of the next.
inline void prepare_rows(const AttentionLayer& layer, const AttentionTask& task, const Rows& rows) {
    const Heads& heads = layer.heads;
    const float scale = kLog2e / __builtin_sqrtf(static_cast<float>(heads.dim));
    const int group = heads.group();
    for (int i = 0; i < task.rows * group; ++i) {
        const size_t row = static_cast<size_t>(task.first_row + i / group);
        const size_t head = static_cast<size_t>(task.kv_head * group + i % group);
        const float* q = layer.q + (row * static_cast<size_t>(heads.heads) + head) * static_cast<size_t>(heads.dim);
        const size_t angle = row * static_cast<size_t>(heads.half());
        turn(heads, q, layer.q_norm, layer.cosines + angle, layer.sines + angle, scale,
             rows.q + i * heads.dim);
        for (int j = 0; j < heads.dim; j += kLanes) store(rows.out + i * heads.dim + j, zero());
        store(rows.total + i * kLanes, zero());
        rows.highest[i] = -__builtin_inff();
        rows.position[i] = task.position + i / group;
    }
}

inline void finish_rows(const AttentionLayer& layer, const AttentionTask& task, const Rows& rows) {
    const Heads& heads = layer.heads;
    const int group = heads.group();
    for (int i = 0; i < task.rows * group; ++i) {
        const size_t row = static_cast<size_t>(task.first_row + i / group);
        const size_t head = static_cast<size_t>(task.kv_head * group + i % group);
        float* out = layer.out + (row * static_cast<size_t>(heads.heads) + head) * static_cast<size_t>(heads.dim);
        const F16 share = all(1.0f / sum(load(rows.total + i * kLanes)));
        for (int j = 0; j < heads.dim; j += kLanes) store(out + j, mul(load(rows.out + i * heads.dim + j), share));
    }
}

template <class Cache>
void attend(const AttentionLayer& layer, const AttentionTask& task, const AttentionTask* next, float* scratch) {
    const int dim = layer.heads.dim, count = task.rows * layer.heads.group();
    float* turned = scratch;
    const int last = task.position + task.rows - 1;
    if (task.writes)
        for (int i = 0; i < task.rows; ++i)
            write_row<Cache>(layer, task.first_row + i, task.position + i,
                             task.table[(task.position + i) / kBlockTokens], task.kv_head, turned);
    const Rows rows = rows_in(scratch + dim, layer.heads, count);
    prepare_rows(layer, task, rows);
    for (int base = 0; base <= last; base += kSpan) {
        const typename Cache::Element* keys[kSpanBlocks] = {};
        for (int b = 0; b < kSpanBlocks && base + b * kBlockTokens <= last; ++b)
            keys[b] = keys_of<Cache>(layer, task.table[base / kBlockTokens + b], task.kv_head);
        const bool more = base + kSpan <= last;
        const Ahead ahead = ahead_of<Cache>(layer, more ? &task : next, more ? base + kSpan : 0);
        attend_rows<Cache>(rows, count, base, dim, keys, ahead);
    }
    finish_rows(layer, task, rows);
}

}  // namespace
