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
    using Factor = float;
    using Vector = F16;
    static constexpr int kPack = 1;
    static Element element(float value) { return value; }
    static void factors(const float* x, int n, Factor* out) { memcpy(out, x, sizeof(float) * static_cast<size_t>(n)); }
    static Vector vector(const Element* from) { return load(from); }
    static F16 dot(F16 sum, Vector kv, Factor factor) { return fma(kv, all(factor), sum); }
};

// Pairs of bfloat16, multiplied and added in float32.
struct Bf16Cache {
    using Element = uint16_t;
    using Factor = uint32_t;
    static constexpr int kPack = 2;
    static Element element(float value) { return bf16_of_float(value); }
    static void factors(const float* x, int n, Factor* out) {
        for (int i = 0; i < n; i += 2)
            out[i / 2] = bf16_of_float(x[i]) | static_cast<uint32_t>(bf16_of_float(x[i + 1])) << 16;
    }
#if defined(__AVX512F__)
    using Vector = __m512i;
    static Vector vector(const Element* from) { return _mm512_loadu_si512(from); }
    static F16 dot(F16 sum, Vector kv, Factor factor) {
        const F16 even = _mm512_castsi512_ps(_mm512_slli_epi32(kv, 16));
        const F16 odd = _mm512_castsi512_ps(_mm512_and_si512(kv, _mm512_set1_epi32(-65536)));
        sum = fma(odd, all(float_of_bits(factor & 0xffff0000u)), sum);
        return fma(even, all(float_of_bits(factor << 16)), sum);
    }
#elif defined(__AVX2__) && defined(__FMA__)
    struct Vector {
        __m256i low, high;
    };
    static Vector vector(const Element* from) {
        const auto* at = reinterpret_cast<const __m256i*>(from);
        return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
    }
    static F16 dot(F16 sum, Vector kv, Factor factor) {
        const __m256i upper = _mm256_set1_epi32(-65536);
        const F16 even{_mm256_castsi256_ps(_mm256_slli_epi32(kv.low, 16)),
                       _mm256_castsi256_ps(_mm256_slli_epi32(kv.high, 16))};
        const F16 odd{_mm256_castsi256_ps(_mm256_and_si256(kv.low, upper)),
                      _mm256_castsi256_ps(_mm256_and_si256(kv.high, upper))};
        sum = fma(odd, all(float_of_bits(factor & 0xffff0000u)), sum);
        return fma(even, all(float_of_bits(factor << 16)), sum);
    }
#else
    struct Vector {
        uint32_t pairs[kLanes];
    };
    static Vector vector(const Element* from) {
        Vector result;
        memcpy(result.pairs, from, sizeof result.pairs);
        return result;
    }
    static F16 dot(const F16& sum, const Vector& kv, Factor factor) {
        const F16 even = each([&](int i) { return float_of_bits(kv.pairs[i] << 16); });
        const F16 odd = each([&](int i) { return float_of_bits(kv.pairs[i] & 0xffff0000u); });
        const F16 first = fma(odd, all(float_of_bits(factor & 0xffff0000u)), sum);
        return fma(even, all(float_of_bits(factor << 16)), first);
    }
#endif
};

#if defined(__AVX512BF16__)
// The same with the processor's own instruction.
struct NativeBf16Cache : Bf16Cache {
    static void factors(const float* x, int n, Factor* out) {
        for (int i = 0; i < n; i += kLanes) {
            const __m256bh rounded = _mm512_cvtneps_pbh(load(x + i));
            memcpy(out + i / 2, &rounded, sizeof rounded);
        }
    }
    static F16 dot(F16 sum, Vector kv, Factor factor) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(kv),
                                reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(factor))));
    }
};
#endif

// What is kept of each row between spans.
template <class Cache>
struct Rows {
    typename Cache::Factor* q;  // rows x dim / P, scaled so that scores are exponents of 2
    float* out;                 // rows x dim
    float* total;               // rows x 16: sums of weights by lane
    float* highest;             // rows
    int* position;              // rows
};

template <class Cache>
Rows<Cache> rows_in(float* scratch, const Heads& heads, int rows) {
    const size_t n = static_cast<size_t>(rows), dim = static_cast<size_t>(heads.dim);
    float* out = scratch + n * dim;
    float* total = out + n * dim;
    float* highest = total + n * kLanes;
    return {reinterpret_cast<typename Cache::Factor*>(scratch), out, total, highest,
            reinterpret_cast<int*>(highest + n)};
}

