// Layout of packed matrices, the same on every machine. Private to the products.
//
// Outputs are interleaved by 16 ("strip"), so that a vector lane is an output and no sum runs across lanes:
//
//     F32, F16   strip = [k][16 outputs]
//     BF16       strip = [k / 32][16 pairs][16 outputs][2], k padded with zeros: a block of 1 KiB is a tile of
//     TDPBF16PS quantised  strip = [k / 64, or k / 256 for K-quants, rounded up][chunk]
//
// A quantised weight is scale * (code - zero) + minimum, with one scale (and minimum) per output and group of 16 or 32
// inputs. A chunk is what some groups of a strip need, side by side, so that a product reads memory in one stream:
//
//     codes                  4-bit: [inputs / 8][16 outputs][4 bytes]; byte i has input i in its low half, i + 4 in the
//     high
//                            8-bit: [inputs / 4][16 outputs][4 bytes], signed
//     scales, minimums       [groups][16 outputs], halves; or, on two levels as in the K-quants, signed bytes
//     upper scales, minimums [16 outputs] halves, only on two levels: a scale is the byte times the half, exact in fp32
#pragma once

#include "gemm.h"

namespace moorage {

constexpr int kStrip = 16;
constexpr int kSuper = 256;  // inputs under one upper scale of a K-quant

enum class Layout : int32_t { F32, F16, BF16, Quantised };

struct Quantisation {
    int bits;        // 4 or 8
    int group;       // 32 or 16
    int zero;        // what the code of weight 0 is: 0, 4 or 8; 8-bit codes are signed and have none
    bool minimum;    // whether a minimum is added
    bool two_level;  // bytes times halves instead of halves
};

// Where things are in a chunk, in bytes.
struct Chunk {
    int inputs, groups;
    int code_bytes;  // of one group
    int scales, minimums, upper_scales, upper_minimums;
    int bytes;
};

constexpr Chunk chunk_of(const Quantisation& kind) {
    Chunk chunk{};
    chunk.inputs = kind.two_level ? kSuper : 64;
    chunk.groups = chunk.inputs / kind.group;
    chunk.code_bytes = kind.group * kStrip * kind.bits / 8;
    const int factors = chunk.groups * kStrip * (kind.two_level ? 1 : 2);
    const int uppers = kind.two_level ? kStrip * 2 : 0;
    chunk.scales = chunk.groups * chunk.code_bytes;
    chunk.minimums = chunk.scales + factors;
    chunk.upper_scales = chunk.minimums + (kind.minimum ? factors : 0);
    chunk.upper_minimums = chunk.upper_scales + uppers;
    chunk.bytes = (chunk.upper_minimums + (kind.minimum ? uppers : 0) + 63) / 64 * 64;
    return chunk;
}

struct Matrix {
    Format format;
    Layout layout;
    Quantisation quantisation;
    Chunk chunk;
    int n, k;
    int strips, tile_strips;
    size_t strip_bytes;
    size_t bytes;
    uint8_t* data;
};

}  // namespace moorage
