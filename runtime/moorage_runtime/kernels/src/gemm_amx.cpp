// Quantised products of many rows by AMX: a tile is 16 rows by 16 outputs, one group of inputs deep.
//
// Groups have scales of their own, so each group's tile of integers goes through memory into 16 fp32 sums. Those bound
// the speed: while AMX instructions are in flight, 512-bit floating point has one port instead of two (measured on
// Sapphire Rapids, and for some 2,000 cycles after), so that a block of 16 x 16 x 32 takes 48 cycles, 64 with a
// minimum. The tile's product, 16 cycles, and its way through memory run beside that: groups overlap three deep.
#include <cstring>
#include <new>

#include "gemm_amx.h"
#include "gemm_avx512.h"
#include "gemm_kinds.h"
#include "gemm_tiles.h"

namespace moorage {

namespace {

// Fewer rows than these, in all and in a block, are faster by VNNI (bit-equal: integer sums are exact).
constexpr int kFewestRows = 25;
constexpr int kFewestInBlock = 9;
constexpr int kProducts = kRowBlock * kStrip;

// A thread's scratch memory: a strip's codes and factors, unpacked for tiles. It lives as long as the thread; nullptr:
// there is no more memory.
class Scratch {
public:
    ~Scratch() { release(); }
    uint8_t* at_least(size_t bytes) {
        if (bytes > bytes_) {
            release();
            data_ = static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{64}, std::nothrow));
            bytes_ = data_ == nullptr ? 0 : bytes;
        }
        return data_;
    }

private:
    void release() { ::operator delete(data_, std::align_val_t{64}); }
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

thread_local Scratch scratch;

// A strip, unpacked: signed codes [group][group / 4][16][4], factors [group][16].
struct Unpacked {
    int8_t* codes;
    float* scales;
    float* minimums;
};

template <Quantisation kind>
void unpack_codes(const uint8_t* from, int8_t* to) {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(kind.zero));
    for (int i = 0; i < kind.group; i += 8, from += 64, to += 128) {
        const __m512i both = _mm512_loadu_si512(from);
        const __m512i first = _mm512_and_si512(both, low);
        const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        _mm512_store_si512(to, kind.zero == 0 ? first : _mm512_sub_epi8(first, zero));
        _mm512_store_si512(to + 64, kind.zero == 0 ? second : _mm512_sub_epi8(second, zero));
    }
}

template <Quantisation kind>
void unpack_group(const uint8_t* chunk, int in_chunk, const Unpacked& to, int group) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* codes = chunk + in_chunk * layout.code_bytes;
    int8_t* unpacked = to.codes + group * kind.group * kStrip;
    if constexpr (kind.bits == 4) unpack_codes<kind>(codes, unpacked);
    else std::memcpy(unpacked, codes, layout.code_bytes);
    _mm512_store_ps(to.scales + group * kStrip, load_scales<kind>(chunk, in_chunk));
    if constexpr (kind.minimum) _mm512_store_ps(to.minimums + group * kStrip, load_minimums<kind>(chunk, in_chunk));
}

size_t scratch_bytes(const Matrix& matrix) {
    const auto k = static_cast<size_t>(matrix.k);
    return k * kStrip + 2 * (k / static_cast<size_t>(matrix.quantisation.group)) * kStrip * sizeof(float);
}

template <Quantisation kind>
Unpacked unpack(const Matrix& matrix, const uint8_t* chunk) {
    constexpr Chunk layout = chunk_of(kind);
    const int groups = matrix.k / kind.group;
    const auto codes = static_cast<size_t>(matrix.k) * kStrip;
    const auto factors = static_cast<size_t>(groups) * kStrip;
    uint8_t* memory = scratch.at_least(scratch_bytes(matrix));
    auto* scales = reinterpret_cast<float*>(memory + codes);
    const Unpacked to = {reinterpret_cast<int8_t*>(memory), scales, scales + factors};
    for (int group = 0; group < groups; group += layout.groups, chunk += layout.bytes) {
        prefetch<layout.bytes>(chunk + kAhead);
        const int count = std::min(layout.groups, groups - group);
        for (int i = 0; i < count; ++i) unpack_group<kind>(chunk, i, to, group + i);
    }
    return to;
}

// Tiles 0..3: sums, in turn; 4 and 5: activations; 6 and 7: weights.
TileShapes shapes_for(int rows, int group) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : group / 4);
        shapes.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? group : 64);
    }
    return shapes;
}

template <Quantisation kind, int tile>
MOORAGE_INLINE void multiply_group(const Unpacked& weights, const CodeRows& x, int group) {
    tile_zero<tile>();
    tile_load<4 + tile % 2>(in_group<kind>(x, group).codes, kGroup);
    tile_load<6 + tile % 2>(weights.codes + group * kind.group * kStrip, 64);
    tile_multiply_i8<tile, 4 + tile % 2, 6 + tile % 2>();
}