// One head of a row, normed where the model says so and turned by its position's angles (arXiv:2104.09864); the pairs are
// (i, i + dim / 2).
void turn(const Heads& heads, const float* x, const float* norm, const float* cosines, const float* sines, float factor,
          float* out) {
    float scale = factor;
    if (norm != nullptr) {
        F16 squares = zero();
        for (int i = 0; i < heads.dim; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
        scale = factor / __builtin_sqrtf(sum(squares) / static_cast<float>(heads.dim) + heads.eps);
    }
    const int half = heads.half();
    for (int i = 0; i < half; ++i) {
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

template <class Cache>
void write_row(const AttentionLayer& layer, int row, int position, int32_t block, int kv_head, float* turned) {
    constexpr int P = Cache::kPack;
    const int dim = layer.heads.dim, slot = position % kBlockTokens;
    const size_t at = (static_cast<size_t>(row) * static_cast<size_t>(layer.heads.kv_heads) +
                       static_cast<size_t>(kv_head)) * static_cast<size_t>(dim);
    const size_t angle = static_cast<size_t>(row) * static_cast<size_t>(layer.heads.half());
    turn(layer.heads, layer.k + at, layer.k_norm, layer.cosines + angle, layer.sines + angle, 1.0f, turned);
    auto* keys = keys_of<Cache>(layer, block, kv_head) + slot * P;
    auto* values = keys_of<Cache>(layer, block, kv_head) + kBlockTokens * dim + slot / P * dim * P;
    for (int i = 0; i < dim; ++i) keys[i / P * kBlockTokens * P + i % P] = Cache::element(turned[i]);
    for (int i = 0; i < dim; ++i) {
        values[i * P + slot % P] = Cache::element(layer.v[at + static_cast<size_t>(i)]);
        // The partner of the pair is multiplied by weight 0 until it is written; a leftover NaN would be NaN still.
        if (P == 2 && slot % P == 0) values[i * P + 1] = 0;
    }
}

template <class Cache>
void write(const AttentionLayer& layer, const WriteTask& task, float* scratch) {
    for (int i = 0; i < task.rows; ++i)
        for (int head = 0; head < layer.heads.kv_heads; ++head)
            write_row<Cache>(layer, task.first_row + i, task.position + i, task.block, head, scratch);
}

// Scores of R rows against the 16 positions of a block.
template <class Cache, int R>
void score(const typename Cache::Element* keys, const typename Cache::Factor* q, int steps, float* scores) {
    constexpr int kChains = 4;  // independent sums hide the latency of the additions
    F16 sums[R][kChains];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < kChains; ++c) sums[r][c] = zero();
    for (int i = 0; i < steps; i += kChains) {
        for (int c = 0; c < kChains; ++c) {
            const auto vector = Cache::vector(keys + (i + c) * kBlockTokens * Cache::kPack);
            for (int r = 0; r < R; ++r) sums[r][c] = Cache::dot(sums[r][c], vector, q[r * steps + i + c]);
        }
    }
    for (int r = 0; r < R; ++r)
        store(scores + r * kSpan, add(add(sums[r][0], sums[r][1]), add(sums[r][2], sums[r][3])));
}

// Turns a row's scores into weights; returns what the sums so far are to be multiplied by.
template <class Cache>
float soften(float* scores, int visible, int blocks, float* highest, float* total, typename Cache::Factor* weights) {
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
    Cache::factors(scores, blocks * kBlockTokens, weights);
    store(total, sums);
    *highest = now;
    return factor[0];
}

// Adds the weighted values of a span to N * 16 numbers of R rows.
template <class Cache, int R, int N>
void accumulate(const typename Cache::Element* const* values, int visible, int dim,
                const typename Cache::Factor* weights, const float* factors, float* out) {
    constexpr int P = Cache::kPack;
    F16 sums[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sums[r][n] = mul(load(out + r * dim + n * kLanes), all(factors[r]));
    for (int b = 0; b * kBlockTokens < visible; ++b) {
        const int left = visible - b * kBlockTokens;
        const int steps = ((left < kBlockTokens ? left : kBlockTokens) + P - 1) / P;
        for (int i = 0; i < steps; ++i) {
            for (int n = 0; n < N; ++n) {
                const auto vector = Cache::vector(values[b] + (i * dim + n * kLanes) * P);
                for (int r = 0; r < R; ++r)
                    sums[r][n] = Cache::dot(sums[r][n], vector, weights[(r * kSpan + b * kBlockTokens) / P + i]);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(out + r * dim + n * kLanes, sums[r][n]);
}

template <class Cache, int R>
void accumulate_all(const typename Cache::Element* const* values, int visible, int dim,
                    const typename Cache::Factor* weights, const float* factors, float* out) {
    const typename Cache::Element* at[kSpanBlocks];
    for (int begin = 0; begin < dim; begin += 4 * kLanes) {
        for (int b = 0; b < kSpanBlocks; ++b) at[b] = values[b] + begin * Cache::kPack;
        switch ((dim - begin) / kLanes) {
            case 1: accumulate<Cache, R, 1>(at, visible, dim, weights, factors, out + begin); break;
            case 2: accumulate<Cache, R, 2>(at, visible, dim, weights, factors, out + begin); break;
            case 3: accumulate<Cache, R, 3>(at, visible, dim, weights, factors, out + begin); break;
            default: accumulate<Cache, R, 4>(at, visible, dim, weights, factors, out + begin);
        }
    }
}

// One span of R rows. A row that sees less of it than another gives the rest weight 0.
template <class Cache, int R>
void attend_span(const Rows<Cache>& rows, int first, int base, int dim, const typename Cache::Element* const* keys) {
    const int steps = dim / Cache::kPack;
    int visible[R], most = 0;
    for (int r = 0; r < R; ++r) {
        const int seen = rows.position[first + r] + 1 - base;
        visible[r] = seen < 0 ? 0 : seen > kSpan ? kSpan : seen;
        most = visible[r] > most ? visible[r] : most;
    }
    if (most == 0) return;
    const int blocks = (most + kBlockTokens - 1) / kBlockTokens;
    alignas(64) float scores[R * kSpan];
    alignas(64) typename Cache::Factor weights[R * kSpan / Cache::kPack];
    const typename Cache::Element* values[kSpanBlocks] = {};
    for (int b = 0; b < blocks; ++b) {
        score<Cache, R>(keys[b], rows.q + first * steps, steps, scores + b * kBlockTokens);
        values[b] = keys[b] + kBlockTokens * dim;
    }
    for (int b = blocks; b < kSpanBlocks; ++b) values[b] = values[0];
    float factors[R];
    for (int r = 0; r < R; ++r)
        factors[r] = soften<Cache>(scores + r * kSpan, visible[r], blocks, rows.highest + first + r,
                                   rows.total + (first + r) * kLanes, weights + r * kSpan / Cache::kPack);
    accumulate_all<Cache, R>(values, most, dim, weights, factors, rows.out + first * dim);
}

template <class Cache>
void attend_rows(const Rows<Cache>& rows, int count, int base, int dim, const typename Cache::Element* const* keys) {
    int first = 0;
    for (; first + kRows <= count; first += kRows) attend_span<Cache, kRows>(rows, first, base, dim, keys);
    switch (count - first) {
        case 3: attend_span<Cache, 3>(rows, first, base, dim, keys); break;
        case 2: attend_span<Cache, 2>(rows, first, base, dim, keys); break;
        case 1: attend_span<Cache, 1>(rows, first, base, dim, keys); break;
        default: break;
    }
}

// Queries of the task as rows: all heads of the group of one token, then those of the next.
template <class Cache>
void prepare_rows(const AttentionLayer& layer, const AttentionTask& task, const Rows<Cache>& rows, float* turned) {
    const Heads& heads = layer.heads;
    const float scale = kLog2e / __builtin_sqrtf(static_cast<float>(heads.dim));
    const int group = heads.group();
    for (int i = 0; i < task.rows * group; ++i) {
        const size_t row = static_cast<size_t>(task.first_row + i / group);
        const size_t head = static_cast<size_t>(task.kv_head * group + i % group);
        const float* q = layer.q + (row * static_cast<size_t>(heads.heads) + head) * static_cast<size_t>(heads.dim);
        const size_t angle = row * static_cast<size_t>(heads.half());
        turn(heads, q, layer.q_norm, layer.cosines + angle, layer.sines + angle, scale, turned);
        Cache::factors(turned, heads.dim, rows.q + i * (heads.dim / Cache::kPack));
        for (int j = 0; j < heads.dim; j += kLanes) store(rows.out + i * heads.dim + j, zero());
        store(rows.total + i * kLanes, zero());
        rows.highest[i] = -__builtin_inff();
        rows.position[i] = task.position + i / group;
    }
}

template <class Cache>
void finish_rows(const AttentionLayer& layer, const AttentionTask& task, const Rows<Cache>& rows) {
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
void attend(const AttentionLayer& layer, const AttentionTask& task, float* scratch) {
    const int dim = layer.heads.dim, count = task.rows * layer.heads.group();
    float* turned = scratch;
    if (task.writes)
        for (int i = 0; i < task.rows; ++i)
            write_row<Cache>(layer, task.first_row + i, task.position + i,
                             task.table[(task.position + i) / kBlockTokens], task.kv_head, turned);
    const Rows<Cache> rows = rows_in<Cache>(scratch + dim, layer.heads, count);
    prepare_rows(layer, task, rows, turned);
    const int last = task.position + task.rows - 1;
    for (int base = 0; base <= last; base += kSpan) {
        const typename Cache::Element* keys[kSpanBlocks] = {};
        for (int b = 0; b < kSpanBlocks && base + b * kBlockTokens <= last; ++b)
            keys[b] = keys_of<Cache>(layer, task.table[base / kBlockTokens + b], task.kv_head);
        attend_rows<Cache>(rows, count, base, dim, keys);
    }
    finish_rows(layer, task, rows);
}

}  // namespace