template <Quantisation kind, int rows>
MOORAGE_INLINE void scale_group(const Unpacked& weights, const CodeRows& x, int group, const int32_t* products,
                                __m512 (&sums)[rows]) {
    const __m512 scales = _mm512_load_ps(weights.scales + group * kStrip);
    const CodeRows at = in_group<kind>(x, group);
    unrolled<rows>(MOORAGE_EACH(r) {
        const __m512 exact = _mm512_cvtepi32_ps(_mm512_load_si512(products + r * kStrip));
        sums[r] = _mm512_fmadd_ps(_mm512_mul_ps(scales, _mm512_set1_ps(at.scale[r])), exact, sums[r]);
    });
    if constexpr (kind.minimum) {
        const __m512 minimums = _mm512_load_ps(weights.minimums + group * kStrip);
        unrolled<rows>(
            MOORAGE_EACH(r) { sums[r] = _mm512_fmadd_ps(minimums, _mm512_set1_ps(at.offset[r]), sums[r]); });
    }
}

// `count` rows of a block, at most `rows`: those beyond are computed from whatever follows in memory, and not stored.
// Meanwhile the next strip's weights are asked for, a group's worth at a time, or memory would be idle.
template <Quantisation kind, int rows>
void multiply_rows(const Product& product, const Unpacked weights, int strip, int row, int count) {
    constexpr Chunk layout = chunk_of(kind);
    const uint8_t* next = strip_at(product, strip + 1);
    alignas(64) int32_t products[2][kProducts];
    const int groups = product.matrix.k / kind.group;
    const CodeRows x = code_rows<kind>(product, row);
    const StripOut to = strip_out(product, strip);
    prefetch_rows(to, row, count);
    __m512 sums[rows];
    unrolled<rows>(MOORAGE_EACH(r) { sums[r] = _mm512_setzero_ps(); });
    const auto turn = [&]<int tile>(int group) __attribute__((always_inline)) {
        if (group + 2 < groups) multiply_group<kind, (tile + 2) % 4>(weights, x, group + 2);
        if (group + 1 < groups) tile_store<(tile + 1) % 4>(products[(tile + 1) % 2], 64);
        if (group >= groups) return;
        prefetch<layout.bytes / layout.groups>(next + group * (layout.bytes / layout.groups));
        scale_group<kind, rows>(weights, x, group, products[tile % 2], sums);
    };
    multiply_group<kind, 0>(weights, x, 0);
    if (groups > 1) multiply_group<kind, 1>(weights, x, 1);
    tile_store<0>(products[0], 64);
    for (int group = 0; group < groups; group += 4) {
        turn.template operator()<0>(group);
        turn.template operator()<1>(group + 1);
        turn.template operator()<2>(group + 2);
        turn.template operator()<3>(group + 3);
    }
    unrolled<rows>(MOORAGE_EACH(r) {
        if (r < count) store_row(to, row + r, sums[r]);
    });
}

template <Quantisation kind>
void multiply_block(const Product& product, const Unpacked& weights, int strip, int row, int count) {
    if (count > 12) return multiply_rows<kind, 16>(product, weights, strip, row, count);
    return multiply_rows<kind, 12>(product, weights, strip, row, count);
}

// Rows [begin, end) of one block and one strip by VNNI.
void multiply_few(const Product& product, int strip, int begin, int end) {
    kAvx512Path.quantised({product.matrix, product.operand, product.rows, begin, end, strip, strip + 1, product.out,
                           product.ldo, product.bias, product.add});
}

template <Quantisation kind>
void multiply_strip(const Product& product, int strip, int& configured) {
    const Unpacked weights = unpack<kind>(product.matrix, strip_at(product, strip));
    for (int row = product.row_begin; row < product.row_end;) {
        const int end = std::min(product.row_end, (row / kRowBlock + 1) * kRowBlock);
        const int count = end - row;
        if (count < kFewestInBlock) {
            multiply_few(product, strip, row, end);
        } else {
            if (count != configured) tiles_configure(shapes_for(count, kind.group));
            configured = count;
            multiply_block<kind>(product, weights, strip, row, count);
        }
        row = end;
    }
}

void multiply_quantised(const Product& product) {
    const bool few = product.row_end - product.row_begin < kFewestRows;
    if (few || scratch.at_least(scratch_bytes(product.matrix)) == nullptr) return kAvx512Path.quantised(product);
    for_kind(product.matrix.quantisation, [&]<Quantisation kind>() {
        int configured = 0;
        for (int strip = product.strip_begin; strip < product.strip_end; ++strip) {
            multiply_strip<kind>(product, strip, configured);
        }
        tiles_release();
    });
}

void multiply_f32(const Product& product) { kAvx512Path.f32(product); }

void multiply_f16(const Product& product) { kAvx512Path.f16(product); }

}  // namespace

const Path kAmxPath = {"amx", multiply_f32, multiply_f16, multiply_bf16_tiles, multiply_quantised, kAvx512Rows};

}  // namespace moorage
